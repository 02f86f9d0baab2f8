//! Which instruction of a function a probe of its entry belongs on.
//!
//! The kernel emulates a few instructions under a probe and steps over all others out of line, which costs ten times as
//! much (arch/x86/kernel/uprobes.c, `branch_setup_xol_ops` and `push_setup_xol_ops`). The first instruction is often of
//! the others, `endbr64` in all code that is built for indirect branch tracking, and one of the next will do as well.

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic,
    OpAccess, Register,
};

/// Instructions from the entry on that are looked at.
const MAX_INSTRUCTIONS: usize = 16;
/// Where a function expects its arguments, its return address and what belongs to its caller (System V ABI, section
/// 3.2): an event at a return is unwound with the registers of the entry.
const EXPECTED: [Register; 13] = [
    Register::RDI,
    Register::RSI,
    Register::RDX,
    Register::RCX,
    Register::R8,
    Register::R9,
    Register::RSP,
    Register::RBX,
    Register::RBP,
    Register::R12,
    Register::R13,
    Register::R14,
    Register::R15,
];
/// The prefix that makes a push one of r8 to r15.
const REX_B: u8 = 0x41;

/// The address of the first instruction of the function with this `code`, which begins at `entry`, that the kernel
/// emulates, that every call passes once, and where arguments and stack pointer are as they were at the entry; `entry`
/// itself where there is none.
pub(super) fn of_entry(code: &[u8], entry: u64) -> u64 {
    first_emulated(code, entry)
        .filter(|&place| !is_reached_again(code, entry, place))
        .unwrap_or(entry)
}

/// The instruction at `place` of the function with this `code`, which begins at `entry`: what it is called, as far as it
/// can be told, and whether the kernel emulates it.
pub(super) fn instruction_at(code: &[u8], entry: u64, place: u64) -> (Option<Mnemonic>, bool) {
    let instruction = instructions(code, entry).find(|it| it.ip() == place);
    let instruction = instruction.filter(|it| !it.is_invalid());
    let is_emulated = instruction.is_some_and(|it| is_emulated(&it, code, entry));
    (instruction.map(|it| it.mnemonic()), is_emulated)
}

fn first_emulated(code: &[u8], entry: u64) -> Option<u64> {
    let mut used = InstructionInfoFactory::new();
    for instruction in instructions(code, entry).take(MAX_INSTRUCTIONS) {
        if instruction.is_invalid() {
            return None;
        }
        if is_emulated(&instruction, code, entry) {
            return Some(instruction.ip());
        }
        let goes_on = instruction.flow_control() == FlowControl::Next;
        if !goes_on || changes_what_is_expected(&instruction, &mut used) {
            return None;
        }
    }
    None
}

fn instructions(code: &[u8], entry: u64) -> impl Iterator<Item = Instruction> {
    Decoder::with_ip(64, code, entry, DecoderOptions::NONE).into_iter()
}

fn is_emulated(instruction: &Instruction, code: &[u8], entry: u64) -> bool {
    let bytes =
        usize::try_from(instruction.ip().wrapping_sub(entry)).ok().and_then(|at| code.get(at..));
    let first = bytes.and_then(|bytes| bytes.first()).copied();
    match instruction.code() {
        Code::Push_r64 => instruction.len() == 1 || instruction.len() == 2 && first == Some(REX_B),
        Code::Nopd => instruction.len() == 1,
        // Prefixes may change what these are; compilers write none.
        Code::Call_rel32_64 => instruction.len() == 5,
        Code::Jmp_rel8_64 => instruction.len() == 2,
        Code::Jmp_rel32_64 => instruction.len() == 5,
        _ if instruction.is_jcc_short() => instruction.len() == 2,
        _ if instruction.is_jcc_near() => instruction.len() == 6,
        _ => false,
    }
}

fn changes_what_is_expected(instruction: &Instruction, used: &mut InstructionInfoFactory) -> bool {
    used.info(instruction).used_registers().iter().any(|register| {
        let is_read_only = matches!(register.access(), OpAccess::Read | OpAccess::CondRead);
        !is_read_only && EXPECTED.contains(&register.register().full_register())
    })
}

/// Whether the function jumps to where a call would pass `place` once more, without beginning anew.
fn is_reached_again(code: &[u8], entry: u64, place: u64) -> bool {
    let jumps = instructions(code, entry).filter(|instruction| {
        instruction.is_jcc_short_or_near()
            || instruction.is_jmp_short_or_near()
            || instruction.is_loop()
            || instruction.is_loopcc()
            || instruction.is_jcx_short()
    });
    let mut targets = jumps.map(|jump| jump.near_branch_target());
    targets.any(|target| entry < target && target <= place)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Code at 0x1000, and where the probe belongs.
    #[test]
    fn places() {
        let cases: [(&str, &[u8], u64); 16] = [
            ("push rbp", &[0x55, 0xc3], 0),
            ("endbr64; push rbp", &[0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0xc3], 4),
            ("endbr64; push r14", &[0xf3, 0x0f, 0x1e, 0xfa, 0x41, 0x56, 0xc3], 4),
            ("test rdi, rdi; je +0", &[0x48, 0x85, 0xff, 0x74, 0x00, 0xc3], 3),
            ("test rdi, rdi; je far", &[0x48, 0x85, 0xff, 0x0f, 0x84, 0, 1, 0, 0, 0xc3], 3),
            ("mov rax, rdi; call", &[0x48, 0x89, 0xf8, 0xe8, 0, 0, 0, 0, 0xc3], 3),
            ("nop", &[0x90, 0xc3], 0),
            // An argument is overwritten, in part, too; the stack pointer moves.
            ("mov rdi, rdx; push rbp", &[0x48, 0x89, 0xd7, 0x55, 0xc3], 0),
            ("xor esi, esi; push rbp", &[0x31, 0xf6, 0x55, 0xc3], 0),
            (
                "mov rbp, rdi; test rdi, rdi; je +0",
                &[0x48, 0x89, 0xfd, 0x48, 0x85, 0xff, 0x74, 0, 0xc3],
                0,
            ),
            ("sub rsp, 8; push rbp", &[0x48, 0x83, 0xec, 0x08, 0x55, 0xc3], 0),
            // No call comes to the push, or some don't.
            ("ret; push rbp", &[0xc3, 0x55], 0),
            ("jmp rax; push rbp", &[0xff, 0xe0, 0x55], 0),
            // A loop back to the push; a push with the prefix of another width.
            ("endbr64; push rbp; jmp to it", &[0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0xeb, 0xfd], 0),
            ("endbr64; push rbp; loop to it", &[0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0xe2, 0xfd], 0),
            ("mov eax, eax; push bp; ret", &[0x89, 0xc0, 0x66, 0x55, 0xc3], 0),
        ];
        for (what, code, offset) in cases {
            assert_eq!(of_entry(code, 0x1000), 0x1000 + offset, "{what}");
        }
    }

    /// What is told of the place is what lies there.
    #[test]
    fn instruction_there() {
        let code = [0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x06];
        // (offset, what lies there)
        let cases = [
            (0, (Some(Mnemonic::Endbr64), false)),
            (4, (Some(Mnemonic::Push), true)),
            // In the midst of one, of no instruction, behind the end.
            (2, (None, false)),
            (5, (None, false)),
            (60, (None, false)),
        ];
        for (offset, want) in cases {
            assert_eq!(instruction_at(&code, 0x1000, 0x1000 + offset), want, "{offset}");
        }
    }

    /// Noise never leads out of the function.
    #[test]
    fn noise() {
        let mut state = 7_u64;
        for _ in 0..20_000 {
            let code: Vec<u8> = (0..40)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 56) as u8
                })
                .collect();
            for entry in [0x1000, u64::MAX - 20] {
                let place = of_entry(&code, entry);
                assert!(place.wrapping_sub(entry) < code.len() as u64, "{code:x?}");
            }
        }
        assert_eq!(of_entry(&[], 0x1000), 0x1000);
    }
}
