//! memtrace: where the memory of a running process comes from.
pub mod events;
pub mod ledger;
pub mod probes;
pub mod stacks;
pub mod target;
