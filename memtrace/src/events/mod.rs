//! Events as they come from the kernel side, decoded, and put into the order in which they took effect.
//!
//! In: bytes of the ring buffer. Out: [`Event`]s. What they mean, and what a stack holds, is others' business.

mod code;
mod code_changes;
mod decode;
mod order;
mod registers;

pub use code::{CodeChange, CodeRecord};
pub use code_changes::CodeChanges;
pub use decode::{DecodeError, Event};
pub use order::Window;
pub use registers::thread_registers;
