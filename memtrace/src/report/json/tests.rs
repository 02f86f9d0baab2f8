//! The whole document, as it is written.

use serde_json::Value;

use super::*;
use crate::report::{
    escape,
    sample::{recording, with_blocks, with_hostile_names, with_sampled_blocks},
};

fn json(recording: &Recording) -> String {
    let mut text = Vec::new();
    write(recording, &mut text).unwrap();
    String::from_utf8(text).unwrap()
}

#[test]
fn document() {
    let document = json(&recording());
    let expected = include_str!("expected.json");
    assert_eq!(document, expected, "\n--- written ---\n{document}");
}

/// With the calls of malloc there are more keys, and the others stay as they are.
#[test]
fn blocks() {
    let document = json(&with_blocks());
    let expected = include_str!("expected_blocks.json");
    assert_eq!(document, expected, "\n--- written ---\n{document}");
}

/// What threads counted themselves is told exactly, and samples are no calls.
#[test]
fn sampled_blocks() {
    let value: Value = serde_json::from_str(&json(&with_sampled_blocks())).unwrap();
    let malloc = &value["trace"]["malloc"];
    assert_eq!((malloc["allocations"].as_u64(), malloc["given_back"].as_u64()), (Some(5), Some(3)));
    let threads = value["threads"].as_array().unwrap();
    for (key, want) in [("mallocs", [3, 2]), ("malloc_bytes", [5000, 3000]), ("events", [0, 0])] {
        let seen: Vec<_> = threads.iter().map(|thread| thread[key].as_u64().unwrap()).collect();
        assert_eq!(seen, want, "{key}");
    }
    let events = &value["trace"]["events"];
    assert!(events.get("mmap").is_some(), "{events}");
    assert!(events.get("malloc").or(events.get("free")).is_none(), "{events}");
}

/// Names come through as they are, in a document that does nothing to a terminal.
#[test]
fn hostile_names() {
    let document = json(&with_hostile_names());
    assert!(!document.contains(|c| c != '\n' && escape::is_unprintable(c)), "{document}");
    let value: Value = serde_json::from_str(&document).unwrap();
    // (where, what)
    let cases = [
        (
            "/target/command",
            serde_json::json!(["\u{1b}]0;owned\u{7}", "</title><script>", "\u{202e}"]),
        ),
        ("/target/jvm", serde_json::json!({ "version": "17\u{9b}31m" })),
        ("/trace/lost", serde_json::json!({ "ring\n_full": 3 })),
        ("/notes", serde_json::json!(["a\nnote\u{1b}[2J"])),
        ("/threads/0/name", serde_json::json!("a;b\n<script>alert(1)</script>\\xff")),
        ("/stacks/0/frames", serde_json::json!(["x;y\u{1b}[31m\n\"><script>", "end ]]> 12 34"])),
    ];
    for (place, expected) in cases {
        assert_eq!(value.pointer(place), Some(&expected), "{place}");
    }
}

/// What was not measured is not there, and what is under way is not complete.
#[test]
fn absent() {
    let value: Value = serde_json::from_str(&json(&Recording::default())).unwrap();
    for place in [
        "/target/allocator",
        "/target/jvm",
        "/trace/end",
        "/trace/malloc",
        "/self",
        "/findings",
        "/footprint",
    ] {
        assert_eq!(value.pointer(place), None, "{place}");
    }
    assert_eq!(value.pointer("/trace/complete"), Some(&serde_json::json!(false)));
    assert_eq!(value.pointer("/trace/events/inflate_init"), None);
}
