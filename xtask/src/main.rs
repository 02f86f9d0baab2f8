//! memtrace's own tasks.
fn main() {}
