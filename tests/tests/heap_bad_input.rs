//! `memtrace heap` on what is no heap dump, or not all of one: one clear line, a status that scripts can rely on.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use memtrace_tests::{
    heap_dump::{HeapDump, HeapReport, heap, number},
    hprof::Format,
    memtrace::{Memtrace, Outcome},
    skip::{has_tool, skip},
};
use tempfile::TempDir;

/// It failed, with one line that says why and prints nothing else to stdout.
fn assert_refused(outcome: &Outcome, part: &str, what: &str) {
    assert_eq!(outcome.code(), Some(2), "{what}: {}", outcome.stderr);
    assert_eq!(outcome.stdout, "", "{what}");
    let errors = outcome.stderr.lines().filter(|line| line.starts_with("memtrace: ")).count();
    assert_eq!(errors, 1, "{what}: {}", outcome.stderr);
    assert!(outcome.stderr.contains(part), "{what}: `{part}` is not in: {}", outcome.stderr);
    assert!(!outcome.stderr.contains("panicked"), "{what}: {}", outcome.stderr);
}

/// Bytes that look random.
fn noise(n: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    (0..n).map(|_| next()).collect()
}

/// What is no file, no dump, or may not be read, is refused by its name.
#[test]
fn refused() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("empty"), "").unwrap();
    fs::write(path("noise"), noise(100_000)).unwrap();
    fs::write(path("text"), "JAVA PROFILE 1.0.2, or so one reads").unwrap();
    fs::write(path("header"), b"JAVA PROFILE 1.0.2\0\0\0\0\x07\0\0\0\0\0\0\0\0").unwrap();
    for name in ["missing", "empty", "noise", "text", "header"] {
        assert_refused(&heap(&[], &path(name)), name, name);
    }
    assert_refused(&heap(&[], folder.path()), "directory", "a directory");
}

/// A dump holds passwords: it has its owner's rights only, and who may not read it is told so.
#[test]
fn no_permission() {
    if !has_tool("setpriv") {
        return skip("heap_bad_input::no_permission", "no setpriv");
    }
    let (dump, _) = HeapDump::made_up(Format::JDK_17, 100_000);
    fs::set_permissions(dump.path(), fs::Permissions::from_mode(0o600)).unwrap();
    let folder = dump.path().parent().unwrap().to_owned();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    let outcome = Memtrace::of_nobody().arg("heap").arg(dump.path()).run();
    assert_refused(&outcome, "ermission denied", "a dump of root's");
}

/// Of a dump that was cut what is there is read, a warning says so, and the status tells it from a whole one; the less is
/// there, the fewer objects.
#[test]
fn truncated() {
    let (dump, truth) = HeapDump::made_up(Format::JDK_17, 150_000);
    let bytes = fs::read(dump.path()).unwrap();
    let mut before = truth.n_objects;
    for tenths in (3..10).rev() {
        let cut = HeapDump::of_bytes(&bytes[..bytes.len() * tenths / 10]);
        let outcome = heap(&[], &cut.path());
        assert_eq!(outcome.code(), Some(3), "{tenths}: {}", outcome.stderr);
        let report = HeapReport::parse(&outcome.stdout);
        assert_eq!(report.value()["dump"]["truncated"], true, "{tenths}");
        let objects = number(&report.value()["totals"], "objects");
        assert!(objects > 0 && objects < before, "{tenths}: {objects} of {before}");
        assert!(outcome.stderr.contains("in part"), "{tenths}: {}", outcome.stderr);
        before = objects;
    }
}

/// However short a prefix, and whatever byte of its beginning is another: an answer or one line, and never a panic.
#[test]
fn damaged() {
    let (dump, _) = HeapDump::made_up(Format::AGENT_32_BITS, 110_000);
    let bytes = fs::read(dump.path()).unwrap();
    let check = |bytes: &[u8], what: &str| {
        let damaged = HeapDump::of_bytes(bytes);
        assert_not_panicked(&damaged.path(), what);
    };
    for length in (0..400).step_by(7) {
        check(&bytes[..length], &format!("the first {length} bytes"));
    }
    for (i, at) in (0..bytes.len()).step_by(bytes.len() / 60).enumerate() {
        let mut damaged = bytes.clone();
        let end = damaged.len().min(at + 16);
        damaged[at..end].copy_from_slice(&noise(64)[i % 48..][..end - at]);
        check(&damaged, &format!("noise at {at}"));
    }
}

fn assert_not_panicked(path: &Path, what: &str) {
    let outcome = heap(&[], path);
    let code = outcome.code();
    assert!([Some(0), Some(2), Some(3)].contains(&code), "{what}: {code:?}: {}", outcome.stderr);
    assert!(!outcome.stderr.contains("panicked"), "{what}: {}", outcome.stderr);
    if code == Some(2) {
        let errors = outcome.stderr.lines().filter(|line| line.starts_with("memtrace: ")).count();
        assert_eq!(errors, 1, "{what}: {}", outcome.stderr);
    }
}
