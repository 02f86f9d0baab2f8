//! A trace has the footprint of its begin and its end, and so has a report of it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use memtrace_tests::{
    fixtures::built,
    memtrace::{Memtrace, Outcome},
    subject::Subject,
    turn,
};
use serde_json::Value;

fn sum_of_rows(footprint: &Value) -> u64 {
    let rows = footprint["rows"].as_array().unwrap();
    rows.iter().map(|row| row["resident_bytes"].as_u64().unwrap()).sum()
}

/// Rows add up at both moments and what came in between is in them; the trace file and `--diff` say the same; and a heap
/// that is kept names the stack of its last block.
#[test]
fn begin_and_end() {
    let _turn = turn::together();
    let mut subject = Subject::ready(&built("heap_shapes"), &["pinned"]);
    let tracing = Memtrace::of_process(subject.pid()).recorded().args(["--malloc", "exact"]);
    let tracing = tracing.attached();
    let _said = subject.finish();
    let outcome = tracing.stop();
    // It trims its heap now, and says so.
    let _said = subject.finish();
    assert!(subject.leave().success());
    let report = outcome.report();
    let [first, last] = ["first_footprint", "footprint"].map(|key| report.value()[key].clone());
    for footprint in [&first, &last] {
        assert_eq!(footprint["rss_bytes"], sum_of_rows(footprint), "{footprint}");
    }
    assert!(first["seconds"].as_f64().unwrap() < last["seconds"].as_f64().unwrap());
    let arenas = last["malloc"]["arenas"].as_array().unwrap().len();
    assert!(arenas > first["malloc"]["arenas"].as_array().unwrap().len(), "{last}");

    let again = Memtrace::report_of(&outcome.file("trace.mt")).run();
    for (key, live) in [("first_footprint", &first), ("footprint", &last)] {
        assert_eq!(&again.report().value()[key], live, "{key}");
    }
    for outcome in [&outcome, &again] {
        assert_told(outcome);
    }
    let json = outcome.file("report.json");
    let diff = Memtrace::new().args(["footprint", "--diff"]).args([&json, &json]).run();
    assert_eq!(diff.code(), Some(0), "{}", diff.stderr);
    assert!(diff.stdout.contains("resident in all"), "{}", diff.stdout);
}

fn assert_told(outcome: &Outcome) {
    let screen = &outcome.stdout;
    let after = screen.split_once("\nResident memory after ").unwrap().1;
    for said in ["  resident   share  what", "malloc, in use", "resident in all", "  changed     +"]
    {
        assert!(after.contains(said), "{said}: {screen}");
    }
    let pinned = after.split_once("can't go before ").unwrap().1;
    assert!(pinned.lines().nth(1).unwrap().contains("malloc ←"), "{screen}");
}

/// A process that ends by itself has none of its end: nobody could look any more. Nor has one of another user's, and it is
/// said why.
#[test]
fn ended_by_itself() {
    let _turn = turn::together();
    let outcome = Memtrace::with_json().command(built("map_ops"), &[]).run();
    assert_eq!(outcome.code(), Some(0), "{}", outcome.stderr);
    assert!(outcome.report().value().get("footprint").is_none());
    assert!(!outcome.stderr.contains("Resident memory"), "{}", outcome.stderr);
}

/// A report at the moment has that moment's.
#[test]
fn when_asked() {
    let _turn = turn::together();
    let mut subject = Subject::ready(&built("map_ops"), &[]);
    let tracing = Memtrace::of_process(subject.pid()).attached();
    tracing.signal(libc::SIGUSR1);
    tracing.await_part("Resident memory after");
    let _said = subject.finish();
    let outcome = tracing.stop();
    assert!(subject.leave().success());
    let n = outcome.stderr.matches("\nResident memory after ").count();
    assert_eq!(n, 1, "{}", outcome.stderr);
    assert!(fs::metadata(outcome.file("report.json")).is_ok());
}
