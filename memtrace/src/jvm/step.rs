//! A step from a Java frame to its caller, from where a call returns to.
//!
//! For each instruction there is one rule, made of what the VM says of its code, and remembered until that code is gone.
//! What a rule needs of the stack are a few words around the stack or frame pointer.

use super::{
    code::CodeId,
    code_blob::BlobKind,
    java_code::JavaCode,
    java_frame::{Certainty, FrameKey, NoStep, Registers, StackWords, Step},
};

/// Instructions whose rules are remembered.
const MAX_RULES: usize = 500_000;
/// Words that are looked at for a return address above a frame of unknown size.
pub(super) const MAX_SCAN: u64 = 200;

/// What to do at an instruction that a call returns to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rule {
    Interpreted,
    /// The frame has this size.
    Fixed {
        bytes: u32,
        frame: FrameKey,
    },
    /// The same, but the call was none that the compiler describes: more may have been pushed.
    Leaf {
        bytes: u32,
        frame: FrameKey,
    },
    /// The real instruction stands in the frame.
    Deoptimized {
        bytes: u32,
        code: CodeId,
        slot: u32,
    },
    /// The frame pointer leads to the caller.
    Framed {
        frame: FrameKey,
    },
    /// The return address is on top.
    Frameless {
        frame: FrameKey,
    },
    Continuation {
        code: CodeId,
    },
}

/// A rule, and the earliest event that it holds for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    rule: Rule,
    code: CodeId,
    since_ns: u64,
    /// When the code was last seen to be there.
    until_ns: u64,
}

/// What to do at an instruction at some time.
#[derive(Clone, Copy, Debug)]
struct Looked {
    rule: Rule,
    /// Other code that may have been there.
    other: Option<CodeId>,
    /// Whether there may have been any.
    is_doubtful: bool,
}

impl JavaCode {
    /// The step from where a call returns to, in a stack of `time_ns`.
    pub fn step(
        &mut self,
        at: Registers,
        time_ns: u64,
        stack: &impl StackWords,
    ) -> Result<Step, NoStep> {
        self.asked_ns = time_ns;
        if self.interpreter.contains(&at.pc) {
            return self.leave(Rule::Interpreted, at, time_ns, stack);
        }
        let Looked { rule, other, is_doubtful } =
            self.rule(at.pc, time_ns).ok_or(NoStep::Unknown)?;
        let mut step = self.leave(rule, at, time_ns, stack);
        if step == Err(NoStep::Implausible)
            && let Some(other) = other.and_then(|id| self.make_rule(at.pc, id))
        {
            step = self.leave(other, at, time_ns, stack);
        }
        let certainty = if is_doubtful { Certainty::Approximate } else { Certainty::Exact };
        step.map(|step| Step { certainty: step.certainty.max(certainty), ..step })
    }

    /// The step by `rule`, if it leads anywhere.
    fn leave(
        &mut self,
        rule: Rule,
        at: Registers,
        time_ns: u64,
        stack: &impl StackWords,
    ) -> Result<Step, NoStep> {
        let step = self.apply(rule, at, time_ns, stack)?;
        // Methods are called by generated code only, be it the call stub.
        let is_method = !matches!(step.frame, FrameKey::Stub(_) | FrameKey::Entry);
        let is_called = !is_method || self.contains(step.caller.pc);
        // A stack is left upwards.
        if step.caller.sp <= at.sp || !is_called { Err(NoStep::Implausible) } else { Ok(step) }
    }

    fn apply(
        &mut self,
        rule: Rule,
        at: Registers,
        time_ns: u64,
        stack: &impl StackWords,
    ) -> Result<Step, NoStep> {
        let exact = |frame, caller| Step { frame, caller, certainty: Certainty::Exact };
        match rule {
            Rule::Interpreted => self.interpreted(at, stack),
            Rule::Fixed { bytes, frame } => Ok(exact(frame, fixed(at, bytes, stack)?)),
            Rule::Framed { frame } => Ok(exact(frame, framed(at, stack)?)),
            Rule::Frameless { frame } => {
                let pc = word(stack, at.sp)?;
                Ok(exact(frame, Registers { pc, sp: at.sp.wrapping_add(8), fp: at.fp }))
            }
            Rule::Deoptimized { bytes, code, slot } => {
                let real = word(stack, at.sp.wrapping_add(u64::from(slot)))?;
                let blob = &self.journal.code(code).ok_or(NoStep::Unknown)?.blob;
                if !(blob.code..blob.code_end).contains(&real) {
                    return Err(NoStep::Implausible);
                }
                let frame = FrameKey::Compiled { code, offset: (real - blob.code) as u32 };
                Ok(exact(frame, fixed(at, bytes, stack)?))
            }
            Rule::Leaf { bytes, frame } => {
                let caller = self.scan(at, u64::from(bytes), time_ns, stack)?;
                Ok(Step { frame, caller, certainty: Certainty::Approximate })
            }
            Rule::Continuation { code } => self.continuation(at, code, time_ns, stack),
        }
    }

    /// An interpreted frame is all in the words around the frame pointer.
    fn interpreted(&mut self, at: Registers, stack: &impl StackWords) -> Result<Step, NoStep> {
        let Registers { sp, fp, .. } = at;
        if fp & 7 != 0 || fp < sp {
            return Err(NoStep::Implausible);
        }
        let method = word(stack, fp.wrapping_sub(24))?;
        let bcp = word(stack, fp.wrapping_sub(self.bcp_slot))?;
        let caller = Registers {
            pc: word(stack, fp.wrapping_add(8))?,
            sp: word(stack, fp.wrapping_sub(8))?,
            fp: word(stack, fp)?,
        };
        if caller.sp <= fp {
            return Err(NoStep::Implausible);
        }
        let found = self.at_bytecode(method, bcp);
        Ok(match found {
            Some((method, bci)) => {
                let frame = FrameKey::Interpreted { method, bci };
                Step { frame, caller, certainty: Certainty::Exact }
            }
            None => Step { frame: FrameKey::Unreadable, caller, certainty: Certainty::Approximate },
        })
    }

    /// The caller of a frame that may be larger than it says: the first word that looks like a return address.
    pub(super) fn scan(
        &mut self,
        at: Registers,
        bytes: u64,
        time_ns: u64,
        stack: &impl StackWords,
    ) -> Result<Registers, NoStep> {
        let first = at.sp.wrapping_add(bytes).wrapping_sub(8);
        for n in 0..MAX_SCAN {
            let slot = first.wrapping_add(8 * n);
            let pc = word(stack, slot)?;
            if self.is_return_address(pc, time_ns) {
                let fp = word(stack, slot.wrapping_sub(8))?;
                return Ok(Registers { pc, sp: slot.wrapping_add(8), fp });
            }
        }
        Err(NoStep::Implausible)
    }

    /// Whether a call from Java or from the call stub may return to `pc`.
    pub(super) fn is_return_address(&mut self, pc: u64, time_ns: u64) -> bool {
        self.contains(pc)
            && match self.rule(pc, time_ns).map(|looked| looked.rule) {
                Some(Rule::Interpreted | Rule::Deoptimized { .. }) => true,
                Some(Rule::Fixed { frame: FrameKey::Compiled { code, .. }, .. }) => {
                    self.journal.code(code).is_some_and(|code| code.may_return_to(pc))
                }
                Some(Rule::Fixed { frame, .. }) => !matches!(frame, FrameKey::Stub(_)),
                Some(Rule::Framed { frame }) => match frame {
                    FrameKey::Entry => true,
                    FrameKey::Stub(id) => {
                        self.journal.code(id).is_some_and(|code| code.kind == BlobKind::Upcall)
                    }
                    _ => false,
                },
                _ => false,
            }
    }

    /// Whether `pc` lies in a compiled method, where no call returns that the compiler describes.
    pub(super) fn is_leaf_call(&mut self, pc: u64, time_ns: u64) -> bool {
        matches!(self.rule(pc, time_ns), Some(Looked { rule: Rule::Leaf { .. }, .. }))
    }

    /// Above a virtual thread's thawed frames: the carrier's frames begin behind the `ContinuationEntry`.
    fn continuation(
        &mut self,
        at: Registers,
        code: CodeId,
        time_ns: u64,
        stack: &impl StackWords,
    ) -> Result<Step, NoStep> {
        let entry = self.entry_bytes.map(|bytes| at.sp.wrapping_add(bytes));
        for fp in [Some(at.fp), entry].into_iter().flatten() {
            if fp & 7 != 0 || fp < at.sp {
                continue;
            }
            let Ok(caller) = framed(Registers { fp, ..at }, stack) else { continue };
            if self.is_return_address(caller.pc, time_ns) {
                let certainty = Certainty::Exact;
                return Ok(Step { frame: FrameKey::Frozen, caller, certainty });
            }
        }
        let caller = self.scan(at, 8, time_ns, stack)?;
        let frame = if caller.sp == at.sp { FrameKey::Stub(code) } else { FrameKey::Frozen };
        Ok(Step { frame, caller, certainty: Certainty::Approximate })
    }

    /// What to do at `pc`.
    fn rule(&mut self, pc: u64, time_ns: u64) -> Option<Looked> {
        let Self { rules, journal, memory, .. } = self;
        if let Some(known) = rules.get_mut(&pc)
            && known.since_ns <= time_ns
        {
            if time_ns > known.until_ns {
                known.until_ns = journal.seen_until(&**memory, known.code, time_ns).unwrap_or(0);
            }
            if time_ns <= known.until_ns {
                return Some(Looked { rule: known.rule, other: None, is_doubtful: false });
            }
            rules.remove(&pc);
        }
        let found = self.journal.find(&*self.memory, pc, time_ns)?;
        for range in self.journal.take_replaced() {
            self.rules.retain(|pc, _| !range.contains(pc));
        }
        let rule = self.make_rule(pc, found.id)?;
        if let Some(since_ns) = found.since_ns {
            if self.rules.len() >= MAX_RULES {
                self.rules.clear();
            }
            let (code, until_ns) = (found.id, found.until_ns);
            self.rules.insert(pc, Known { rule, code, since_ns, until_ns });
        }
        Some(Looked { rule, other: found.other, is_doubtful: found.is_doubtful })
    }

    fn make_rule(&self, pc: u64, id: CodeId) -> Option<Rule> {
        let code = self.journal.code(id)?;
        if !code.has_rule() {
            return None;
        }
        let blob = &code.blob;
        let (bytes, stub) = (blob.frame_bytes, FrameKey::Stub(id));
        let offset = pc.checked_sub(blob.code)? as u32;
        let frame = FrameKey::Compiled { code: id, offset };
        Some(match code.kind {
            BlobKind::Interpreter => Rule::Interpreted,
            BlobKind::Method if blob.deopt.contains(&pc) => {
                Rule::Deoptimized { bytes, code: id, slot: blob.orig_pc }
            }
            BlobKind::Method => match &code.debug {
                Some(debug) if debug.is_exact(offset) => Rule::Fixed { bytes, frame },
                _ => Rule::Leaf { bytes, frame },
            },
            BlobKind::NativeWrapper => Rule::Fixed { bytes, frame },
            BlobKind::RuntimeStub if bytes >= 16 => Rule::Fixed { bytes, frame: stub },
            BlobKind::Stubs if Some(pc) == self.call_stub_return => {
                Rule::Framed { frame: FrameKey::Entry }
            }
            BlobKind::Continuation => Rule::Continuation { code: id },
            BlobKind::RuntimeStub
            | BlobKind::Stubs
            | BlobKind::Deoptimization
            | BlobKind::Upcall => Rule::Framed { frame: stub },
            BlobKind::Frameless => Rule::Frameless { frame: stub },
            BlobKind::Unknown => Rule::Fixed { bytes, frame: stub },
        })
    }
}

/// Both compilers save the frame pointer right below the return address.
pub(super) fn fixed(
    at: Registers,
    bytes: u32,
    stack: &impl StackWords,
) -> Result<Registers, NoStep> {
    let sp = at.sp.wrapping_add(u64::from(bytes));
    Ok(Registers {
        pc: word(stack, sp.wrapping_sub(8))?,
        sp,
        fp: word(stack, sp.wrapping_sub(16))?,
    })
}

pub(super) fn framed(at: Registers, stack: &impl StackWords) -> Result<Registers, NoStep> {
    let Registers { sp, fp, .. } = at;
    if fp & 7 != 0 || fp < sp {
        return Err(NoStep::Implausible);
    }
    let (caller, next) = (word(stack, fp)?, fp.wrapping_add(8));
    // The barrier at a method's entry pushes a mark between its frame and the return address.
    match word(stack, next)? {
        u64::MAX => {
            let pc = word(stack, fp.wrapping_add(16))?;
            Ok(Registers { pc, sp: fp.wrapping_add(24), fp: caller })
        }
        pc => Ok(Registers { pc, sp: fp.wrapping_add(16), fp: caller }),
    }
}

pub(super) fn word(stack: &impl StackWords, address: u64) -> Result<u64, NoStep> {
    stack.word(address).ok_or(NoStep::Uncopied(address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jvm::{Vm, recorded::recorded};

    /// Where code came in the place of other code about the time of the event, the stack tells which one it was, and that
    /// stays a guess. What stands on the stack for neither is no step.
    #[test]
    fn replaced_about_that_time() {
        const SP: u64 = 0x7000_0000;
        for (memory, libjvm) in recorded() {
            let vm = Vm::open(memory.clone(), libjvm).unwrap();
            // Frames of the old code have so many bytes more than those of the new one; which one's the stack has.
            for (more_bytes, has_old, is_step) in
                [(64, true, true), (64, false, true), (0, false, true), (64, true, false)]
            {
                let mut code = JavaCode::new(&vm).unwrap();
                code.observe(1_000).unwrap();
                let (pc, bytes, caller) = code.journal.replace_a_method(more_bytes);
                code.set_time(2_000);
                let bytes = u64::from(bytes) + if has_old { u64::from(more_bytes) } else { 0 };
                let slot = SP + bytes - 8;
                let word = |at: u64| Some(if at == slot && is_step { caller } else { 0 });
                let step = code.step(Registers { pc, sp: SP, fp: 0 }, 1_500, &word);
                let found = step.map(|step| (step.caller.pc, step.caller.sp, step.certainty));
                let want = (caller, slot + 8, Certainty::Approximate);
                let want = if is_step { Ok(want) } else { Err(NoStep::Implausible) };
                assert_eq!(found, want, "{more_bytes} {has_old} {is_step}");
            }
        }
    }
}
