//! The whole document, as it is written.

use serde_json::{Value, json};

use super::*;
use crate::report::sample::{recording, with_hostile_names};

fn written(recording: &Recording) -> String {
    let mut out = Vec::new();
    write(recording, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn document() {
    let document = written(&recording());
    let expected = include_str!("expected.json");
    assert_eq!(document, expected, "\n--- written ---\n{document}");
}

/// Names come through as they are, in a document that does nothing to a terminal.
#[test]
fn hostile_names() {
    let document = written(&with_hostile_names());
    assert!(!document.contains(|c| c != '\n' && escape::is_unprintable(c)), "{document}");
    let value: Value = serde_json::from_str(&document).unwrap();
    // (where, what)
    let cases = [
        ("/target/command", json!(["\u{1b}]0;owned\u{7}", "</title><script>", "\u{202e}"])),
        ("/target/jvm", json!({ "version": "17\u{9b}31m" })),
        ("/trace/lost", json!({ "ring\n_full": 3 })),
        ("/notes", json!(["a\nnote\u{1b}[2J"])),
        ("/threads/0/name", json!("a;b\n<script>alert(1)</script>\\xff")),
        ("/stacks/0/frames", json!(["x;y\u{1b}[31m\n\"><script>", "end ]]> 12 34"])),
    ];
    for (place, expected) in cases {
        assert_eq!(value.pointer(place), Some(&expected), "{place}");
    }
}

/// A character beyond 16 bits is two escapes.
#[test]
fn escapes() {
    let json = "\"grün \u{e0041}\u{feff}\"".to_owned();
    assert_eq!(escaped(json), "\"grün \\udb40\\udc41\\ufeff\"");
}

/// What was not measured is not there, and what is under way is not complete.
#[test]
fn absent() {
    let value: Value = serde_json::from_str(&written(&Recording::default())).unwrap();
    for place in
        ["/target/allocator", "/target/jvm", "/trace/end", "/self", "/findings", "/footprint"]
    {
        assert_eq!(value.pointer(place), None, "{place}");
    }
    assert_eq!(value.pointer("/trace/complete"), Some(&json!(false)));
    assert_eq!(value.pointer("/trace/events/inflate_init"), None);
}
