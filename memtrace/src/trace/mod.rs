//! The trace: records of what happened, written to a file as they come and read again, and the model they add up to.
//!
//! In: resolved events, names, samples. Out: a [`Recording`], the same whether the records come from a live trace or
//! from a file. Raw stacks never get here.

mod bounds;
mod file;
mod held;
mod reader;
mod record;
mod recording;
mod writer;

pub use held::Held;
pub use reader::{Outcome, ReadError, read};
pub use record::{End, Jvm, Malloc, Record, Target, ThreadName, Why};
pub use recording::{Recording, StackCounts};
pub use writer::{Writer, header};

#[cfg(test)]
mod tests;
