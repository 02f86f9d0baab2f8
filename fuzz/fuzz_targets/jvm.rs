//! The reader of a JVM's memory, on recorded JVMs that the input damages.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use memtrace::{
    hostile::{self, Damage},
    jvm::Capture,
};

/// One for each recorded JVM, and where its library begins.
static CAPTURES: LazyLock<Vec<(Capture, u64)>> = LazyLock::new(|| {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../memtrace/tests/jvm_captures");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .expect("the captures come with the sources")
        .map(|entry| entry.expect("the folder is readable").path())
        .filter(|path| path.extension().is_none_or(|end| end != "txt"))
        .collect();
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let text = std::fs::read_to_string(format!("{}.txt", path.display())).ok()?;
        let start = text.lines().next()?.strip_prefix("libjvm 0x")?;
        let capture = Capture::unpack(&std::fs::read(path).ok()?).ok()?;
        Some((capture, u64::from_str_radix(start, 16).ok()?))
    };
    paths.iter().map(|path| read(path).expect("captures are sound")).collect()
});

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, damage)) = bytes.split_first() else { return };
    let (mut capture, libjvm) = CAPTURES[usize::from(first >> 1) % CAPTURES.len()].clone();
    Damage(damage).of_capture(&mut capture);
    hostile::jvm(capture, libjvm, first & 1 == 1);
});
