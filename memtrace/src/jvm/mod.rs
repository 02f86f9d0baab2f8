//! What is known about HotSpot, read from outside.
//!
//! Text and memory of a JVM go in, threads and names come out. Nothing here acts on the target.

mod absent;
mod areas;
mod capture;
mod code;
mod code_blob;
mod code_cache;
mod debug_info;
mod fields;
mod frame_depth;
mod image;
mod java_code;
mod java_frame;
mod journal;
mod library;
mod live;
mod memory;
mod method;
mod methods;
mod oops;
#[cfg(test)]
mod recorded;
mod release;
mod step;
mod symbol;
pub mod thread_dump;
mod thread_names;
mod threads;
mod top;
mod unsigned5;
mod vm;
mod vm_structs;
mod vm_threads;

pub use areas::{Ages, Area, AreaKind, Areas, Collector, Heap};
pub use capture::{Capture, Recorder};
pub use code::CodeId;
pub use image::Image;
pub use java_code::JavaCode;
pub use java_frame::{
    Certainty, Execution, FrameKey, JavaFrame, NoStep, Registers, StackWords, Step,
};
pub use journal::CodeChanges;
pub use library::{Library, libjvm};
pub use live::LiveMemory;
pub use memory::{Memory, Unreadable};
pub use methods::MethodId;
pub use release::{Flags, Release};
pub use thread_names::{Look, ThreadNames};
pub use threads::{JvmThread, ThreadKind, VirtualThread};
pub use top::InterpreterRegisters;
pub use vm::Vm;
pub use vm_structs::{Field, TablesError, VmStructs};
