//! Where one function of a library calls another.
//!
//! A probe on the call sees the arguments of the callee on the stack of the caller. The kernel emulates a relative call
//! under a probe (arch/x86/kernel/uprobes.c, `branch_emulate_op`), which is ten times as cheap as stepping over it.

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, OpKind, Register};
use object::{
    Object, ObjectSection, ObjectSymbol, ObjectSymbolTable, RelocationTarget, SymbolIndex,
};

/// A longer function is not searched.
const MAX_FUNCTION_BYTES: u64 = 64 << 10;

/// The address of the one relative call in function `caller` that leads to function `callee`, directly or by way of the
/// procedure linkage table; `None` where there is none, or more than one.
pub(super) fn only_call<'a>(
    elf: &object::File<'a>,
    caller: &impl ObjectSymbol<'a>,
    callee: &str,
) -> Option<u64> {
    let (start, size) = (caller.address(), caller.size());
    let code = code_at(elf, start, size).filter(|_| size <= MAX_FUNCTION_BYTES)?;
    let mut found = Decoder::with_ip(64, code, start, DecoderOptions::NONE)
        .into_iter()
        .filter(|call| call.code() == Code::Call_rel32_64)
        .filter(|call| leads_to(elf, call.near_branch_target(), callee))
        .map(|call| call.ip());
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

fn leads_to(elf: &object::File<'_>, address: u64, name: &str) -> bool {
    let is_it = |symbol: object::Symbol<'_, '_>| {
        symbol.is_definition() && symbol.address() == address && symbol.name() == Ok(name)
    };
    elf.symbols().any(is_it)
        || elf.dynamic_symbols().any(is_it)
        || linked_at(elf, address).is_some_and(|slot| is_slot_of(elf, slot, name))
}

/// The slot of the global offset table that the entry of the linkage table at `address` jumps through.
fn linked_at(elf: &object::File<'_>, address: u64) -> Option<u64> {
    let code = code_at(elf, address, 16)?;
    let mut instructions = Decoder::with_ip(64, code, address, DecoderOptions::NONE).into_iter();
    let jump = instructions.find(|instruction| instruction.code() != Code::Endbr64)?;
    is_jump_through_slot(&jump).then(|| jump.ip_rel_memory_address())
}

fn is_jump_through_slot(jump: &Instruction) -> bool {
    jump.code() == Code::Jmp_rm64
        && jump.op0_kind() == OpKind::Memory
        && jump.memory_base() == Register::RIP
}

/// Whether the dynamic linker fills `slot` with the address of function `name`.
fn is_slot_of(elf: &object::File<'_>, slot: u64, name: &str) -> bool {
    let Some(symbols) = elf.dynamic_symbol_table() else { return false };
    let is_named = |index: SymbolIndex| {
        symbols.symbol_by_index(index).is_ok_and(|symbol| symbol.name() == Ok(name))
    };
    elf.dynamic_relocations().into_iter().flatten().any(|(at, relocation)| {
        at == slot
            && matches!(relocation.target(), RelocationTarget::Symbol(index) if is_named(index))
    })
}

/// `size` bytes of code at `address`, or as much as its section has.
fn code_at<'a>(elf: &object::File<'a>, address: u64, size: u64) -> Option<&'a [u8]> {
    let section = elf.sections().find(|section| {
        address.wrapping_sub(section.address()) < section.size()
            && section.kind() == object::SectionKind::Text
    })?;
    let rest = section.data().ok()?.get((address - section.address()) as usize..)?;
    Some(&rest[..rest.len().min(size as usize)])
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::*;

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
        let bytes = fs::read(&library).unwrap();
        let elf = object::File::parse(&*bytes).unwrap();
        let found = |caller: &str, callee: &str| {
            let symbol = elf.dynamic_symbols().find(|symbol| symbol.name() == Ok(caller)).unwrap();
            let at = only_call(&elf, &symbol, callee)?;
            assert!(symbol.address() <= at && at < symbol.address() + symbol.size());
            Some(code_at(&elf, at, 1).unwrap()[0])
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
}
