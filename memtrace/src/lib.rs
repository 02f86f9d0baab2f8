//! memtrace: where the memory of a running process comes from.

pub mod attach;
pub mod commands;
pub mod events;
pub mod findings;
pub mod footprint;
pub mod heap;
pub mod hostile;
pub mod jvm;
pub mod ledger;
pub mod owners;
pub mod probes;
pub mod report;
pub mod spool;
pub mod stacks;
pub mod target;
pub mod trace;
pub mod trials;
