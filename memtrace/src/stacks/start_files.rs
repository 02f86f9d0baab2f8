//! Rules for `_init` and `_fini`, the code at whose ends the linker puts what it calls before and after a library: it
//! comes from the C library's start files (glibc: sysdeps/x86_64/crti.S and crtn.S), which bring no unwind information.
//! Their first instruction is often the first of a library's pages with code that is ever run.

use std::ops::Range;

use object::{Object, ObjectSection};

use super::rules::{Cfa, Rule, Saved};

/// A few calls, and what surrounds them; more is somebody else's code.
const MAX_BYTES: usize = 256;
/// `endbr64`, where the library was built for it.
const GUARD: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
/// `sub $8,%rsp`.
const ENTER: [u8; 4] = [0x48, 0x83, 0xec, 0x08];
/// `add $8,%rsp` and `ret`.
const LEAVE: [u8; 5] = [0x48, 0x83, 0xc4, 0x08, 0xc3];

/// The two functions of one module, as far as they are as expected.
#[derive(Debug, Default)]
pub(super) struct StartFiles(Vec<Function>);

#[derive(Debug, PartialEq, Eq)]
struct Function {
    range: Range<u64>,
    /// The addresses at which its frame has 16 bytes and not only the return address.
    entered: Range<u64>,
}

impl StartFiles {
    /// Those of an ELF file whose sections `.init` and `.fini` were read.
    pub(super) fn of_elf(elf: &object::File<'_>) -> Self {
        let sections = [".init", ".fini"].into_iter().filter_map(|name| elf.section_by_name(name));
        let function = |section: object::Section<'_, '_>| {
            Function::of(section.address(), section.data().ok()?)
        };
        Self(sections.filter_map(function).collect())
    }

    /// The rule at `address`; `None` where it is in neither.
    pub(super) fn rule(&self, address: u64) -> Option<Rule> {
        let function = self.0.iter().find(|function| function.range.contains(&address))?;
        let bytes = if function.entered.contains(&address) { 16 } else { 8 };
        Some(Rule::Frame { cfa: Cfa::Sp(bytes), bp: Saved::Same, bx: Saved::Same })
    }
}

impl Function {
    fn of(address: u64, code: &[u8]) -> Option<Self> {
        let guard = if code.starts_with(&GUARD) { GUARD.len() } else { 0 };
        let is_known = code.len() <= MAX_BYTES
            && code.get(guard..)?.starts_with(&ENTER)
            && code.ends_with(&LEAVE);
        if !is_known {
            return None;
        }
        let end = address.checked_add(code.len() as u64)?;
        let entered = address + (guard + ENTER.len()) as u64..end - 1;
        Some(Self { range: address..end, entered })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The frame has the return address alone until it is entered, and again when it is left.
    #[test]
    fn entered_and_left() {
        let code = [&GUARD[..], &ENTER, &[0xff, 0xd0], &LEAVE].concat();
        let functions = StartFiles(Function::of(0x1000, &code).into_iter().collect());
        let cfa = |address| match functions.rule(address) {
            Some(Rule::Frame { cfa: Cfa::Sp(bytes), .. }) => Some(bytes),
            _ => None,
        };
        // (address, bytes from the stack pointer to the caller's)
        let cases = [
            (0xfff, None),
            (0x1000, Some(8)),
            (0x1004, Some(8)),
            (0x1008, Some(16)),
            (0x1009, Some(16)),
            (0x100a, Some(16)),
            (0x100e, Some(8)),
            (0x100f, None),
        ];
        for (address, bytes) in cases {
            assert_eq!(cfa(address), bytes, "{address:#x}");
        }
    }

    /// Code of anybody else's is not guessed at.
    #[test]
    fn other_code() {
        let long = [&ENTER[..], &[0x90; MAX_BYTES], &LEAVE].concat();
        for code in [&[][..], &ENTER, &LEAVE, &[0xf3, 0x0f], &long] {
            assert_eq!(Function::of(0x1000, code), None, "{code:x?}");
        }
        assert_eq!(Function::of(u64::MAX - 4, &[&ENTER[..], &LEAVE].concat()), None);
    }

    /// This very program has both.
    #[test]
    fn of_this_program() {
        let bytes = std::fs::read("/proc/self/exe").unwrap();
        let functions = StartFiles::of_elf(&object::File::parse(&*bytes).unwrap());
        assert_eq!(functions.0.len(), 2, "{functions:?}");
    }
}
