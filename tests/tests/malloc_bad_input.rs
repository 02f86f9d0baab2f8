//! `--malloc exact` where programs do what they should not, and where not everything can be seen: exact counts of what is
//! seen, a clear line for what is not, and nobody disturbed.

use std::{
    fs,
    process::{Command, Stdio},
};

use memtrace_tests::{
    allocators::{GLIBC, STRIPPED, one, two},
    bpftrace,
    exactness::{
        Sum, asked, assert_all, assert_calls, assert_exact, assert_stacks, assert_threads, left,
    },
    fixtures::built,
    memtrace::Memtrace,
    said::Said,
    subject::Subject,
    turn,
    watch::{watch, watch_subject},
};

const EXACT: [&str; 2] = ["--malloc", "exact"];

/// Blocks of no bytes are blocks, a realloc to none gives one back or not, as the allocator likes; free of nothing is none.
#[test]
fn no_bytes() {
    let _turn = turn::together();
    for allocator in two("malloc_bad_input::no_bytes") {
        let watched = watch_subject(allocator.subject("blocks_edges", &["zero"]), &EXACT);
        let (said, report) = (&watched.said, &watched.report);
        let about = format!("{}: {}", allocator.name, report.about_malloc());
        assert!(report.lost_events().is_empty(), "{about}");
        assert_calls(said, report, &about);
        assert_threads(said, report, &about);
        // Blocks of no bytes are counted, and no stack has any bytes of them.
        assert_all(said, report, &about);
        assert_eq!(left(report, "by_malloc").bytes, 0, "{about}");
    }
}

/// What nobody can have: calls that fail are counted apart, and leave the block that was to be changed as it was.
#[test]
fn nearly_all_memory() {
    let _turn = turn::together();
    for allocator in one("malloc_bad_input::nearly_all_memory") {
        let watched = watch_subject(allocator.subject("blocks_edges", &["huge"]), &EXACT);
        assert_eq!(watched.said.number("realloc_failed"), 5);
        assert_exact(allocator.name, &watched);
    }
}

/// A block that is given back twice is given back once; the other time is told apart.
#[test]
fn given_back_twice() {
    let _turn = turn::together();
    // From its first instruction on nothing was there before, so it is unknown what was given back.
    let launched = Memtrace::with_json().args(EXACT).command(built("blocks_edges"), &["twice"]);
    let outcome = launched.run();
    let said: Said = outcome.stdout.lines().collect();
    let report = outcome.report();
    let about = report.about_malloc();
    assert_stacks(&said, &report, &about);
    assert_eq!(report.malloc("frees_unknown"), said.number("twice"), "{about}");
    assert_eq!(report.malloc("freed_before"), 0, "{about}");

    let watched = watch("blocks_edges", &["twice"], &EXACT);
    let (said, report) = (&watched.said, &watched.report);
    let about = report.about_malloc();
    assert_calls(said, report, &about);
    assert_stacks(said, report, &about);
    let apart = report.malloc("freed_before") + report.malloc("frees_unknown");
    assert_eq!(apart, said.number("twice"), "{about}");
}

/// A program that its C library ends for what it did ends as it would have, and is reported.
#[test]
fn aborted() {
    let _turn = turn::together();
    let alone =
        Command::new(built("blocks_edges")).arg("abort").stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8(alone.stderr).unwrap();
    assert!(said.contains("double free"), "{said}");
    let launched = Memtrace::with_json().args(EXACT).command(built("blocks_edges"), &["abort"]);
    let outcome = launched.run();
    assert_eq!(outcome.code(), Some(128 + libc::SIGABRT), "{}", outcome.stderr);
    assert!(outcome.stderr.contains(said.trim()), "{}", outcome.stderr);
    let report = outcome.report_anyhow();
    assert_eq!(asked(&report, "by_malloc").n, 1, "{}", report.about_malloc());
    assert_eq!(left(&report, "by_malloc"), Sum::default(), "{}", report.about_malloc());
    assert!(report.lost_events().is_empty(), "{}", report.about_malloc());
}

/// A child's frees, of its copies, end no block of its parent's; what it got ends with it.
#[test]
fn forked_child() {
    let _turn = turn::together();
    // (attached, options, whether the child is seen)
    let cases: [(bool, &[&str], bool); 3] =
        [(false, &[], true), (true, &[], false), (true, &["--follow"], true)];
    for (is_attached, options, follows) in cases {
        let options = [&EXACT, options].concat();
        let (said, report) = if is_attached {
            let watched = watch("blocks_fork", &[], &options);
            (watched.said, watched.report)
        } else {
            let launched = Memtrace::with_json().args(&options).command(built("blocks_fork"), &[]);
            let outcome = launched.run();
            (outcome.stdout.lines().collect(), outcome.report())
        };
        let about = format!("{is_attached} {options:?} {}", report.about_malloc());
        // A child that is not there yet can't be probed, which is said.
        let lost = report.lost_events();
        assert!(lost.keys().eq(follows.then_some("probed_late")), "{lost:?} {about}");
        let child = said.number("child") as u32;
        let parent = *said.numbers_of("thread", "got").keys().find(|&&tid| tid != child).unwrap();
        let number = |what, tid| said.numbers_of("thread", what)[&tid];
        // The child's blocks are gone with it, and the parent's are as the parent left them.
        let live = ["by_malloc", "by_realloc"].map(|function| left(&report, function));
        let live = Sum { n: live[0].n + live[1].n, bytes: live[0].bytes + live[1].bytes };
        let want = Sum { n: number("live", parent), bytes: number("live_bytes", parent) };
        assert_eq!(live, want, "{about}");
        let of_child = if follows { number("got", child) } else { 0 };
        assert_eq!(asked(&report, "by_malloc").n, 100 + of_child, "{about}");
        let inherited = if follows { said.number("inherited") } else { 0 };
        assert_eq!(report.malloc("freed_inherited"), inherited, "{about}");
        assert_eq!(report.malloc("frees_unknown"), 0, "{about}");
        assert_eq!(report.malloc("frees_missed"), 0, "{about}");
    }
}

/// A library is replaced while it is traced, and its successor loaded: both are seen.
#[test]
fn replaced_library() {
    let _turn = turn::together();
    let folder = tempfile::TempDir::new().unwrap();
    let [library, next] = ["library.so", "next.so"].map(|name| folder.path().join(name));
    for file in [&library, &next] {
        fs::copy(built("own_malloc.so"), file).unwrap();
    }
    let arguments = [library.to_str().unwrap(), next.to_str().unwrap()];
    let watched = watch("blocks_replaced", &arguments, &EXACT);
    let (said, report) = (&watched.said, &watched.report);
    for function in ["use_first", "use_replaced", "use_next"] {
        let asked = asked(report, function).bytes;
        assert_eq!(asked, said.number(function), "{function} {}", report.about_malloc());
        let left = left(report, function).bytes;
        assert_eq!(left, said.number(function) / 2, "{function} {}", report.about_malloc());
    }
    assert!(report.lost_events().is_empty(), "{}", report.about_malloc());
}

/// A library whose file is gone before anybody watches is found all the same.
#[test]
fn library_replaced_before() {
    let _turn = turn::together();
    let folder = tempfile::TempDir::new().unwrap();
    let [library, next] = ["library.so", "next.so"].map(|name| folder.path().join(name));
    for file in [&library, &next] {
        fs::copy(built("own_malloc.so"), file).unwrap();
    }
    let mut command = Command::new(built("blocks"));
    command.env("LD_PRELOAD", &library).args(["2", "30", "pvalloc", "--wait"]);
    let subject = Subject::start(&mut command);
    // What lies there now is not what the program runs.
    fs::copy(built("libupcalls.so"), &next).unwrap();
    fs::rename(&next, &library).unwrap();
    let watched = watch_subject(subject, &EXACT);
    assert_exact("replaced before", &watched);
}

/// A program without a symbol that holds its allocator: it is said that its blocks can't be seen, and why.
#[test]
fn static_and_stripped() {
    let _turn = turn::together();
    let watched = watch_subject(STRIPPED.subject("blocks", &["2", "20"]), &EXACT);
    let report = &watched.report;
    let notes = report.value()["notes"].to_string();
    assert!(notes.contains("malloc") && notes.contains("blocks"), "{notes}");
    assert!(notes.contains("symbol"), "{notes}");
    assert!(watched.outcome.stderr.contains("symbol"), "{}", watched.outcome.stderr);
    // What was not seen is not 0.
    assert_eq!(report.events("malloc"), 0, "{}", report.about_malloc());
    assert!(report.value()["trace"]["malloc"]["live_bytes"].as_u64() != Some(0), "{notes}");
    // What the kernel knows is seen as always.
    assert!(report.events("mmap") + report.events("brk") > 0, "{}", report.about_malloc());
}

/// Another tool's probes on the same functions: both see every call.
#[test]
fn probes_of_another_tool() {
    let _turn = turn::together();
    let subject = GLIBC.subject("blocks", &["2", "40"]);
    let libc = fs::read_to_string(format!("/proc/{}/maps", subject.pid())).unwrap();
    let libc = libc.lines().filter_map(|line| line.split_whitespace().nth(5));
    let libc = libc.into_iter().find(|path| path.contains("/libc.so")).unwrap().to_owned();
    let functions = ["malloc", "free", "calloc"];
    let counting = bpftrace::count_functions(subject.pid(), libc.as_ref(), &functions);
    let watched = watch_subject(subject, &EXACT);
    let counted = counting.stop();
    assert_exact("probed by bpftrace, too", &watched);
    // (function, calls that the other one sees at its entry, also those of its own)
    for function in functions {
        let said = watched.said.number(function);
        assert!(counted[function] >= said, "{function}: {said} {counted:?}");
    }
}

/// A mode that is none is refused.
#[test]
fn no_such_mode() {
    let _turn = turn::together();
    let outcome = Memtrace::new().args(["--pid", "1", "--malloc", "moods"]).run();
    assert_eq!(outcome.code(), Some(2), "{}", outcome.stderr);
    for part in ["moods", "off", "sampled", "exact"] {
        assert!(outcome.stderr.contains(part), "{part}: {}", outcome.stderr);
    }
}

/// What a report says of a program that calls no allocator at all: that it called none.
#[test]
fn no_calls() {
    let _turn = turn::together();
    let watched = watch("map_ops", &[], &EXACT);
    let report = &watched.report;
    let about = report.about_malloc();
    let none: Said =
        ["thread.1.got 0", "thread.1.bytes 0", "thread.1.live 0", "thread.1.live_bytes 0"]
            .into_iter()
            .collect();
    assert_all(&none, report, &about);
    assert_eq!(report.events("mmap"), watched.said.number("mmap"), "{about}");
}
