//! Code for tests of the walk, whose addresses tell what to do there.

use memtrace_common::Regs;

use super::{
    java::Stepped,
    rules::{Cfa, Rule, Saved},
    steps::Step,
    walk::CodeAt,
};
use crate::jvm::{FrameKey, NoStep, Registers};

/// Native code: how large the frame is, by which register it is found, what it saved. The first instruction keeps nothing
/// on the stack but its return address.
pub(super) const NATIVE: u64 = 0x40_0000;
/// A thread's first function.
pub(super) const FIRST: u64 = 0x50_0000;
/// The trampoline of a return probe.
pub(super) const RETURN_PROBE: u64 = 0x60_0000;
/// Java code: how large the frame is, or that the frame pointer leads to the caller.
pub(super) const JAVA: u64 = 0x70_0000;
/// Bytes of native code, and of Java code.
pub(super) const SIZE: u64 = 0x1000;

/// The code at these addresses.
pub(super) struct FakeCode;

impl CodeAt for FakeCode {
    fn native(&mut self, pc: u64) -> Step {
        match pc & !0xffff {
            NATIVE => Step::Rule(native_rule(pc)),
            FIRST => Step::Rule(Rule::End),
            RETURN_PROBE => Step::ReturnProbe,
            JAVA => Step::Anonymous,
            _ => Step::Nowhere,
        }
    }

    fn java(
        &mut self,
        regs: &Regs,
        word: impl Fn(u64) -> Option<u64>,
    ) -> Option<Result<Stepped, NoStep>> {
        Some(java_step(regs, word))
    }
}

fn native_rule(pc: u64) -> Rule {
    let offset = pc & (SIZE - 1);
    if offset < 16 {
        return Rule::Frame { cfa: Cfa::Sp(8), bp: Saved::Same, bx: Saved::Same };
    }
    let size = 16 + 8 * (offset >> 4 & 7) as i32;
    let cfa = if offset & 0xf80 == 0 { Cfa::Bp(16) } else { Cfa::Sp(size) };
    let bp = if offset & 1 == 0 { Saved::Same } else { Saved::AtCfa(-16) };
    let bx = match offset & 62 {
        0 => Saved::AtBp(-8),
        2..16 => Saved::AtCfa(-8),
        _ => Saved::Same,
    };
    Rule::Frame { cfa, bp, bx }
}

/// As compiled code, whose frame has a size, and as interpreted code, which knows its caller's stack pointer.
fn java_step(regs: &Regs, word: impl Fn(u64) -> Option<u64>) -> Result<Stepped, NoStep> {
    let &Regs { ip, sp, bp, .. } = regs;
    let word = |address| word(address).ok_or(NoStep::Uncopied(address));
    let caller = if ip & 15 != 0 {
        let sp = sp + 16 + 8 * (ip >> 4 & 7);
        Registers { pc: word(sp - 8)?, sp, fp: word(sp - 16)? }
    } else if bp & 7 == 0 && bp >= sp {
        Registers { pc: word(bp.wrapping_add(8))?, sp: bp.wrapping_add(16), fp: word(bp)? }
    } else {
        return Err(NoStep::Implausible);
    };
    let frame = if ip & 2 == 0 { FrameKey::Entry } else { FrameKey::Frozen };
    Ok(Stepped { frame, caller, guess: ip & 0xf00 == 0 })
}
