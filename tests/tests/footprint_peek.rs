//! `memtrace footprint --peek`: what lies in free pages, against what a fixture has put there.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use memtrace_tests::{
    fixtures::built,
    footprint::{Footprint, Stopped, footprint, kernels_rss},
    java::classes,
    said::Said,
    subject::Subject,
    turn,
};
use serde_json::Value;

const KINDS: [&str; 7] =
    ["class_files", "zip_members", "text", "packed_or_encrypted", "zeros", "other", "pointers"];
/// Of each kind, pages of free chunks that hold little of a block: what was free before, and the end of a top.
const STRAY_PAGES: u64 = 2;

fn subject() -> (Subject, Said) {
    let class = classes().join("Fixture.class");
    let bytes = fs::metadata(&class).unwrap().len();
    assert!(bytes < 4096, "each page is to hold the beginning of one: {bytes}");
    let mut subject = Subject::ready(&built("heap_contents"), &[class.to_str().unwrap()]);
    let said = subject.finish();
    (subject, said)
}

/// Every page is looked at and is of the kind that was put there; the pages are those of the rows; to look makes nothing
/// resident.
#[test]
fn known_contents() {
    let _turn = turn::together();
    let (subject, said) = subject();
    let _stopped = Stopped::new(&subject);
    let before = kernels_rss(subject.pid());
    let footprint = Footprint::with(subject.pid(), &["--peek"]);
    assert_eq!(kernels_rss(subject.pid()), before);
    footprint.assert_adds_up("--peek");
    let contents = &footprint.0["contents"];
    let number = |value: &Value| value.as_u64().unwrap();
    let rows = footprint.row("malloc_returnable") + footprint.row("malloc_kept");
    assert_eq!(number(&contents["pages"]) * 4096, rows, "{}", footprint.0);
    assert_eq!(contents["pages"], contents["looked_at_pages"], "{contents}");
    let kinds = contents["kinds"].as_array().unwrap();
    let all: u64 = kinds.iter().map(|it| number(&it["looked_at_pages"])).sum();
    assert_eq!(all, number(&contents["pages"]), "{contents}");
    for kind in KINDS {
        let content = kinds.iter().find(|it| it["kind"] == kind);
        let content = content.unwrap_or_else(|| panic!("{kind} is missing: {contents}"));
        let (found, want) = (number(&content["looked_at_pages"]), said.number(kind));
        assert!(
            (want..=want + STRAY_PAGES).contains(&found),
            "{kind}: {found} of {want}: {contents}"
        );
        assert_eq!(number(&content["bytes"]), found * 4096, "{kind}");
    }
    assert!(footprint.row("malloc_kept") >= said.number("pointers") * 4096, "{}", footprint.0);
    let samples = |kind| {
        let content = kinds.iter().find(|it| it["kind"] == kind).unwrap();
        content["samples"].to_string()
    };
    assert!(samples("zip_members").contains("dir/member-x.bin"), "{contents}");
    assert!(samples("text").contains("password"), "{contents}");
    assert!(samples("class_files").contains("java/"), "{contents}");
    assert_eq!(samples("packed_or_encrypted"), "[]", "{contents}");
}

/// Nothing is looked into unasked; on a terminal nothing of what is found acts; and the help says what it is.
#[test]
fn asked_for() {
    let _turn = turn::together();
    let (subject, _) = subject();
    let plain = footprint(subject.pid(), &["--json", "-"]);
    assert!(Footprint::told(&plain).0.get("contents").is_none(), "{}", plain.stdout);
    assert!(!plain.stdout.contains("hunter2"), "{}", plain.stdout);
    let text = footprint(subject.pid(), &["--peek"]).stdout;
    assert!(text.contains("`password=hunter2"), "{text}");
    let acts = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
    assert!(!text.contains(acts), "{text:?}");
    let help = memtrace_tests::memtrace::Memtrace::new().args(["footprint", "--help"]).run();
    assert!(help.stdout.contains("--peek") && help.stdout.contains("secrets"), "{}", help.stdout);
}

/// Of another allocator than glibc's nothing can be said, and that is told.
#[test]
fn another_allocator() {
    let _turn = turn::together();
    let subject = Subject::ready(&built("stack_deep_static"), &[]);
    let footprint = Footprint::with(subject.pid(), &["--peek"]);
    footprint.assert_adds_up("static");
    let is_told = footprint.0.get("contents").is_some() || footprint.notes().contains("--peek");
    assert!(is_told, "{}", footprint.0);
}
