//! A step from Java code that was interrupted, where a page fault or a timer found it.
//!
//! There the frame may not be built yet or be gone already, or more may be on top of it. Of a method the instructions
//! that come next tell; of a stub a few bytes of the code around the instruction, and then it stays a guess.

use super::{
    code::{CodeId, ends_in_call},
    code_blob::{Blob, BlobKind},
    frame_depth::{Depth, MAX_INSTRUCTION_BYTES, Method, Outside, depth},
    java_code::JavaCode,
    java_frame::{Certainty, FrameKey, NoStep, Registers, StackWords, Step},
    step::{MAX_SCAN, fixed, framed, word},
};

/// Bytes of code before a return address that are looked at.
const BEFORE: u64 = 8;

/// Bytes of a frame that a stub of no fixed size may have.
const MAX_STUB_FRAME_BYTES: u64 = 512;

const RET: u8 = 0xc3;

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
        let is_stub = !kind.is_method();
        let mut certainty =
            if found.is_doubtful { Certainty::Approximate } else { Certainty::Exact };
        let candidates = match kind {
            BlobKind::Method | BlobKind::NativeWrapper => {
                let (caller, is_known) = self.method_caller(at, found.id, time_ns, stack);
                certainty = certainty.max(is_known);
                [caller, Err(NoStep::Implausible)]
            }
            BlobKind::Frameless => [frameless(at, stack), Err(NoStep::Implausible)],
            _ => self.stub_callers(at, &blob, is_c1, stack),
        };
        for caller in candidates.into_iter().flatten() {
            if caller.sp > at.sp && self.may_return_to(caller.pc, time_ns, is_stub) {
                // In a stub more may be pushed than these few ways tell.
                let certainty = if is_stub { Certainty::Approximate } else { certainty };
                return Ok(Step { frame, caller, certainty });
            }
        }
        for slot in (0..MAX_SCAN).map(|n| at.sp.wrapping_add(8 * n)) {
            let pc = word(stack, slot)?;
            if self.may_return_to(pc, time_ns, is_stub) {
                let is_near = at.fp.wrapping_sub(at.sp) <= MAX_STUB_FRAME_BYTES;
                let is_framed = is_near && slot == at.fp.wrapping_add(8);
                let fp = if is_framed { word(stack, at.fp)? } else { at.fp };
                let caller = Registers { pc, sp: slot.wrapping_add(8), fp };
                return Ok(Step { frame, caller, certainty: Certainty::Approximate });
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

    /// The caller of the method `id`, and whether the code leaves no doubt.
    fn method_caller(
        &mut self,
        at: Registers,
        id: CodeId,
        time_ns: u64,
        stack: &impl StackWords,
    ) -> (Result<Registers, NoStep>, Certainty) {
        let Some(bytes) = self.journal.code(id).map(|code| code.blob.frame_bytes) else {
            return (Err(NoStep::Unknown), Certainty::Approximate);
        };
        let mut method = Interrupted { java: self, id, time_ns };
        match depth(&mut method, at.pc) {
            Some(Depth::At { slot, is_saved }) => {
                (at_slot(at, slot, is_saved, stack), Certainty::Exact)
            }
            Some(Depth::ByPointer) => (framed(at, stack), Certainty::Exact),
            None => (fixed(at, bytes, stack), Certainty::Approximate),
        }
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

/// The caller when its return address is `slot` bytes up, and its frame pointer below that or still in its register.
fn at_slot(
    at: Registers,
    slot: u64,
    is_saved: bool,
    stack: &impl StackWords,
) -> Result<Registers, NoStep> {
    let slot = at.sp.wrapping_add(slot);
    let fp = if is_saved { word(stack, slot.wrapping_sub(8))? } else { at.fp };
    Ok(Registers { pc: word(stack, slot)?, sp: slot.wrapping_add(8), fp })
}

/// The method `id`, which was interrupted.
struct Interrupted<'a> {
    java: &'a mut JavaCode,
    id: CodeId,
    time_ns: u64,
}

impl Method for Interrupted<'_> {
    fn frame_bytes(&self) -> u64 {
        self.java.journal.code(self.id).map_or(0, |code| u64::from(code.blob.frame_bytes))
    }

    fn code(&self, ip: u64) -> Option<Vec<u8>> {
        let code = self.java.journal.code(self.id).filter(|code| code.contains(ip))?;
        let left = usize::try_from(code.blob.code_end - ip).unwrap_or(usize::MAX);
        self.java.memory.bytes(ip, left.min(MAX_INSTRUCTION_BYTES)).ok()
    }

    fn is_described(&self, ip: u64) -> bool {
        let code = self.java.journal.code(self.id).filter(|code| code.contains(ip));
        code.is_some_and(|code| {
            let offset = (ip - code.blob.code) as u32;
            code.debug.as_ref().is_some_and(|debug| debug.is_exact(offset))
        })
    }

    fn outside(&mut self, ip: u64) -> Option<Outside> {
        let JavaCode { journal, memory, .. } = &mut *self.java;
        let found = journal.find(&**memory, ip, self.time_ns)?;
        let code = journal.code(found.id)?;
        Some(match code.kind {
            // The handlers that a method ends with.
            BlobKind::Deoptimization => Outside::AbovePushed,
            BlobKind::RuntimeStub if code.name.starts_with(b"ExceptionBlob") => Outside::AboveFrame,
            _ => Outside::Callee,
        })
    }
}
