//! The heap of glibc's malloc, read from outside, against what malloc itself counts and what a trim really gives back.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod glibc;

use std::process::Command;

use glibc::{SHAPES, check};
use memtrace_tests::fixtures::built;

/// In every shape, the sums are malloc's own to the byte, and a trim returns what was predicted.
#[test]
fn shapes() {
    let program = built("heap_shapes");
    let failed: Vec<String> =
        SHAPES.iter().filter_map(|shape| check(&mut Command::new(&program), shape)).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
