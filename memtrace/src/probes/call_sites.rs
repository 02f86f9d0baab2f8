//! Where one function of a library calls another.
//!
//! A probe on the call sees the arguments of the callee on the stack of the caller. The kernel emulates a relative call
//! under a probe (arch/x86/kernel/uprobes.c, `branch_emulate_op`), which is ten times as cheap as stepping over it.

use std::collections::HashSet;

use anyhow::{Result, bail};
use iced_x86::{Code, Decoder, DecoderOptions, Instruction, OpKind, Register};
use object::{
    Object, ObjectSection, ObjectSymbol, Relocation, RelocationTarget, SectionKind, SymbolIndex,
};

/// A longer function is not searched.
const MAX_FUNCTION_BYTES: u64 = 64 << 10;
/// A zlib has a few hundred, and some more where it has its debugging symbols.
const MAX_SYMBOLS: usize = 100_000;
/// Longer than any name of C.
const MAX_NAME_BYTES: usize = 16 << 10;
/// Sections with code that are searched; a library has five.
const MAX_SECTIONS: usize = 64;

/// The code of a library, and where its functions lie.
///
/// A library may be anyone's: finding a call is one pass over its symbols and one over the caller's code, and its names
/// are no longer than names are.
pub(super) struct Functions<'a> {
    elf: &'a object::File<'a>,
    /// Sections with code: the address and the bytes.
    code: Vec<(u64, &'a [u8])>,
}

impl<'a> Functions<'a> {
    pub(super) fn of(elf: &'a object::File<'a>) -> Result<Self> {
        if elf.symbols().chain(elf.dynamic_symbols()).nth(MAX_SYMBOLS).is_some() {
            bail!("it has more than {MAX_SYMBOLS} symbols");
        }
        let mut tables =
            elf.sections().filter(|section| section.kind() == SectionKind::OtherString);
        let is_long = |name: &[u8]| name.len() > MAX_NAME_BYTES;
        if tables.any(|table| table.data().is_ok_and(|it| it.split(|&byte| byte == 0).any(is_long)))
        {
            bail!("it has a name of more than {MAX_NAME_BYTES} bytes");
        }
        let code = elf.sections().filter(|section| section.kind() == SectionKind::Text);
        let code = code.filter_map(|section| Some((section.address(), section.data().ok()?)));
        Ok(Self { elf, code: code.take(MAX_SECTIONS).collect() })
    }

    /// The address of the one relative call in function `caller` that leads to function `callee`, directly or by way of
    /// the procedure linkage table; `None` where there is none, or more than one.
    pub(super) fn only_call<'s>(
        &self,
        caller: &impl ObjectSymbol<'s>,
        callee: &str,
    ) -> Option<u64> {
        let code = self.code_of(caller)?;
        let (addresses, slots) = (self.addresses(callee), self.slots(callee));
        let leads_to_callee = |address: u64| {
            addresses.contains(&address)
                || self.linked_at(address).is_some_and(|slot| slots.contains(&slot))
        };
        let mut found = Decoder::with_ip(64, code, caller.address(), DecoderOptions::NONE)
            .into_iter()
            .filter(|call| call.code() == Code::Call_rel32_64)
            .filter(|call| leads_to_callee(call.near_branch_target()))
            .map(|call| call.ip());
        let first = found.next()?;
        found.next().is_none().then_some(first)
    }

    /// The code of a function, unless it is too long to be searched.
    pub(super) fn code_of<'s>(&self, function: &impl ObjectSymbol<'s>) -> Option<&'a [u8]> {
        let size = function.size();
        self.code_at(function.address(), size).filter(|_| size <= MAX_FUNCTION_BYTES)
    }

    /// Where functions of this name are defined.
    fn addresses(&self, name: &str) -> HashSet<u64> {
        let is_it =
            |symbol: &object::Symbol<'_, '_>| symbol.is_definition() && symbol.name() == Ok(name);
        let symbols = self.elf.symbols().chain(self.elf.dynamic_symbols());
        symbols.filter(is_it).map(|symbol| symbol.address()).collect()
    }

    /// The slots that the dynamic linker fills with the address of function `name`.
    fn slots(&self, name: &str) -> HashSet<u64> {
        let symbols = self.elf.dynamic_symbols().filter(|symbol| symbol.name() == Ok(name));
        let indexes: HashSet<SymbolIndex> = symbols.map(|symbol| symbol.index()).collect();
        let is_it = |relocation: &Relocation| matches!(relocation.target(), RelocationTarget::Symbol(index) if indexes.contains(&index));
        let relocations = self.elf.dynamic_relocations().into_iter().flatten();
        relocations.filter(|(_, relocation)| is_it(relocation)).map(|(at, _)| at).collect()
    }

    /// The slot of the global offset table that the entry of the linkage table at `address` jumps through.
    fn linked_at(&self, address: u64) -> Option<u64> {
        slot_of_entry(self.code_at(address, 16)?, address)
    }

    /// `size` bytes of code at `address`, or as much as its section has.
    fn code_at(&self, address: u64, size: u64) -> Option<&'a [u8]> {
        self.code.iter().find_map(|&(start, code)| {
            let rest = code.get(usize::try_from(address.checked_sub(start)?).ok()?..)?;
            (!rest.is_empty()).then(|| &rest[..rest.len().min(size as usize)])
        })
    }
}

/// The slot of the global offset table that `code`, an entry of the linkage table at `address`, jumps through.
pub(super) fn slot_of_entry(code: &[u8], address: u64) -> Option<u64> {
    let mut instructions = Decoder::with_ip(64, code, address, DecoderOptions::NONE).into_iter();
    let jump = instructions.find(|instruction| instruction.code() != Code::Endbr64)?;
    is_jump_through_slot(&jump).then(|| jump.ip_rel_memory_address())
}

fn is_jump_through_slot(jump: &Instruction) -> bool {
    jump.code() == Code::Jmp_rm64
        && jump.op0_kind() == OpKind::Memory
        && jump.memory_base() == Register::RIP
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        process::Command,
        time::{Duration, Instant},
    };

    use super::*;
    use crate::target::elf_parts::{self, Parts};

    /// `once` calls the wanted function, `twice` does so two times, `never` calls another one, `through_table` a function
    /// of another library.
    const SOURCE: &str = "
        extern int elsewhere(int);
        __attribute__((noinline, visibility(\"hidden\"))) int wanted(int x) { __asm__(\"\"); return x * 3; }
        __attribute__((noinline, visibility(\"hidden\"))) int other(int x) { __asm__(\"\"); return x * 5; }
        int once(int x) { return other(wanted(x) + 1) + 1; }
        int twice(int x) { return wanted(wanted(x) + 1) + 1; }
        int never(int x) { return other(x) + 1; }
        int through_table(int x) { return elsewhere(x) + 1; }
    ";

    #[test]
    fn calls() {
        let folder = tempfile::tempdir().unwrap();
        let (source, library) = (folder.path().join("calls.c"), folder.path().join("calls.so"));
        fs::write(&source, SOURCE).unwrap();
        let compiler = Command::new("cc")
            .args(["-O1", "-fno-optimize-sibling-calls", "-fpic", "-shared", "-o"])
            .args([&library, &source])
            .status();
        assert!(compiler.unwrap().success());
        // What is read of a library for this is enough.
        let bytes = elf_parts::read(&fs::File::open(&library).unwrap(), Parts::Code).unwrap();
        let elf = object::File::parse(&*bytes).unwrap();
        let functions = Functions::of(&elf).unwrap();
        let found = |caller: &str, callee: &str| {
            let symbol = elf.dynamic_symbols().find(|symbol| symbol.name() == Ok(caller)).unwrap();
            let at = functions.only_call(&symbol, callee)?;
            assert!(symbol.address() <= at && at < symbol.address() + symbol.size());
            Some(functions.code_at(at, 1).unwrap()[0])
        };
        let call = Some(0xe8);
        for (caller, callee, want) in [
            ("once", "wanted", call),
            ("twice", "wanted", None),
            ("never", "wanted", None),
            ("through_table", "elsewhere", call),
            ("through_table", "nowhere", None),
        ] {
            assert_eq!(found(caller, callee), want, "{caller} {callee}");
        }
    }

    /// The most calls that a caller may have, among many symbols, take no time to speak of.
    #[test]
    fn many_calls() {
        let symbols: String = (0..40_000).map(|number| format!("symbol{number}: nop\n")).collect();
        let source = format!(
            ".globl caller\n.type caller, @function\ncaller: .rept 13000\ncall symbol1\n.endr\n\
             .size caller, .-caller\n{symbols}"
        );
        let folder = tempfile::tempdir().unwrap();
        let (file, library) = (folder.path().join("calls.s"), folder.path().join("calls.so"));
        fs::write(&file, source).unwrap();
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-nostdlib", "-o"]).args([&library, &file]);
        assert!(compiler.status().unwrap().success());
        let bytes = elf_parts::read(&fs::File::open(&library).unwrap(), Parts::Code).unwrap();
        let elf = object::File::parse(&*bytes).unwrap();
        let began = Instant::now();
        let functions = Functions::of(&elf).unwrap();
        let caller = elf.dynamic_symbols().find(|it| it.name() == Ok("caller")).unwrap();
        assert_eq!(functions.only_call(&caller, "symbol1"), None);
        assert_eq!(functions.only_call(&caller, "symbol2"), None);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
}
