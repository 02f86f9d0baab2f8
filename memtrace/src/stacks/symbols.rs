//! Names of native functions, from a file's own symbol tables.
//!
//! Several names may stand at one address; the one that people know is taken: `calloc`, not `__libc_calloc`.

use std::fmt::{self, Write};

use object::{Object, ObjectSymbol, SymbolKind, SymbolSection};

/// Names longer than this are cut: symbols are the file's and may say anything.
const MAX_NAME_BYTES: usize = 1024;
/// What demangling may make of a name. A few bytes can stand for a name of any length, which nobody would read.
const MAX_DEMANGLED_BYTES: usize = 2048;

/// Functions by address.
#[derive(Debug, Default)]
pub(super) struct Symbols {
    /// Ascending; one name an address.
    functions: Vec<Function>,
    /// All names, one behind the other: a large library has a hundred thousand.
    names: String,
}

#[derive(Clone, Copy, Debug)]
struct Function {
    address: u64,
    /// 0 where the table doesn't tell: then it goes up to the next function.
    size: u64,
    /// Where its name begins and ends in the names.
    name: (u32, u32),
}

impl Symbols {
    /// Reads the symbol tables of an ELF file.
    pub(super) fn of_elf(elf: &object::File<'_>) -> Self {
        let mut symbols = Self::default();
        for symbol in elf.symbols() {
            symbols.add(&symbol);
        }
        for symbol in elf.dynamic_symbols() {
            symbols.add(&symbol);
        }
        symbols.sort();
        symbols
    }

    fn add<'data>(&mut self, symbol: &impl ObjectSymbol<'data>) {
        let Some(name) = name_of_function(symbol) else { return };
        let start = self.names.len();
        let Some(end) = u32::try_from(start + name.len()).ok() else { return };
        self.names.push_str(name);
        let (address, size) = (symbol.address(), symbol.size());
        self.functions.push(Function { address, size, name: (start as u32, end) });
    }

    fn sort(&mut self) {
        let Self { functions, names } = self;
        functions.sort_unstable_by_key(|function| function.address);
        functions.dedup_by(|later, first| {
            if later.address != first.address {
                return false;
            }
            first.size = first.size.max(later.size);
            if rank(text(names, later.name)) < rank(text(names, first.name)) {
                first.name = later.name;
            }
            true
        });
        functions.shrink_to_fit();
        names.shrink_to_fit();
    }

    /// The function at `address`, demangled.
    pub(super) fn name(&self, address: u64) -> Option<String> {
        let next = self.functions.partition_point(|function| function.address <= address);
        let function = self.functions.get(next.checked_sub(1)?)?;
        let is_inside = function.size == 0 || address - function.address < function.size;
        is_inside.then(|| demangle(text(&self.names, function.name)))
    }
}

fn text(names: &str, (start, end): (u32, u32)) -> &str {
    &names[start as usize..end as usize]
}

/// The name of a symbol, if it is a function's.
fn name_of_function<'data>(symbol: &impl ObjectSymbol<'data>) -> Option<&'data str> {
    // Assembly often declares no type; a label in code is as good.
    let is_function =
        matches!(symbol.kind(), SymbolKind::Text | SymbolKind::Label | SymbolKind::Unknown);
    let is_defined = matches!(symbol.section(), SymbolSection::Section(_)) && symbol.address() != 0;
    let name = symbol.name().ok().filter(|name| is_function && is_defined && !name.is_empty())?;
    // A version is no part of the name.
    let name = name.split('@').next().unwrap_or(name);
    Some(&name[..name.floor_char_boundary(MAX_NAME_BYTES)])
}

/// The better known of two names comes first: without underscores or a version's suffix, then the shorter.
fn rank(name: &str) -> (usize, usize, &str) {
    let internal =
        usize::from(name.starts_with("__GI_")) * 2 + usize::from(name.starts_with("__libc_"));
    let underscores = name.bytes().take_while(|&byte| byte == b'_').count();
    (internal + underscores, name.len(), name)
}

/// Demangles C++ and Rust. Parameters are left out, as in other tools' flame graphs. What becomes too long stays as it is.
fn demangle(name: &str) -> String {
    let mut text = Limited::default();
    let is_demangled = if let Ok(rust) = rustc_demangle::try_demangle(name) {
        write!(text, "{rust:#}").is_ok()
    } else {
        name.starts_with("_Z") && demangle_cpp(name, &mut text).is_some()
    };
    if is_demangled { text.text } else { name.to_owned() }
}

fn demangle_cpp(name: &str, text: &mut Limited) -> Option<()> {
    let options = cpp_demangle::DemangleOptions::default().no_params().no_return_type();
    let symbol = cpp_demangle::Symbol::new(name).ok()?;
    symbol.structured_demangle(text, &options).ok()
}

/// Text that takes no more than [`MAX_DEMANGLED_BYTES`].
#[derive(Default)]
struct Limited {
    text: String,
}

impl Write for Limited {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        if self.text.len() + more.len() > MAX_DEMANGLED_BYTES {
            return Err(fmt::Error);
        }
        self.text.push_str(more);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbols(functions: &[(u64, u64, &str)]) -> Symbols {
        let mut symbols = Symbols::default();
        for &(address, size, name) in functions {
            let start = symbols.names.len() as u32;
            symbols.names.push_str(name);
            let name = (start, symbols.names.len() as u32);
            symbols.functions.push(Function { address, size, name });
        }
        symbols.sort();
        symbols
    }

    #[test]
    fn inside_and_outside() {
        let symbols = symbols(&[(10, 5, "a"), (20, 0, "b"), (30, 5, "c")]);
        let cases = [
            (9, None),
            (10, Some("a")),
            (14, Some("a")),
            (15, None),
            (20, Some("b")),
            (29, Some("b")),
            (35, None),
        ];
        for (address, name) in cases {
            assert_eq!(symbols.name(address).as_deref(), name, "{address}");
        }
    }

    #[test]
    fn the_known_name() {
        let cases = [
            (["__libc_calloc", "calloc"], "calloc"),
            (["__mprotect", "mprotect"], "mprotect"),
            (["__GI___libc_malloc", "__libc_malloc"], "__libc_malloc"),
            (["mmap64", "mmap"], "mmap"),
        ];
        for (names, want) in cases {
            assert_eq!(names.iter().min_by_key(|name| rank(name)), Some(&want));
        }
    }

    #[test]
    fn demangled() {
        let cases = [
            ("_ZN2os6mallocEm8MEMFLAGS", "os::malloc"),
            ("_ZN4core3fmt9Formatter3pad17h0123456789abcdefE", "core::fmt::Formatter::pad"),
            ("_Znonsense", "_Znonsense"),
            ("main", "main"),
        ];
        for (name, want) in cases {
            assert_eq!(demangle(name), want);
        }
    }

    /// `f<a<int, int>, b<a<int, int>, a<int, int> >, …>`: each type is twice the one before.
    fn doubling(levels: usize) -> String {
        let number =
            |index: usize| char::from_digit(index as u32, 36).unwrap().to_ascii_uppercase();
        let types = (1..levels).map(|level| {
            let before = format!("S{}_", number(2 * level - 1));
            format!("1bI{before}{before}E")
        });
        format!("_Z1fI1aIiiE{}Evv", types.collect::<String>())
    }

    /// A short name may stand for one of any length; it stays as it is then.
    #[test]
    fn too_long_to_demangle() {
        assert_eq!(demangle(&doubling(1)), "f<a<int, int> >");
        let name = doubling(16);
        assert_eq!(demangle(&name), name);
        let long = format!("_ZN{}E", "4abcd".repeat(200));
        assert_eq!(demangle(&long).len(), 200 * 6 - 2);
        let rust = format!("_ZN{}17h0123456789abcdefE", "4$LT$".repeat(200));
        assert!(demangle(&rust).len() <= MAX_DEMANGLED_BYTES);
        let began = std::time::Instant::now();
        for nested in
            ["_ZN".repeat(300), "_Z".to_owned() + &"P".repeat(1000), "_ZNK1aIXadL".repeat(90)]
        {
            assert_eq!(demangle(&nested), nested);
        }
        assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
    }

    /// memtrace finds its own functions.
    #[test]
    fn of_this_program() {
        let bytes = std::fs::read("/proc/self/exe").unwrap();
        let elf = object::File::parse(&*bytes).unwrap();
        let symbols = Symbols::of_elf(&elf);
        let main = elf.symbols().find(|symbol| symbol.name() == Ok("main")).unwrap();
        assert_eq!(symbols.name(main.address()).as_deref(), Some("main"));
    }
}
