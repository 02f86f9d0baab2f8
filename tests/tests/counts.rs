//! What memtrace counts is what the fixtures say they did.

use memtrace_tests::{
    bpftrace::SYSCALLS, fixtures::built, memtrace::Memtrace, strace, subject::Subject, turn,
    watch::watch,
};

/// Every kind of call is counted, failing ones apart, and the bytes follow every partial unmap,
/// replacement, move, growth and break.
#[test]
fn every_call() {
    let _turn = turn::together();
    let watched = watch("map_ops", &[], &[]);
    for call in SYSCALLS {
        assert_eq!(watched.report.events(call), watched.said.number(call), "{call}");
        let failed = watched.said.number(&format!("{call}_failed"));
        assert_eq!(watched.report.failed(call), failed, "failed {call}");
    }
    let thread = watched.report.thread(watched.pid);
    assert_eq!(thread.mapped, watched.said.number("mapped"));
    assert_eq!(thread.live, watched.said.number("live"));
    assert!(watched.report.lost().is_empty(), "{:?}", watched.report.lost());
    let n_events: u64 = SYSCALLS.iter().map(|call| watched.report.events(call)).sum();
    assert_eq!(watched.report.stacks_that_are("complete"), n_events);
}

/// The bytes of the stacks of a metric add up to those of the threads.
#[test]
fn stacks_add_up() {
    let _turn = turn::together();
    for fixture in ["map_ops", "threads", "reuse"] {
        let report = watch(fixture, &[], &[]).report;
        let threads = report.threads();
        // (metric, sum over threads)
        let cases = [
            ("mapped", threads.iter().map(|thread| thread.mapped).sum::<u64>()),
            ("mapped-live", threads.iter().map(|thread| thread.live).sum()),
        ];
        for (metric, sum) in cases {
            let stacks = report.stacks(metric);
            let total: u64 = stacks.iter().map(|stack| stack.value).sum();
            assert_eq!(total, sum, "{fixture} {metric}");
        }
    }
}

/// Addresses that one thread gives back and another one gets are not confused.
#[test]
fn reused_addresses() {
    // Beside others a call may take longer than events are held back to put them in order.
    let _turn = turn::alone();
    let watched = watch("reuse", &["8", "1000"], &[]);
    let (said, report) = (&watched.said, &watched.report);
    assert!(report.lost().is_empty(), "{:?}", report.lost());
    assert_eq!(report.events("mmap"), said.number("mmap"));
    assert_eq!(report.events("munmap"), said.number("munmap"));
    let live = said.numbers_of("thread", "live");
    for (tid, mapped) in said.numbers_of("thread", "mapped") {
        let thread = report.thread(tid);
        assert_eq!((thread.mapped, thread.live), (mapped, live[&tid]), "thread {tid}");
    }
}

/// A launched program is traced from its first instruction: the same calls as strace sees.
#[test]
fn from_the_first_instruction() {
    let _turn = turn::together();
    // (fixture, arguments)
    let cases: [(&str, &[&str]); 5] = [
        ("stack_deep", &[]),
        ("stack_deep_static", &[]),
        ("threads", &[]),
        ("forks", &["children", "3"]),
        ("forks", &["exec"]),
    ];
    for (fixture, arguments) in cases {
        let program = built(fixture);
        let expected = strace::counts(&program, arguments);
        let report = Memtrace::with_json().command(&program, arguments).run().report();
        for call in SYSCALLS {
            let n = expected.get(call).copied().unwrap_or_default();
            assert_eq!(report.events(call), n, "{fixture} {call}");
        }
        assert!(report.lost().is_empty(), "{fixture} {:?}", report.lost());
        assert_eq!(report.stacks_that_are("broken"), 0, "{fixture} {arguments:?}");
    }
}

/// What was mapped before the attach is told apart, and giving it back takes from nobody.
#[test]
fn before() {
    let _turn = turn::together();
    let subject = Subject::ready(&built("map_ops"), &[]);
    let accessible = memtrace_tests::maps::accessible_bytes(subject.pid());
    let outcome = Memtrace::of_process(subject.pid()).attached().stop();
    let report = outcome.report();
    assert_eq!(report.value()["trace"]["before_bytes"].as_u64(), Some(accessible));
    for thread in report.threads() {
        assert_eq!((thread.mapped, thread.live), (0, 0), "{thread:?}");
    }
}

/// Functions that begin with endbr64 are probed behind it: each call is seen once, with its arguments and its return.
#[test]
fn guarded_functions() {
    let _turn = turn::together();
    let watched = watch("guarded_zip", &["3000", "2900"], &[]);
    for kind in ["inflater_init", "inflater_end"] {
        assert_eq!(watched.report.events(kind), watched.said.number(kind), "{kind}");
    }
    let thread = watched.report.thread(watched.pid);
    assert_eq!((thread.inflaters, thread.inflaters_live), (3000, 100));
    for stack in watched.report.stacks("inflaters") {
        let innermost = &stack.frames[stack.frames.len() - 2..];
        assert_eq!(innermost, ["main", "Java_java_util_zip_Inflater_init"], "{stack:?}");
        assert_eq!(stack.quality, "complete", "{stack:?}");
    }
}

/// zlib's own functions are counted when asked for, and are not when not.
#[test]
fn zlib() {
    let _turn = turn::together();
    let arguments = ["40", "15", "20", "20"];
    let watched = watch("zlib_user", &arguments, &["--zlib"]);
    for kind in ["inflate_init", "inflate_end", "deflate_init", "deflate_end"] {
        assert_eq!(watched.report.events(kind), watched.said.number(kind), "{kind}");
    }
    let thread = watched.report.thread(watched.pid);
    assert_eq!((thread.inflaters, thread.inflaters_live), (60, 25));

    let watched = watch("zlib_user", &arguments, &[]);
    assert_eq!(watched.report.events("inflate_init"), 0);
}
