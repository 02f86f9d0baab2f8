//! `--malloc exact`: what is counted of an allocator's blocks is what the program says it did.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, process::Command, thread::sleep, time::Duration};

use memtrace_tests::{
    allocators::{Allocator, GLIBC, of_cpp, one, two, usual},
    exactness::{Sum, asked, assert_all, assert_calls, assert_exact, assert_threads, left, sum},
    fixtures::built,
    memtrace::{Memtrace, Outcome},
    report::Report,
    said::Said,
    skip::runs_all,
    subject::Subject,
    turn,
    watch::{Watched, watch, watch_subject},
};

const EXACT: [&str; 2] = ["--malloc", "exact"];

/// Each allocator with numbers of threads: `threads` by default, each number with `--all`.
fn matrix(allocators: &[Allocator], threads: &'static str) -> Vec<(Allocator, &'static str)> {
    let threads = if runs_all() { vec!["1", "2", "8", "32"] } else { vec![threads] };
    allocators.iter().flat_map(|&one| threads.iter().map(move |&n| (one, n))).collect()
}

fn watch_with(allocator: &Allocator, name: &str, arguments: &[&str]) -> Watched {
    watch_subject(allocator.subject(name, arguments), &EXACT)
}

/// Every function, every way to change a block's size, frees by another thread: with each allocator.
#[test]
fn every_function() {
    let _turn = turn::together();
    let mut cases = matrix(&usual("malloc_exact::every_function"), "3");
    // The most that was live at any time is exact where one thread works.
    cases[0].1 = "1";
    for (allocator, threads) in cases {
        let what = format!("{}, {threads} threads", allocator.name);
        let watched = watch_with(&allocator, "blocks", &[threads, "40"]);
        assert_exact(&what, &watched);
        let (said, report) = (&watched.said, &watched.report);
        assert_eq!(report.value()["trace"]["malloc"]["mode"], "exact", "{what}");
        let by_other = report.malloc("freed_by_other_thread");
        assert_eq!(by_other, said.number("by_other"), "{what}: {}", report.about_malloc());
        if threads == "1" {
            assert_eq!(report.malloc("peak_live_bytes"), said.number("peak"), "{what}");
        }
    }
}

/// The features that a trace has used.
fn features(report: &Report) -> Vec<String> {
    let features = report.value()["trace"]["features"].as_array().unwrap();
    features.iter().map(|it| it.as_str().unwrap().to_owned()).collect()
}

/// Whether the kernel probes many functions with one program, or each has links of its own: it counts the same.
#[test]
fn one_by_one_and_together() {
    let _turn = turn::together();
    let session = "uprobe_session".to_owned();
    for (options, is_session) in
        [(&EXACT[..], true), (&[EXACT[0], EXACT[1], "--single-probes"], false)]
    {
        let watched = watch("blocks", &["3", "40"], options);
        assert_exact(&format!("{options:?}"), &watched);
        let features = features(&watched.report);
        // Kernels before 6.13 have none.
        let has_sessions = kernel_release() >= (6, 13);
        assert_eq!(features.contains(&session), is_session && has_sessions, "{features:?}");
    }
}

/// Version and patch level of the running kernel.
fn kernel_release() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap());
    (parts.next().unwrap(), parts.next().unwrap())
}

/// Libraries that hand on what they are called with, found at run time, to each other and to glibc: each call counts once.
#[test]
fn handed_on() {
    let _turn = turn::together();
    let libraries =
        ["hands_on.so", "hands_on_last.so"].map(|name| built(name).display().to_string());
    let [by_call, as_last_act] = &libraries;
    for preloaded in [by_call.clone(), as_last_act.clone(), libraries.join(":")] {
        for (fixture, arguments) in
            [("blocks", &["3", "40"][..]), ("blocks_stress", &["3", "5000", "11"])]
        {
            let mut command = GLIBC.command(fixture, arguments);
            command.env("LD_PRELOAD", &preloaded).arg("--wait");
            let watched = watch_subject(Subject::start(&mut command), &EXACT);
            assert_exact(&format!("{fixture} {preloaded}"), &watched);
        }
    }
}

/// Two ways of giving back that know nothing of each other, for one address and from one place of the stack: each counts.
#[test]
fn by_two_functions_in_turn() {
    let _turn = turn::together();
    let Watched { said, report, .. } = watch("blocks_in_turn", &["500"], &EXACT);
    let about = report.about_malloc();
    assert!(report.lost_events().is_empty(), "{about}");
    assert!(said.number("at_the_same_place") > 400, "the fixture shows nothing");
    assert_eq!(asked(&report, "by_malloc").n, said.number("got"), "{about}");
    assert_eq!(left(&report, "by_malloc").n, 0, "{about}");
    for key in ["frees_unknown", "frees_missed"] {
        assert_eq!(report.malloc(key), 0, "{key}: {about}");
    }
}

/// Whatever comes, in several threads that take each other's blocks.
#[test]
fn stress() {
    let _turn = turn::alone();
    let calls = if runs_all() { "200000" } else { "5000" };
    for (allocator, threads) in matrix(&one("malloc_exact::stress"), "3") {
        let what = format!("{}, {threads} threads", allocator.name);
        let watched = watch_with(&allocator, "blocks_stress", &[threads, calls, "20231"]);
        assert_exact(&what, &watched);
    }
}

/// As many calls as an application makes in ten minutes: sums are exact also where stacks had to be left out.
#[test]
fn ten_minutes() {
    if !runs_all() {
        return;
    }
    let _turn = turn::alone();
    let watched = watch("blocks_stress", &["4", "15000000", "7"], &EXACT);
    let (said, report) = (&watched.said, &watched.report);
    let about = report.about_malloc();
    assert!(report.lost_events().is_empty(), "{about}");
    assert_calls(said, report, &about);
    assert_threads(said, report, &about);
    assert_all(said, report, &about);
}

/// Block by block: each has a stack of its own, so that each row is one block.
#[test]
fn each_block() {
    let _turn = turn::together();
    for allocator in one("malloc_exact::each_block") {
        for seed in if runs_all() { &["1", "2", "3", "4", "5"][..] } else { &["1"] } {
            let watched = watch_with(&allocator, "blocks_each", &[seed]);
            let mut rows = BTreeMap::new();
            for stack in watched.report.stacks("malloc-live") {
                let Some(number) = way(&stack.frames) else { continue };
                assert_eq!(stack.blocks, Some(1), "{}: {stack:?}", allocator.name);
                assert_eq!(rows.insert(number, stack.value), None, "{}: {stack:?}", allocator.name);
            }
            assert_eq!(rows, watched.said.numbers_of("block", "bytes"), "{}", allocator.name);
            assert_exact(allocator.name, &watched);
        }
    }
}

/// The number of the block that was got by this way of `left_way` and `right_way`.
fn way(frames: &[String]) -> Option<u32> {
    let bit = |frame: &String| match frame.as_str() {
        "left_way" => Some(0),
        "right_way" => Some(1),
        _ => None,
    };
    let bits: Vec<u32> = frames.iter().filter_map(bit).collect();
    (bits.len() == 8).then(|| bits.iter().fold(0, |number, bit| 2 * number + bit))
}

/// The C++ fixture `name` with `allocator`, up to the point where it waits to begin.
fn subject_of_cpp(allocator: &Allocator, name: &str, arguments: &[&str]) -> Subject {
    let mut command = Command::new(built(name));
    if let Some(library) = allocator.preloaded() {
        command.env("LD_PRELOAD", library);
    }
    Subject::start(command.args(arguments).arg("--wait"))
}

/// C++'s operators are seen as what libstdc++ calls for them; that an allocator's own are not seen is told.
#[test]
fn operators() {
    let _turn = turn::together();
    for allocator in of_cpp(two("malloc_exact::operators")) {
        let watched = watch_subject(subject_of_cpp(&allocator, "blocks_new", &["300"]), &EXACT);
        let (said, report) = (&watched.said, &watched.report);
        let about = format!("{}: {}", allocator.name, report.about_malloc());
        let notes = report.value()["notes"].to_string();
        assert_eq!(
            notes.matches("C++'s operators new of ").count(),
            usize::from(allocator.has_operators()),
            "{about}"
        );
        let (bytes, live) = (said.numbers_of("way", "bytes"), said.numbers_of("way", "live_bytes"));
        if allocator.has_operators() {
            // Some lead to a function that is probed, such as aligned_alloc: then each of their blocks is seen.
            for (way, name) in said.texts_of("way", "name") {
                let asked = asked_by(report, name, "malloc");
                assert!(asked == 0 || asked == bytes[&way] && name != "plain", "{name} {about}");
            }
            assert!(report.malloc("frees_unknown") + report.malloc("freed_before") > 0, "{about}");
            assert!(report.events("free") <= said.number("deleted"), "{about}");
            continue;
        }
        let (plain, aligned) = (said.number("plain"), said.number("aligned"));
        assert_eq!(report.events("malloc"), plain, "{about}");
        assert_eq!(report.events("aligned_alloc"), aligned, "{about}");
        assert_eq!(report.events("free"), said.number("deleted"), "{about}");
        assert_eq!(report.malloc("allocations"), plain + aligned, "{about}");
        assert_eq!(report.malloc("frees_unknown") + report.malloc("freed_before"), 0, "{about}");
        for (way, name) in said.texts_of("way", "name") {
            assert_eq!(asked_by(report, name, "malloc"), bytes[&way], "{name} {about}");
            assert_eq!(asked_by(report, name, "malloc-live"), live[&way], "{name} {about}");
        }
    }
}

/// An operator new that throws is unwound past what is probed: the program catches it and goes on.
#[test]
fn operators_that_throw() {
    let _turn = turn::together();
    let allocators = of_cpp(two("malloc_exact::operators_that_throw"));
    for allocator in allocators.iter().filter(|it| it.throws()) {
        // How it ends is asserted there.
        let watched = watch_subject(subject_of_cpp(allocator, "blocks_throw", &[]), &EXACT);
        let about = format!("{}: {}", allocator.name, watched.report.about_malloc());
        assert_eq!(watched.said.number("caught"), 20, "{about}");
        // What is thrown is in a block, too.
        assert_eq!(watched.report.events("malloc"), 20 + 1, "{about}");
        assert_eq!(watched.report.malloc("live_blocks"), 0, "{about}");
    }
}

/// Bytes of the stacks that have the C++ function `name`, whose arguments stand in its name.
fn asked_by(report: &Report, name: &str, metric: &str) -> u64 {
    let is_it = |frame: &String| {
        let rest = frame.strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('('))
    };
    sum(report, metric, &|frames| frames.iter().any(is_it)).bytes
}

/// A program that is launched is seen from its first call; the allocator's own frees, of what threads leave, are no calls.
#[test]
fn from_the_first_instruction() {
    let _turn = turn::together();
    let outcome = launched(&["blocks", "3", "40"]).run();
    let said: Said = outcome.stdout.lines().collect();
    let report = outcome.report();
    let about = report.about_malloc();
    assert!(report.lost_events().is_empty(), "{about}");
    memtrace_tests::exactness::assert_stacks(&said, &report, &about);
    assert_threads_at_least(&said, &report);
    for key in ["freed_before", "freed_inherited", "frees_unknown", "frees_missed"] {
        assert_eq!(report.malloc(key), 0, "{key}: {about}");
    }
}

/// Threads that get what they said, and at most what the C library needs for them besides.
fn assert_threads_at_least(said: &Said, report: &Report) {
    for (tid, bytes) in said.numbers_of("thread", "bytes") {
        let malloc = report.thread(tid).malloc.unwrap();
        assert!((bytes..bytes + 4096).contains(&malloc.bytes), "{tid}: {bytes} {malloc:?}");
    }
}

fn launched(words: &[&str]) -> Memtrace {
    Memtrace::with_json().args(EXACT).command(built(words[0]), &words[1..])
}

/// Two thousand threads that live at the same time, with blocks of their own and of each other.
#[test]
fn two_thousand_threads() {
    let _turn = turn::alone();
    // Where others need the processors, memtrace may be behind for a moment, and leave stacks out: then it is done again.
    let run = || launched(&["blocks_crowd", "2000", "10"]).run();
    let is_whole = |outcome: &Outcome| !outcome.report().lost().contains_key("stacks_left_out");
    let outcome = std::iter::repeat_with(run).take(3).find(is_whole).expect("stacks of all calls");
    let said: Said = outcome.stdout.lines().collect();
    let report = outcome.report();
    let about = report.about_malloc();
    assert!(report.lost_events().is_empty(), "{about}");
    let want = Sum { n: said.number("got"), bytes: said.number("bytes") };
    assert_eq!(asked(&report, "work"), want, "{about}");
    let want = Sum { n: said.number("live"), bytes: said.number("live_bytes") };
    assert_eq!(left(&report, "work"), want, "{about}");
    let mut by_thread = BTreeMap::new();
    for stack in report.stacks("malloc-live") {
        if stack.frames.iter().any(|frame| frame == "work") {
            *by_thread.entry(stack.tid).or_default() += stack.value;
        }
    }
    assert_eq!(by_thread, said.numbers_of("thread", "live_bytes"));
    assert!(report.malloc("freed_by_other_thread") >= said.number("by_other"), "{about}");
    assert_eq!((report.malloc("frees_unknown"), report.malloc("frees_missed")), (0, 0), "{about}");
}

/// What was there before is nobody's; giving it back takes from nobody.
#[test]
fn in_the_middle_of_life() {
    let _turn = turn::together();
    let watched = watch("blocks_before", &[], &EXACT);
    let (said, report) = (&watched.said, &watched.report);
    let about = report.about_malloc();
    assert_calls(said, report, &about);
    memtrace_tests::exactness::assert_stacks(said, report, &about);
    assert_threads(said, report, &about);
    assert_eq!(report.malloc("freed_before"), said.number("freed_before"), "{about}");
    assert_eq!((report.malloc("frees_unknown"), report.malloc("frees_missed")), (0, 0), "{about}");
    assert!(report.lost_events().is_empty(), "{about}");
}

/// Attached to while everything happens at once; all is given back in the end, so that whatever is left is invented.
#[test]
fn attached_under_load() {
    let _turn = turn::alone();
    for round in if runs_all() { &["1", "2", "3"][..] } else { &["1"] } {
        let mut command = GLIBC.command("blocks_stress", &["3", "drain", round]);
        let mut subject = Subject::start(&mut command);
        let tracing = Memtrace::of_process(subject.pid()).args(EXACT).attached();
        sleep(Duration::from_millis(300));
        let said = subject.finish();
        let report = tracing.stop().report();
        assert!(subject.leave().success(), "the fixture was disturbed");
        let about = report.about_malloc();
        assert!(report.lost_events().is_empty(), "{about}");
        assert!(said.number("by_other") > 0);
        assert!(report.malloc("allocations") > 1000, "{about}");
        assert_eq!((report.malloc("live_blocks"), report.malloc("live_bytes")), (0, 0), "{about}");
        // A block that was got while the probes were placed was there before, as far as anybody can tell.
        assert_eq!(report.malloc("frees_missed"), 0, "{about}");
        for thread in report.threads() {
            let malloc = thread.malloc.unwrap();
            assert_eq!(malloc.live_bytes, 0, "{thread:?}");
            assert!(malloc.bytes < 1 << 50, "{thread:?}");
        }
    }
}

/// What the program prints and how it ends are the same with and without memtrace.
#[test]
fn same_results() {
    let _turn = turn::together();
    let without_threads = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with("thread."));
        lines.take_while(|line| *line != "done").map(str::to_owned).collect()
    };
    // (fixture, arguments): one thread, so that every run is the same
    let cases: [(&str, &[&str]); 3] =
        [("blocks_stress", &["1", "3000", "5"]), ("blocks", &["1", "60"]), ("blocks_each", &["9"])];
    let cases = if runs_all() { &cases[..] } else { &cases[..1] };
    for allocator in one("malloc_exact::same_results") {
        for &(fixture, arguments) in cases {
            let what = format!("{} {fixture}", allocator.name);
            let alone = allocator.command(fixture, arguments).output().unwrap();
            let mut words = vec!["env".to_owned()];
            let command = allocator.command(fixture, arguments);
            for (key, value) in command.get_envs() {
                words.push(format!(
                    "{}={}",
                    key.to_str().unwrap(),
                    value.unwrap().to_str().unwrap()
                ));
            }
            words.push(command.get_program().to_str().unwrap().to_owned());
            words.extend(command.get_args().map(|word| word.to_str().unwrap().to_owned()));
            let outcome = Memtrace::with_json().args(EXACT).arg("--").args(words).run();
            assert_eq!(outcome.code(), alone.status.code(), "{what}: {}", outcome.stderr);
            let printed = String::from_utf8(alone.stdout).unwrap();
            assert!(printed.contains("\nmalloc "), "{what}: {printed}");
            assert_eq!(without_threads(&outcome.stdout), without_threads(&printed), "{what}");
        }
    }
}

/// Nothing about blocks is said where they were not traced.
#[test]
fn off() {
    let _turn = turn::together();
    let cases = [&[][..], &["--malloc", "off"]];
    for options in if runs_all() { &cases[..] } else { &cases[..1] } {
        let report = watch("blocks", &["1", "10"], options).report;
        assert!(report.value()["trace"]["malloc"].is_null(), "{options:?}");
        assert_eq!(report.events("malloc"), 0, "{options:?}");
        assert!(report.stacks("malloc").is_empty(), "{options:?}");
        assert!(report.threads().iter().all(|thread| thread.malloc.is_none()), "{options:?}");
    }
}

/// The report of a recorded trace says the same as that of the trace itself.
#[test]
fn recorded() {
    let _turn = turn::together();
    let watched = watch("blocks", &["2", "40"], &EXACT);
    let again = Memtrace::report_of(&watched.outcome.file("trace.mt")).run().report();
    let live = watched.report.value();
    assert!(live["trace"]["malloc"].is_object());
    assert_eq!(again.value()["trace"]["malloc"], live["trace"]["malloc"]);
    for metric in ["malloc", "malloc-live"] {
        assert_eq!(again.stacks(metric), watched.report.stacks(metric), "{metric}");
        assert!(!again.stacks(metric).is_empty(), "{metric}");
    }
}
