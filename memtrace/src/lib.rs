//! memtrace.
pub mod attach;
pub mod jvm;
pub mod report;
