//! The finder of allocators in files with code.
#![no_main]

use std::io::Write;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut file = tempfile::tempfile().expect("there is room for a small file");
    file.write_all(bytes).expect("there is room for a small file");
    memtrace::hostile::allocators(&file);
});
