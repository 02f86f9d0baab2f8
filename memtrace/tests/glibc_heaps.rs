//! The heap of glibc's malloc, read from outside, against what malloc itself counts and what a trim really gives back.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod glibc;

use std::process::Command;

use glibc::{SHAPES, Shaped, check_sums};
use memtrace_tests::fixtures::built;

/// What `malloc_trim(0)` may differ by from what was predicted.
const MAX_TRIM_ERROR: u64 = 64 << 10;

/// In every shape, the sums are malloc's own to the byte, and a trim returns what was predicted.
#[test]
fn shapes() {
    let program = built("heap_shapes");
    let failed: Vec<String> =
        SHAPES.iter().filter_map(|shape| check(&mut Command::new(&program), shape)).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// What is wrong with what was read of `program` in this shape.
fn check(program: &mut Command, shape: &(&str, &str)) -> Option<String> {
    let mut shaped = Shaped::start(program, shape);
    let scan = shaped.scan();
    let summed = check_sums(&scan, &shaped.said);
    let (predicted, returned) = (scan.malloc.trim_returns_bytes(), shaped.trim());
    let is_predicted = predicted.abs_diff(returned) <= MAX_TRIM_ERROR;
    eprintln!(
        "{shape:?}: predicted {predicted} returned {returned}, {:?}, {:?}",
        scan.took, scan.malloc.losses
    );
    let summed = match summed {
        Ok(()) if is_predicted => return None,
        Ok(()) => "the sums are right".to_owned(),
        Err(error) => error,
    };
    Some(format!(
        "{shape:?}: predicted {predicted}, returned {returned}; {summed}: {:#x?}",
        scan.malloc
    ))
}
