//! The functions of allocators among the symbols of a file, in one pass over them.
//!
//! Names are compared no further than the longest that is looked for: a table may hold one name of 500 MiB that each of a
//! million symbols points into.

use std::collections::BTreeMap;

use memtrace_common::Kind;
use object::{
    LittleEndian, elf,
    elf::{FileHeader64, Sym64},
    read::elf::{ElfFile64, SectionHeader, Sym, SymbolTable},
};

use super::names::{self, MAX_NAME_BYTES, Meant, N_FAMILIES};

/// A browser's or a JVM's symbols are some millions.
const MAX_SYMBOLS: usize = 8_000_000;
/// Functions of a file that are probed; no three allocators together have as many.
pub(super) const MAX_FUNCTIONS: usize = 128;

pub(super) type Elf<'d> = ElfFile64<'d, LittleEndian>;
type Functions = BTreeMap<u64, Function>;

/// A function that was found: its size as the symbol tells it, 0 if it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) size: u64,
    rank: usize,
}

/// What the symbols tell of allocators.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// By address, at most [`MAX_FUNCTIONS`].
    pub(super) functions: Functions,
    /// Address and size of C++'s operator new.
    pub(super) operator_new: Option<(u64, u64)>,
    /// Whether it is a glibc whose malloc can't be made to call anything.
    pub(super) is_glibc_without_hooks: bool,
    /// Whether there are more functions.
    pub(super) is_too_much: bool,
}

/// The functions of each allocator: those that other files can use if its malloc is among them, else among all symbols. None
/// without a malloc.
pub(super) fn find(elf: &Elf<'_>) -> Found {
    let dynamic = Table::read(elf, elf.elf_dynamic_symbol_table());
    let all = Table::read(elf, elf.elf_symbol_table());
    let mut found = Found {
        operator_new: dynamic.operator_new.or(all.operator_new),
        is_glibc_without_hooks: dynamic.of_glibc == [true; 2],
        is_too_much: dynamic.is_too_much || all.is_too_much,
        ..Found::default()
    };
    let has_malloc = |of: &Functions| of.values().any(|it| names::is_malloc(it.name));
    for pair in dynamic.families.into_iter().zip(all.families) {
        let family = [pair.0, pair.1].into_iter().find(has_malloc).unwrap_or_default();
        for (address, function) in family {
            found.is_too_much |= !add(&mut found.functions, address, function);
        }
    }
    found
}

/// Adds a function, of two at one address the one that counts; `false` if there is no room.
fn add(functions: &mut Functions, address: u64, function: Function) -> bool {
    if functions.len() >= MAX_FUNCTIONS && !functions.contains_key(&address) {
        return false;
    }
    let known = functions.entry(address).or_insert(function);
    if function.rank < known.rank {
        *known = function;
    }
    true
}

#[derive(Default)]
struct Table {
    families: [Functions; N_FAMILIES],
    operator_new: Option<(u64, u64)>,
    /// Which of [`names::OF_GLIBC_WITHOUT_HOOKS`] there are.
    of_glibc: [bool; 2],
    is_too_much: bool,
}

impl Table {
    fn read<'d>(elf: &Elf<'d>, symbols: &SymbolTable<'d, FileHeader64<LittleEndian>>) -> Self {
        let mut table = Self::default();
        let section = elf.elf_section_table().section(symbols.string_section());
        let strings = section.and_then(|section| section.data(LittleEndian, elf.data()));
        let Ok(strings) = strings else { return table };
        table.is_too_much = symbols.len() > MAX_SYMBOLS;
        for symbol in symbols.iter().take(MAX_SYMBOLS).filter(|symbol| is_function(symbol)) {
            if let Some(name) = name(strings, symbol.st_name(LittleEndian)) {
                table.take(name, symbol);
            }
        }
        table
    }

    fn take(&mut self, name: &[u8], symbol: &Sym64<LittleEndian>) {
        let (address, size) = (symbol.st_value(LittleEndian), symbol.st_size(LittleEndian));
        if name == names::OPERATOR_NEW {
            self.operator_new.get_or_insert((address, size));
        }
        if let Some(at) = names::OF_GLIBC_WITHOUT_HOOKS.iter().position(|known| *known == name) {
            self.of_glibc[at] = true;
        }
        if let Some((name, Meant { family, rank, kind })) = names::meant(name) {
            let function = Function { name, kind, size, rank };
            self.is_too_much |= !add(&mut self.families[family], address, function);
        }
    }
}

/// Whether it is a function of this file. A probe on anything else would change data.
fn is_function(symbol: &Sym64<LittleEndian>) -> bool {
    let section = symbol.st_shndx(LittleEndian);
    symbol.st_type() == elf::STT_FUNC
        && section != elf::SHN_UNDEF
        && (section < elf::SHN_LORESERVE || section == elf::SHN_XINDEX)
}

/// The name that begins `at` in `strings`, unless it is longer than any that is looked for.
fn name(strings: &[u8], at: u32) -> Option<&[u8]> {
    let rest = strings.get(at as usize..)?;
    let rest = &rest[..rest.len().min(MAX_NAME_BYTES + 1)];
    rest.iter().position(|&byte| byte == 0).map(|len| &rest[..len])
}
