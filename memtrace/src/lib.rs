//! memtrace.
