//! memtrace.
pub mod attach;
pub mod jvm;
