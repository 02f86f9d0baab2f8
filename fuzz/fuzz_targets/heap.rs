//! The reader of glibc's heap, on a recorded heap that the input damages: its memory, or what is known of its process.
#![no_main]

use std::{fs, path::Path, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use memtrace::{
    hostile::{self, Damage},
    jvm::Capture,
};

/// The recorded heap, and what is known of its process.
static HEAP: LazyLock<(Capture, Vec<u8>)> = LazyLock::new(|| {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../memtrace/tests/heap_captures/glibc-236");
    let read = |path: &Path| fs::read(path).expect("the recording comes with the sources");
    let capture = Capture::unpack(&read(&path)).expect("recordings are sound");
    (capture, read(&path.with_extension("txt")))
});

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, damage)) = bytes.split_first() else { return };
    let (mut capture, mut text) = HEAP.clone();
    if first & 2 == 0 {
        Damage(damage).of_capture(&mut capture);
    } else {
        Damage(damage).of_bytes(&mut text);
    }
    hostile::heap(capture, &text, first & 1 == 1);
});
