//! A step from Java code that was interrupted, where a page fault or a timer found it.
//!
//! There the frame may not be built yet or be gone already. A few bytes of the code around the instruction tell: both
//! compilers and all stubs begin and end in few ways.

use super::{
    code::ends_in_call,
    code_blob::{Blob, BlobKind},
    java_code::JavaCode,
    java_frame::{Certainty, FrameKey, NoStep, Registers, StackWords, Step},
    step::{MAX_SCAN, fixed, framed, word},
};

/// Bytes of code before and after the instruction that are looked at.
const BEFORE: u64 = 8;
const AFTER: u64 = 16;
/// Bytes at the beginning of a method in which its frame is built.
const MAX_PROLOGUE_BYTES: u64 = 256;

/// Bytes of a frame that a stub of no fixed size may have.
const MAX_STUB_FRAME_BYTES: u64 = 512;

const RET: u8 = 0xc3;
const POP_BP: u8 = 0x5d;
const PUSH_BP: u8 = 0x55;

/// How much of a frame is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Built {
    /// Nothing: the return address is on top.
    Nothing,
    /// The caller's frame pointer was pushed, or is to be popped.
    Pointer,
    /// All but the caller's frame pointer, which is still in its register.
    Room,
    Whole,
}

/// Registers that the interpreter uses for itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterpreterRegisters {
    /// The method, at its entry.
    pub rbx: u64,
    /// The bytecode pointer; at a method's entry the caller's stack pointer.
    pub r13: u64,
}

impl JavaCode {
    /// The step from the interrupted instruction `at.pc`.
    ///
    /// The methods that are inlined there are those of the next instruction that the compiler describes: what is
    /// outermost is right, what was inlined into it may be a neighbour.
    pub fn step_interrupted(
        &mut self,
        at: Registers,
        interpreter: InterpreterRegisters,
        time_ns: u64,
        stack: &impl StackWords,
    ) -> Result<Step, NoStep> {
        self.asked_ns = time_ns;
        let found = self.journal.find(&*self.memory, at.pc, time_ns).ok_or(NoStep::Unknown)?;
        let code = self.journal.code(found.id).ok_or(NoStep::Unknown)?;
        let (kind, blob) = (code.kind, code.blob.clone());
        let is_c1 = code.name.starts_with(b"C1 Runtime") || code.name.ends_with(b"Runtime1 stub");
        let frame = match kind {
            BlobKind::Interpreter => {
                return self.interrupted_interpreter(at, interpreter, time_ns, stack);
            }
            BlobKind::Method | BlobKind::NativeWrapper => {
                FrameKey::Compiled { code: found.id, offset: (at.pc - blob.code) as u32 }
            }
            _ => FrameKey::Stub(found.id),
        };
        let candidates = match kind {
            BlobKind::Method | BlobKind::NativeWrapper => {
                [self.method_caller(at, &blob, stack), Err(NoStep::Implausible)]
            }
            BlobKind::Frameless => [frameless(at, stack), Err(NoStep::Implausible)],
            _ => self.stub_callers(at, &blob, is_c1, stack),
        };
        let is_stub = !kind.is_method();
        for caller in candidates.into_iter().flatten() {
            if caller.sp > at.sp && self.may_return_to(caller.pc, time_ns, is_stub) {
                // In a stub more may be pushed than these few ways tell.
                let is_sure = !found.is_doubtful && !is_stub;
                let certainty = if is_sure { Certainty::Exact } else { Certainty::Approximate };
                return Ok(Step { frame, caller, certainty });
            }
        }
        for slot in (0..MAX_SCAN).map(|n| at.sp.wrapping_add(8 * n)) {
            let pc = word(stack, slot)?;
            if self.may_return_to(pc, time_ns, is_stub) {
                // Where the frame pointer leads to as well, it is no guess.
                let is_near = at.fp.wrapping_sub(at.sp) <= MAX_STUB_FRAME_BYTES;
                let is_framed = is_near && slot == at.fp.wrapping_add(8);
                let fp = if is_framed { word(stack, at.fp)? } else { at.fp };
                let is_sure = is_framed && !is_stub;
                let certainty = if is_sure { Certainty::Exact } else { Certainty::Approximate };
                let caller = Registers { pc, sp: slot.wrapping_add(8), fp };
                return Ok(Step { frame, caller, certainty });
            }
        }
        Err(NoStep::Implausible)
    }

    /// Whether a call may return to `pc`; for a stub also one that the compiler does not describe, as those of
    /// `arraycopy` and of `Math.sin`.
    fn may_return_to(&mut self, pc: u64, time_ns: u64, is_stub: bool) -> bool {
        self.is_return_address(pc, time_ns)
            || is_stub && self.contains(pc) && self.is_leaf_call(pc, time_ns) && {
                let before = self.memory.bytes(pc.wrapping_sub(BEFORE), BEFORE as usize);
                before.is_ok_and(|before| ends_in_call(&before))
            }
    }

    fn interrupted_interpreter(
        &mut self,
        at: Registers,
        interpreter: InterpreterRegisters,
        time_ns: u64,
        stack: &impl StackWords,
    ) -> Result<Step, NoStep> {
        if at.fp >= at.sp && at.fp & 7 == 0 {
            let method = word(stack, at.fp.wrapping_sub(24)).unwrap_or(0);
            let caller_sp = word(stack, at.fp.wrapping_sub(8)).unwrap_or(0);
            let here = self.at_bytecode(method, interpreter.r13);
            // At a method's entry the frame pointer is still the caller's, and r13 holds the caller's stack pointer.
            if let Some((method, bci)) = here
                && caller_sp > at.fp
            {
                let caller = Registers { sp: caller_sp, ..framed(at, stack)? };
                let frame = FrameKey::Interpreted { method, bci };
                return Ok(Step { frame, caller, certainty: Certainty::Exact });
            }
        }
        let caller = frameless(at, stack)?;
        if self.is_return_address(caller.pc, time_ns) {
            let InterpreterRegisters { rbx, r13 } = interpreter;
            let method = self.at_bytecode(rbx, 0);
            // The interpreter pushes what the caller has not: its stack ends where r13 says.
            let sp = if r13 >= caller.sp { r13 } else { caller.sp };
            let (frame, certainty) = match method {
                Some((method, bci)) => (FrameKey::Interpreted { method, bci }, Certainty::Exact),
                None => (FrameKey::Unreadable, Certainty::Approximate),
            };
            return Ok(Step { frame, caller: Registers { sp, ..caller }, certainty });
        }
        // The bytecode pointer is in its slot while a helper runs that uses the register.
        let step = self.step(at, time_ns, stack)?;
        Ok(Step { certainty: Certainty::Approximate, ..step })
    }

    fn method_caller(
        &self,
        at: Registers,
        blob: &Blob,
        stack: &impl StackWords,
    ) -> Result<Registers, NoStep> {
        let whole = fixed(at, blob.frame_bytes, stack);
        match self.built(at.pc, blob) {
            Built::Nothing => frameless(at, stack),
            Built::Pointer => pushed(at, stack),
            Built::Room => whole.map(|caller| Registers { fp: at.fp, ..caller }),
            Built::Whole => whole,
        }
    }

    /// How much of the frame of the method `blob` is there at `pc`.
    fn built(&self, pc: u64, blob: &Blob) -> Built {
        let before =
            self.memory.bytes(pc.wrapping_sub(BEFORE), BEFORE as usize).unwrap_or_default();
        let after = self.memory.bytes(pc, AFTER as usize).unwrap_or_default();
        let offset = pc - blob.code;
        if i64::try_from(offset).is_ok_and(|offset| offset < i64::from(blob.frame_complete)) {
            let len = offset.min(MAX_PROLOGUE_BYTES);
            let prologue = self.memory.bytes(pc - len, len as usize).unwrap_or_default();
            return built_by(&prologue, &after);
        }
        ended_at(&before, &after)
    }

    /// Whether `fp` is the frame pointer of an interpreted method.
    fn is_interpreted_frame(&mut self, fp: u64, stack: &impl StackWords) -> bool {
        let method = stack.word(fp.wrapping_sub(24));
        method.is_some_and(|method| self.methods.at(&*self.memory, method).is_some())
    }

    /// Where the caller of a stub may be, likeliest first.
    fn stub_callers(
        &mut self,
        at: Registers,
        blob: &Blob,
        is_c1: bool,
        stack: &impl StackWords,
    ) -> [Result<Registers, NoStep>; 2] {
        let is_edge = at.pc == blob.code || self.memory.u8(at.pc) == Ok(RET);
        let by_pointer = framed(at, stack);
        let bytes = blob.frame_bytes;
        if is_edge {
            [frameless(at, stack), Err(NoStep::Implausible)]
        } else if bytes >= 16 {
            // The first compiler's stubs begin with `enter`: unless the pointer is in its place, nothing is built.
            let is_entered = at.fp == at.sp.wrapping_add(u64::from(bytes) - 16);
            let sized = fixed(at, bytes, stack);
            match (is_entered, is_c1) {
                (true, _) => [by_pointer, sized],
                (false, true) => [frameless(at, stack), pushed(at, stack)],
                (false, false) => [sized, frameless(at, stack)],
            }
        } else {
            // A stub without a frame leaves the frame pointer to its caller, who may use it for anything; in a stub
            // with one, what is on top may be left of an earlier call.
            let on_top = frameless(at, stack);
            let is_interpreters = on_top.is_ok_and(|top| self.interpreter.contains(&top.pc))
                && self.is_interpreted_frame(at.fp, stack);
            let is_near = at.fp.wrapping_sub(at.sp) <= MAX_STUB_FRAME_BYTES;
            if is_near && !is_interpreters {
                [by_pointer, on_top]
            } else {
                [on_top, Err(NoStep::Implausible)]
            }
        }
    }
}

fn frameless(at: Registers, stack: &impl StackWords) -> Result<Registers, NoStep> {
    Ok(Registers { pc: word(stack, at.sp)?, sp: at.sp.wrapping_add(8), fp: at.fp })
}

/// The caller when its frame pointer is on top.
fn pushed(at: Registers, stack: &impl StackWords) -> Result<Registers, NoStep> {
    Ok(Registers {
        pc: word(stack, at.sp.wrapping_add(8))?,
        sp: at.sp.wrapping_add(16),
        fp: word(stack, at.sp)?,
    })
}

/// What the instructions `prologue`, which were executed, have built of a frame.
fn built_by(prologue: &[u8], after: &[u8]) -> Built {
    let has_room = prologue.windows(4).any(|code| matches!(code, [0x48, 0x83 | 0x81, 0xec, _]));
    if has_room {
        // The second compiler makes room first and saves the frame pointer then.
        let saves = after.starts_with(&[0x48, 0x89, 0x6c, 0x24])
            || after.starts_with(&[0x48, 0x89, 0xac, 0x24]);
        return if saves { Built::Room } else { Built::Whole };
    }
    let pushed = prologue.ends_with(&[PUSH_BP]) || prologue.ends_with(&[PUSH_BP, 0x48, 0x8b, 0xec]);
    if pushed { Built::Pointer } else { Built::Nothing }
}

/// What is left of a frame at a method's end; all of it anywhere else.
fn ended_at(before: &[u8], after: &[u8]) -> Built {
    let is_popped = before.last() == Some(&POP_BP);
    match after {
        [RET, ..] => Built::Nothing,
        [POP_BP, ..] => Built::Pointer,
        // The poll before a return: `cmp rsp, [r15+…]` or `mov r10, [r15+…]` right after the pop, what follows it,
        // and JDK 8's `test eax, [rip+…]` or, of a page far away, `mov r10, …; test eax, [r10]`.
        [0x49, 0x3b, 0x67 | 0xa7, ..] | [0x4d, 0x8b, 0x97, ..] | [0x49, 0xba, ..] if is_popped => {
            Built::Nothing
        }
        [0x0f, 0x87, _, _, _, _, RET, ..] | [0x41, 0x85, 0x02, RET, ..] => Built::Nothing,
        [0x85, 0x05, _, _, _, _, RET, ..] => Built::Nothing,
        _ => Built::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How both compilers build a frame, instruction by instruction.
    #[test]
    fn prologues() {
        const BANG: [u8; 7] = [0x89, 0x84, 0x24, 0x00, 0xc0, 0xfe, 0xff];
        let code = |parts: &[&[u8]]| parts.concat();
        let save = [0x48, 0x89, 0x6c, 0x24, 0x10];
        // (executed, next, what is there)
        let cases: [(Vec<u8>, &[u8], Built); 6] = [
            (vec![], &BANG, Built::Nothing),
            (code(&[&BANG]), &[PUSH_BP], Built::Nothing),
            (code(&[&BANG, &[PUSH_BP]]), &[0x48, 0x83, 0xec, 0x20], Built::Pointer),
            (code(&[&BANG, &[PUSH_BP], &[0x48, 0x83, 0xec, 0x20]]), &[0x90], Built::Whole),
            (vec![0x48, 0x81, 0xec, 0x18, 0, 0, 0], &save, Built::Room),
            (code(&[&[0x48, 0x81, 0xec, 0x18, 0, 0, 0], &save]), &[0x90], Built::Whole),
        ];
        for (executed, next, built) in cases {
            assert_eq!(built_by(&executed, next), built, "{executed:x?} | {next:x?}");
        }
    }

    /// How they take it down.
    #[test]
    fn epilogues() {
        // (executed, next, what is there)
        let cases: [(&[u8], &[u8], Built); 9] = [
            (&[POP_BP], &[0x49, 0xba, 1, 2, 3, 4, 5, 6, 7, 8], Built::Nothing),
            (&[0x90], &[0x49, 0xba, 1, 2, 3, 4, 5, 6, 7, 8], Built::Whole),
            (&[0x48, 0x83, 0xc4, 0x10], &[POP_BP, 0x49], Built::Pointer),
            (&[POP_BP], &[0x49, 0x3b, 0xa7, 0x48, 3, 0, 0], Built::Nothing),
            (&[0x90], &[0x49, 0x3b, 0xa7, 0x48, 3, 0, 0], Built::Whole),
            (&[0x90], &[0x0f, 0x87, 1, 2, 3, 4, RET], Built::Nothing),
            (&[POP_BP], &[0x85, 0x05, 1, 2, 3, 4, RET], Built::Nothing),
            (&[POP_BP], &[RET], Built::Nothing),
            (&[0x90], &[0x90], Built::Whole),
        ];
        for (executed, next, built) in cases {
            assert_eq!(ended_at(executed, next), built, "{executed:x?} | {next:x?}");
        }
    }
}
