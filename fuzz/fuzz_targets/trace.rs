//! The reader of trace files: as they are, and as records under checksums that are right.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| match bytes.split_first() {
    Some((0, file)) => memtrace::hostile::trace(file),
    Some((_, records)) => memtrace::hostile::records(records),
    None => {}
});
