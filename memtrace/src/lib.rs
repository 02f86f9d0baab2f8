//! memtrace.
pub mod jvm;
