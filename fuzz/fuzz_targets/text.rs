//! Maps, thread dumps, and names made fit to print.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| memtrace::hostile::text(bytes));
