//! The walk from a copied stack's registers to its first frame.

use std::cell::Cell;

use memtrace_common::{MAX_MENDS, Mend, Regs};

use super::{
    java::Stepped,
    joining::{Known, Point, State},
    rules::{Cfa, Rule, Saved},
    steps::Step,
};
use crate::jvm::{FrameKey, NoStep};

/// More frames than this are cut: recursion that deep names its culprit long before.
pub(crate) const MAX_FRAMES: usize = 1024;

const PAGE: u64 = 4096;

/// The registers and the stack of a thread at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Snapshot<'a> {
    pub(super) regs: Regs,
    /// The stack from `regs.sp` on.
    pub(super) stack: &'a [u8],
    /// Bytes of stack that there were, 0 if that is not known.
    pub(super) used: u64,
    /// Whether there was more stack than was copied.
    pub(super) cut: bool,
    /// Whether a part of the copy is zeros because it could not be read.
    pub(super) has_holes: bool,
    /// Whether the thread is at a function's entry: its return address is on top of the stack.
    pub(super) is_at_entry: bool,
    /// Return addresses that return probes have replaced.
    pub(super) mends: &'a [Mend],
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// At the thread's first frame.
    First,
    /// At code of a Java virtual machine's making.
    Java,
    /// At the end of what was copied, or of what is walked at the most.
    Truncated,
    /// At something that can't be unwound.
    Broken(Break),
}

/// Why a walk could not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Break {
    /// An instruction that lies in no code that is known.
    Nowhere,
    /// Unwind information that is not understood, or that leads below the stack.
    Rule,
    /// A return address that a probe of someone else has replaced.
    ForeignProbe,
    /// Code that the process made itself and that is not a Java virtual machine's.
    Anonymous,
    /// Java code that is gone, or that was never seen.
    NoJavaCode,
    /// A Java frame that can't be right.
    JavaFrame,
}

/// Where a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// An instruction of a file; for a caller, within the call.
    Native(u64),
    /// A piece of Java code.
    Java(FrameKey),
}

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Address {
    pub(super) place: Place,
    /// Whether it was found by guessing.
    pub(super) guess: bool,
}

/// What lies at an instruction, by kind of code.
pub(super) trait CodeAt {
    /// What to do at an instruction of native code.
    fn native(&mut self, pc: u64) -> Step;

    /// The step through Java code from `regs`; `None` where Java code can't be read.
    fn java(
        &mut self,
        regs: &Regs,
        word: impl Fn(u64) -> Option<u64>,
    ) -> Option<Result<Stepped, NoStep>>;
}

/// Collects the frames, innermost first, into `points`, but for those that are `known`: of these it tells how many there
/// are.
pub(super) fn walk(
    code: &mut impl CodeAt,
    is_jvm: bool,
    snapshot: &Snapshot<'_>,
    known: Known<'_>,
    points: &mut Vec<Point>,
) -> (End, usize) {
    let regs = snapshot.regs;
    let mends = snapshot.valid_mends(code);
    // What stands in place of a word is no part of a stack that is the same.
    let hidden = mends.iter().flatten().map(|mend| mend.slot.saturating_add(8)).max();
    let known = Known { from: known.from.max(hidden.unwrap_or_default()), ..known };
    let lowest_read = Cell::new(u64::MAX);
    Walk { snapshot, mends, regs, is_jvm, interrupted: true, guessing: false, lowest_read }
        .collect(code, known, points)
}

impl Snapshot<'_> {
    /// The mends that hold. One of a call that was left without its return being seen does not: another function's
    /// return address may stand there by now.
    fn valid_mends(&self, code: &mut impl CodeAt) -> [Option<Mend>; MAX_MENDS] {
        let mut valid = [None; MAX_MENDS];
        for (valid, mend) in valid.iter_mut().zip(self.mends) {
            let holds = mend.slot == self.regs.sp
                || self.copied(mend.slot).is_some_and(|word| is_trampoline(word, code));
            *valid = holds.then_some(*mend);
        }
        valid
    }

    /// The word at `address`, as it was copied.
    fn copied(&self, address: u64) -> Option<u64> {
        let offset = usize::try_from(address.wrapping_sub(self.regs.sp)).ok()?;
        self.stack.get(offset..)?.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes))
    }
}

/// Whether a return probe put `word` on the stack. The kernel makes the page for it at a process' first probe, and it
/// may not be known yet; the trampoline is the first thing in it.
fn is_trampoline(word: u64, code: &mut impl CodeAt) -> bool {
    match code.native(word) {
        Step::ReturnProbe => true,
        Step::Nowhere => word != 0 && word & (PAGE - 1) == 0,
        _ => false,
    }
}

struct Walk<'a> {
    snapshot: &'a Snapshot<'a>,
    mends: [Option<Mend>; MAX_MENDS],
    regs: Regs,
    /// Whether code of the process' own making is a JVM's.
    is_jvm: bool,
    /// Whether `regs.ip` is an instruction to be executed, not a return address.
    interrupted: bool,
    guessing: bool,
    /// The lowest address that was read since this was set.
    lowest_read: Cell<u64>,
}

impl Walk<'_> {
    fn collect(
        &mut self,
        code: &mut impl CodeAt,
        mut known: Known<'_>,
        points: &mut Vec<Point>,
    ) -> (End, usize) {
        while points.len() < MAX_FRAMES {
            let state = self.state();
            if let Some(n) = known.joined(&state).filter(|n| points.len() + n <= MAX_FRAMES) {
                return (known.end, n);
            }
            self.lowest_read.set(u64::MAX);
            let mut found = None;
            let taken = self.step(code, points.is_empty(), &mut found);
            let lowest_read = self.lowest_read.get();
            points.extend(found.map(|address| Point { address, state, lowest_read }));
            if let Err(end) = taken {
                return (end, 0);
            }
        }
        (End::Truncated, 0)
    }

    fn state(&self) -> State {
        let Regs { ip, sp, bp, bx, .. } = self.regs;
        State { ip, sp, bp, bx, interrupted: self.interrupted, guessing: self.guessing }
    }

    /// To the next frame; the one that is left is put into `found`.
    fn step(
        &mut self,
        code: &mut impl CodeAt,
        is_innermost: bool,
        found: &mut Option<Address>,
    ) -> Result<(), End> {
        // A return address is one past the call, which may be another function's first instruction.
        let pc = if self.interrupted { self.regs.ip } else { self.regs.ip.wrapping_sub(1) };
        let mut step = code.native(pc);
        // The trampoline of a return probe is the first thing in its page, and no call leads there.
        if step == Step::Nowhere && code.native(self.regs.ip) == Step::ReturnProbe {
            step = Step::ReturnProbe;
        }
        if step == Step::Anonymous && self.is_jvm {
            return self.java(code, found);
        }
        self.take(step, pc, is_innermost, found)
    }

    fn take(
        &mut self,
        step: Step,
        pc: u64,
        is_innermost: bool,
        found: &mut Option<Address>,
    ) -> Result<(), End> {
        match step {
            Step::Rule(rule) => {
                // Nothing calls the signal trampoline: its address is no return address.
                let pc = if rule == Rule::Signal { self.regs.ip } else { pc };
                *found = Some(Address { place: Place::Native(pc), guess: self.guessing });
                self.apply(rule)
            }
            // A libc may come without unwind information, as musl does; what called its malloc is known all the same.
            Step::NoRule if is_innermost && self.snapshot.is_at_entry => {
                *found = Some(Address { place: Place::Native(pc), guess: false });
                self.frame(Cfa::Sp(8), Saved::Same, Saved::Same)
            }
            Step::NoRule => {
                *found = Some(Address { place: Place::Native(pc), guess: self.guessing });
                if self.is_at_the_top() { Err(End::First) } else { self.guess() }
            }
            Step::Anonymous => Err(End::Broken(Break::Anonymous)),
            Step::ReturnProbe => Err(End::Broken(Break::ForeignProbe)),
            Step::Nowhere if self.regs.ip == 0 && !is_innermost => Err(self.end_at_zero()),
            Step::Nowhere => Err(End::Broken(Break::Nowhere)),
        }
    }

    fn java(&mut self, code: &mut impl CodeAt, found: &mut Option<Address>) -> Result<(), End> {
        let stepped = code.java(&self.regs, |address| self.word(address).ok());
        let Stepped { frame, caller, guess } = match stepped {
            None => return Err(End::Java),
            Some(Ok(stepped)) => stepped,
            Some(Err(NoStep::Uncopied(_))) => return Err(End::Truncated),
            Some(Err(NoStep::Unknown)) => return Err(End::Broken(Break::NoJavaCode)),
            Some(Err(NoStep::Implausible)) => return Err(End::Broken(Break::JavaFrame)),
        };
        *found = Some(Address { place: Place::Java(frame), guess: guess || self.guessing });
        // What else Java code saves is not known; the frames beyond are found by stack and frame pointer.
        self.regs = Regs { ip: caller.pc, sp: caller.sp, bp: caller.fp, ..Regs::default() };
        self.interrupted = false;
        Ok(())
    }

    fn apply(&mut self, rule: Rule) -> Result<(), End> {
        match rule {
            Rule::Frame { cfa, bp, bx } => self.frame(cfa, bp, bx),
            Rule::Signal => self.signal(),
            Rule::End => Err(End::First),
            Rule::Unsupported => Err(End::Broken(Break::Rule)),
        }
    }

    fn frame(&mut self, cfa: Cfa, bp: Saved, bx: Saved) -> Result<(), End> {
        let Regs { ip, sp, bp: old_bp, bx: old_bx, .. } = self.regs;
        let cfa = match cfa {
            Cfa::Sp(offset) => add(sp, offset),
            Cfa::Bp(offset) => add(old_bp, offset),
            Cfa::Bx(offset) => add(old_bx, offset),
            Cfa::AtBp(offset) => self.word(add(old_bp, offset))?,
            Cfa::Plt => sp.wrapping_add(if ip & 15 >= 11 { 16 } else { 8 }),
        };
        if cfa <= sp {
            return Err(End::Broken(Break::Rule));
        }
        let caller = self.word(cfa.wrapping_sub(8))?;
        // Both are told by the registers as they are here, before one of them changes.
        let (bp, bx) = (self.saved(bp, cfa, old_bp)?, self.saved(bx, cfa, old_bx)?);
        (self.regs.bp, self.regs.bx) = (bp, bx);
        self.regs.ip = caller;
        self.regs.sp = cfa;
        self.interrupted = false;
        Ok(())
    }

    /// The registers of what the signal interrupted stand in the frame's `ucontext`: rsp points at it, and its
    /// `gregs` begin at 40 (Linux, arch/x86/include/uapi/asm/sigcontext.h).
    fn signal(&mut self) -> Result<(), End> {
        let sp = self.regs.sp;
        let greg = |index: u64| self.word(sp.wrapping_add(40 + 8 * index));
        self.regs =
            Regs { bp: greg(10)?, bx: greg(11)?, sp: greg(15)?, ip: greg(16)?, ..self.regs };
        self.interrupted = true;
        // A signal stack of its own: what it interrupted lies elsewhere, and only one stack was copied.
        let offset = self.regs.sp.wrapping_sub(self.snapshot.regs.sp);
        if offset < self.snapshot.stack.len() as u64 { Ok(()) } else { Err(End::Truncated) }
    }

    /// Nobody calls a thread's first function; but where the copy has holes, the zero may be one of them.
    fn end_at_zero(&self) -> End {
        if self.snapshot.has_holes && !self.is_at_the_top() { End::Truncated } else { End::First }
    }

    /// Whether there is no stack above this frame. The dynamic linker's first instructions have no unwind information;
    /// the kernel begins the stack with what they find there.
    fn is_at_the_top(&self) -> bool {
        let Snapshot { regs, used, .. } = self.snapshot;
        *used > 0 && self.regs.sp.wrapping_sub(regs.sp) >= used.saturating_sub(8)
    }

    /// No unwind information: follow the frame pointer if it can be one, and mark what comes of it.
    fn guess(&mut self) -> Result<(), End> {
        let Regs { sp, bp, .. } = self.regs;
        if bp < sp || bp & 7 != 0 {
            return Err(End::Broken(Break::Rule));
        }
        self.guessing = true;
        self.frame(Cfa::Bp(16), Saved::AtCfa(-16), Saved::Lost)
    }

    fn saved(&self, saved: Saved, cfa: u64, old: u64) -> Result<u64, End> {
        match saved {
            Saved::Same => Ok(old),
            Saved::AtCfa(offset) => self.word(add(cfa, offset)),
            Saved::AtBp(offset) => self.word(add(self.regs.bp, offset)),
            Saved::Lost => Ok(0),
        }
    }

    fn word(&self, address: u64) -> Result<u64, End> {
        if let Some(mend) = self.mends.iter().flatten().find(|mend| mend.slot == address) {
            // It is no word of the stack: whether that is the same says nothing of it.
            self.lowest_read.set(0);
            return Ok(mend.return_address);
        }
        self.lowest_read.set(self.lowest_read.get().min(address));
        match self.snapshot.copied(address) {
            Some(word) => Ok(word),
            None if self.snapshot.cut && address >= self.snapshot.regs.sp => Err(End::Truncated),
            None => Err(End::Broken(Break::Rule)),
        }
    }
}

fn add(base: u64, offset: i32) -> u64 {
    base.wrapping_add_signed(i64::from(offset))
}

#[cfg(test)]
mod tests {
    use super::{
        super::fake_code::{FIRST, FakeCode, NATIVE, RETURN_PROBE},
        *,
    };

    const SP: u64 = 0x7000_0000;

    fn walked(words: &[u64], used: u64, has_holes: bool, mends: &[Mend]) -> (usize, End) {
        let stack: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let regs = Regs { ip: NATIVE, sp: SP, ..Regs::default() };
        let cut = (stack.len() as u64) < used;
        let snapshot =
            Snapshot { regs, stack: &stack, used, cut, has_holes, is_at_entry: false, mends };
        let mut points = Vec::new();
        let (end, _) = walk(&mut FakeCode, false, &snapshot, Known::NOTHING, &mut points);
        (points.len(), end)
    }

    /// A zero is the end of a stack, but not of one with holes, unless nothing lies above it.
    #[test]
    fn zeros() {
        let c = NATIVE + 5;
        // (stack, bytes that there were, whether it has holes, frames, end)
        let cases: [(&[u64], u64, bool, usize, End); 5] = [
            (&[c, 0, 0, 0], 32, false, 2, End::First),
            (&[c, 0, 0, 0], 32, true, 2, End::Truncated),
            (&[c, c, c, 0], 32, true, 4, End::First),
            (&[c, 0, 0, 0], 0, false, 2, End::First),
            (&[], 32, false, 1, End::Truncated),
        ];
        for (words, used, has_holes, n, end) in cases {
            assert_eq!(
                walked(words, used, has_holes, &[]),
                (n, end),
                "{words:x?} {used} {has_holes}"
            );
        }
    }

    /// A return address is put back where a return probe has replaced it, and nowhere else.
    #[test]
    fn mends() {
        let (c, probe, unknown) = (NATIVE + 5, RETURN_PROBE, 0x1234_5000);
        // (stack, slot of the mend, whether the walk gets to what was put back)
        let cases: [([u64; 4], u64, bool); 6] = [
            ([c, probe, c, 0], SP + 8, true),
            ([c, unknown, c, 0], SP + 8, true),
            ([c, c, c, 0], SP + 8, false),
            ([c, 0, c, 0], SP + 8, false),
            ([c, c, c, 0], SP, true),
            ([c, c, c, 0], SP + 32, false),
        ];
        for (words, slot, is_put_back) in cases {
            let mend = Mend { slot, return_address: FIRST + 5 };
            let (n, end) = walked(&words, 32, false, &[mend]);
            // The function that is put back is a first one.
            let n_below = if is_put_back { 2 + ((slot - SP) / 8) as usize } else { n };
            assert_eq!((n, end), (n_below, End::First), "{words:x?} {slot:x}");
            let n_zero = words.iter().position(|&word| word == 0).unwrap() + 1;
            assert_eq!(n == n_zero, !is_put_back, "{words:x?} {slot:x} {n}");
        }
    }
}
