//! What a heap dump holds, and what keeps it.
//!
//! In: the bytes of a file that a Java virtual machine wrote (HPROF). Out: objects by class, who retains them, and class
//! loaders that should be gone. A dump is hostile input: every read is within bounds, nothing recurs by what the dump
//! says, and memory is bounded by the size of the file. Nothing here prints, and no process is looked at.

mod analysis;
mod bytes;
mod classes;
mod dominators;
mod graph;
mod histogram;
mod ids;
mod loaders;
mod object_bytes;
mod objects;
mod parallel;
mod reach;
mod records;
mod retained;
mod scan;
mod sizes;
mod tally;
mod values;
mod views;

pub use analysis::{Analysis, Dominator, Totals, Unreached, Wanted};
pub use histogram::{DumpFacts, Histogram, HistogramRow};
pub use loaders::{Holder, Leak, LeakedLoader, LoaderReport, LoaderRow};
pub use objects::RootKind;
pub(crate) use parallel::in_parallel;
pub use records::NoDump;
pub use sizes::HeapLayout;
pub use views::{ObjectView, PathView, ThreadView, object, paths, threads};

#[cfg(test)]
mod sample;
#[cfg(test)]
mod tests;
