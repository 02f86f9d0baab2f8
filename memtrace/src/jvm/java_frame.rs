//! What a walk through Java frames deals in: registers, steps, keys, frames.

use super::{code::CodeId, methods::MethodId};

/// The registers that a walk needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    /// The instruction.
    pub pc: u64,
    /// The stack pointer.
    pub sp: u64,
    /// The frame pointer, whatever it holds.
    pub fp: u64,
}

/// A stack: its words by address.
pub trait StackWords {
    /// The word at `address`; `None` when it was not copied.
    fn word(&self, address: u64) -> Option<u64>;
}

impl<F: Fn(u64) -> Option<u64>> StackWords for F {
    fn word(&self, address: u64) -> Option<u64> {
        self(address)
    }
}

/// What a step led over. Equal keys have equal frames, for as long as the JVM runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrameKey {
    /// Compiled code, at an instruction.
    Compiled {
        /// The code.
        code: CodeId,
        /// Bytes from its beginning.
        offset: u32,
    },
    /// An interpreted method.
    Interpreted {
        /// The method.
        method: MethodId,
        /// Its bytecode; `None` in a native method.
        bci: Option<u16>,
    },
    /// A stub of the VM: no method of anyone's, but a frame.
    Stub(CodeId),
    /// The call from native code into Java.
    Entry,
    /// Here begin frames of a virtual thread that are not on the stack but in the heap.
    Frozen,
    /// An interpreted method that could not be read.
    Unreadable,
}

/// How sure a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Certainty {
    /// By what the VM says of its code.
    Exact,
    /// By a search for what looks like a return address, or at a place where code changed at that moment.
    Approximate,
}

/// A step from a frame to its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What was stepped over.
    pub frame: FrameKey,
    /// The caller's registers, `pc` being where the call returns to.
    pub caller: Registers,
    /// How sure it is.
    pub certainty: Certainty,
}

/// Why there is no step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoStep {
    /// No code is known at the instruction: it is gone for too long, or never was any.
    Unknown,
    /// The word of the stack at this address is needed and was not copied.
    Uncopied(u64),
    /// What stands on the stack can't be right.
    Implausible,
}

/// How Java code comes to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Execution {
    /// By the interpreter.
    Interpreted,
    /// Compiled on its own.
    Compiled,
    /// As part of its caller.
    Inlined,
    /// As a native method.
    Native,
}

/// A frame as Java shows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JavaFrame {
    /// The class, with dots.
    pub class: Box<str>,
    /// The method.
    pub method: Box<str>,
    /// The source file, where the class tells.
    pub file: Option<Box<str>>,
    /// The line in it.
    pub line: Option<u32>,
    /// How it was run.
    pub execution: Execution,
    /// Approximate where the names were read when the code was gone: its class may have been gone, too.
    pub certainty: Certainty,
}
