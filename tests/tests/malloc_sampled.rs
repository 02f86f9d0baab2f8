//! `--malloc sampled`: sums are what the program says it did, and what is live is so within the error that is told.

use std::{thread::sleep, time::Duration};

use memtrace_tests::{
    allocators::{Allocator, GLIBC, one, two},
    exactness::{FUNCTIONS, asked, left, sum},
    fixtures::built,
    memtrace::Memtrace,
    report::Report,
    said::Said,
    skip::runs_all,
    subject::Subject,
    turn,
    watch::{Watched, watch, watch_subject},
};

/// Bytes between two samples where no rate is given.
const DEFAULT_RATE: u64 = 512 << 10;
/// Half of an interval of 95 % of a normal distribution, in standard errors.
const Z_95: f64 = 1.96;
/// An estimate that is farther off, in standard errors, is none: one of 16,000 is by chance.
const TOO_FAR: f64 = 4.0;

/// The options, with a rate that is not the default one.
fn sampled(rate: Option<&str>) -> Vec<&str> {
    let rate = rate.map(|rate| ["--malloc-rate", rate]);
    ["--malloc", "sampled"].into_iter().chain(rate.into_iter().flatten()).collect()
}

/// Each allocator with each rate; by default each with the one in the same place.
fn matrix(
    allocators: &[Allocator],
    rates: &[Option<&'static str>],
) -> Vec<(Allocator, Option<&'static str>)> {
    if !runs_all() {
        return allocators.iter().copied().zip(rates.iter().copied()).collect();
    }
    allocators.iter().flat_map(|&one| rates.iter().map(move |&rate| (one, rate))).collect()
}

fn bytes_of(rate: Option<&str>) -> u64 {
    match rate {
        Some("4K") => 4 << 10,
        Some("64K") => 64 << 10,
        Some(other) => panic!("no such rate: {other}"),
        None => DEFAULT_RATE,
    }
}

/// What all threads of the fixture did.
fn all(said: &Said, what: &str) -> u64 {
    said.numbers_of("thread", what).values().sum()
}

/// Calls and bytes are what the fixture says, however few of the blocks are told of, and no end is of an unknown block.
fn assert_sums(what: &str, said: &Said, report: &Report) {
    let about = format!("{what}: {}", report.about_malloc());
    let mut lost = report.lost_events();
    // No event, but the place of one: of a thread that got no processor in the midst of a realloc.
    lost.remove("out_of_order");
    assert!(lost.is_empty(), "{about}");
    assert_eq!(report.value()["trace"]["malloc"]["mode"], "sampled", "{about}");
    assert_eq!(report.malloc("allocations"), all(said, "got"), "{about}");
    assert_eq!(report.malloc("allocated_bytes"), all(said, "bytes"), "{about}");
    for key in ["freed_before", "freed_inherited", "frees_unknown", "frees_missed"] {
        assert_eq!(report.malloc(key), 0, "{key}: {about}");
    }
}

/// Every function, in threads that give each other's blocks back.
#[test]
fn sums_are_exact() {
    let _turn = turn::together();
    let allocators = two("malloc_sampled::sums_are_exact");
    for (allocator, rate) in matrix(&allocators, &[Some("4K"), None]) {
        let what = format!("{} {rate:?}", allocator.name);
        let subject = allocator.subject("blocks", &["3", "40"]);
        let Watched { said, report, .. } = watch_subject(subject, &sampled(rate));
        assert_sums(&what, &said, &report);
        assert_eq!(report.malloc("sampled_every_bytes"), bytes_of(rate), "{what}");
    }
}

/// The same where each function has links of its own, and every return is seen.
#[test]
fn sums_are_exact_one_by_one() {
    let _turn = turn::together();
    let options = [sampled(Some("4K")), vec!["--single-probes"]].concat();
    let Watched { said, report, .. } =
        watch_subject(GLIBC.subject("blocks", &["3", "40"]), &options);
    assert_sums("one by one", &said, &report);
}

/// A call that fails hands out nothing, nor does a realloc that gives its block back.
#[test]
fn calls_without_a_block() {
    let _turn = turn::together();
    for allocator in one("malloc_sampled::calls_without_a_block") {
        for case in ["zero", "huge"] {
            let what = format!("{} {case}", allocator.name);
            let subject = allocator.subject("blocks_edges", &[case]);
            let Watched { said, report, .. } = watch_subject(subject, &sampled(Some("64")));
            assert_sums(&what, &said, &report);
            for function in ["malloc", "calloc", "realloc", "reallocarray"] {
                let failed = said.number(&format!("{function}_failed"));
                assert_eq!(report.failed(function), failed, "{what}: {}", report.about_malloc());
            }
        }
    }
}

/// Where a sample is taken for each byte, each block that has some is one: then nothing is an estimate.
#[test]
fn each_block() {
    let _turn = turn::together();
    for allocator in one("malloc_sampled::each_block") {
        let subject = allocator.subject("blocks", &["3", "40"]);
        let Watched { said, report, .. } = watch_subject(subject, &sampled(Some("1")));
        let about = format!("{}: {}", allocator.name, report.about_malloc());
        assert_sums(allocator.name, &said, &report);
        for function in FUNCTIONS {
            let [bytes, live_bytes] =
                ["bytes", "live_bytes"].map(|what| said.number(&format!("{function}_{what}")));
            let frame = format!("by_{function}");
            assert_eq!(asked(&report, &frame).bytes, bytes, "{function}: {about}");
            assert_eq!(left(&report, &frame).bytes, live_bytes, "live, {function}: {about}");
        }
        let live = said.numbers_of("thread", "live_bytes");
        for (tid, bytes) in said.numbers_of("thread", "bytes") {
            let malloc = report.thread(tid).malloc.unwrap();
            assert_eq!((malloc.bytes, malloc.live_bytes), (bytes, live[&tid]), "{tid}: {about}");
        }
        assert_eq!(report.malloc("live_bytes"), all(&said, "live_bytes"), "{about}");
        assert_eq!(report.malloc("live_bytes_error"), 0, "{about}");
    }
}

/// What is live is estimated as well as memtrace says, and so is what each stack asked for.
#[test]
fn estimates() {
    let _turn = turn::alone();
    let allocators = two("malloc_sampled::estimates");
    // The default rate for the first one, too.
    let cases = matrix(&allocators, &[Some("4K"), Some("64K"), None]);
    for (allocator, rate) in cases.into_iter().chain([(GLIBC, None)]) {
        let subject = allocator.subject("blocks_stress", &["32", "5000", "3"]);
        let Watched { said, report, .. } = watch_subject(subject, &sampled(rate));
        let what = format!("{} {rate:?}", allocator.name);
        assert_sums(&what, &said, &report);
        assert_estimates(&what, bytes_of(rate), &said, &report);
    }
}

fn assert_estimates(what: &str, rate: u64, said: &Said, report: &Report) {
    let about = format!("{what}: {}", report.about_malloc());
    let live = all(said, "live_bytes");
    assert!(live > 80 * DEFAULT_RATE, "{live} is too little to estimate: {about}");
    let error = report.malloc("live_bytes_error") as f64;
    // An interval that is too wide is worth as little as none.
    assert!(error > 0.0 && error < 2.0 * Z_95 * expected_error(rate, live), "{about}");
    assert_near(report.malloc("live_bytes"), live, error / Z_95, &about);
    // All blocks there were, by stacks.
    let (asked, bytes) = (sum(report, "malloc", &|_| true).bytes, all(said, "bytes"));
    assert_near(asked, bytes, expected_error(rate, bytes), &about);
    for function in ["malloc", "realloc"] {
        let live = said.number(&format!("{function}_live_bytes"));
        if live < 100 * rate {
            // Too few samples for such an interval.
            continue;
        }
        let estimate = left(report, &format!("by_{function}")).bytes;
        assert_near(estimate, live, expected_error(rate, live), &format!("{function} {about}"));
    }
}

/// The standard error of an estimate of `truth` bytes is at most this, whatever the sizes of the blocks: of one of S bytes,
/// that is a sample with the chance p, S² (1 - p) / p is at most S times the rate.
fn expected_error(rate: u64, truth: u64) -> f64 {
    (rate as f64 * truth as f64).sqrt()
}

fn assert_near(estimate: u64, truth: u64, error: f64, about: &str) {
    let off = estimate.abs_diff(truth) as f64;
    assert!(off <= TOO_FAR * error, "{estimate} is not {truth} within {error}: {about}");
}

/// Two thousand threads, each of which asks for less than a sample and ends: their sums arrive all the same.
#[test]
fn threads_that_end() {
    let _turn = turn::alone();
    let arguments = ["2000", "10"];
    let exact = watch("blocks_crowd", &arguments, &["--malloc", "exact"]);
    let Watched { said, report, .. } = watch("blocks_crowd", &arguments, &sampled(None));
    let about = report.about_malloc();
    assert!(report.lost_events().is_empty(), "{about}");
    // The fixture does not tell what the C library needs for its threads.
    assert!(report.malloc("allocations") >= said.number("got"), "{about}");
    for key in ["allocations", "allocated_bytes"] {
        assert_eq!(report.malloc(key), exact.report.malloc(key), "{key}: {about}");
    }
    assert_eq!(report.malloc("frees_unknown"), 0, "{about}");
}

/// A process that asks for less than a sample: how much is known, and nothing is made up of where.
#[test]
fn less_than_a_sample() {
    let _turn = turn::together();
    let Watched { said, report, outcome, .. } =
        watch("blocks", &["2", "10"], &sampled(Some("1024G")));
    let about = report.about_malloc();
    assert!(all(&said, "bytes") > 100_000, "{about}");
    assert_sums("less than a sample", &said, &report);
    for key in ["live_blocks", "live_bytes", "live_bytes_error", "peak_live_bytes"] {
        assert_eq!(report.malloc(key), 0, "{key}: {about}");
    }
    for metric in ["malloc", "malloc-live"] {
        assert!(report.stacks(metric).is_empty(), "{metric}: {about}");
    }
    // The recorded trace says the same.
    let again = Memtrace::report_of(&outcome.file("trace.mt")).run().report();
    assert_eq!(again.value()["trace"]["malloc"], report.value()["trace"]["malloc"]);
}

/// Attached to while everything happens at once; all is given back in the end, so that whatever is left is invented.
#[test]
fn nothing_is_left() {
    let _turn = turn::alone();
    let rates = [Some("1"), Some("4K"), None];
    for &rate in if runs_all() { &rates[..] } else { &rates[..2] } {
        let mut command = GLIBC.command("blocks_stress", &["3", "drain", "5"]);
        let mut subject = Subject::start(&mut command);
        let tracing = Memtrace::of_process(subject.pid()).args(sampled(rate)).attached();
        sleep(Duration::from_millis(300));
        let said = subject.finish();
        let report = tracing.stop().report();
        assert!(subject.leave().success(), "the fixture was disturbed");
        let about = format!("{rate:?} {}", report.about_malloc());
        assert!(report.lost_events().is_empty(), "{about}");
        assert!(said.number("by_other") > 0);
        assert!(report.malloc("allocations") > 1000, "{about}");
        for key in
            ["live_blocks", "live_bytes", "live_bytes_error", "frees_unknown", "frees_missed"]
        {
            assert_eq!(report.malloc(key), 0, "{key}: {about}");
        }
        for thread in report.threads() {
            assert_eq!(thread.malloc.unwrap().live_bytes, 0, "{thread:?}");
        }
    }
}

/// A program that is launched and ends by itself: what its threads asked for since their last samples is not lost with it.
#[test]
fn until_its_end() {
    let _turn = turn::together();
    let sums = |options: &[&str]| {
        let outcome =
            Memtrace::with_json().args(options).command(built("blocks"), &["3", "40"]).run();
        let report = outcome.report();
        assert!(report.lost_events().is_empty(), "{}", report.about_malloc());
        ["allocations", "allocated_bytes", "frees_unknown"].map(|key| report.malloc(key))
    };
    assert_eq!(sums(&sampled(Some("4K"))), sums(&["--malloc", "exact"]));
}

/// What a program gets at its very beginning, before memtrace has heard of it, is a sample as any other: its end is told.
#[test]
fn from_the_first_instruction() {
    let _turn = turn::together();
    let options = sampled(Some("1"));
    let command = ["1", "3000", "5"];
    let launched = Memtrace::with_json().args(options).command(built("blocks_stress"), &command);
    let outcome = launched.run();
    let said: Said = outcome.stdout.lines().collect();
    let report = outcome.report();
    let about = report.about_malloc();
    assert_eq!((report.malloc("frees_missed"), report.malloc("frees_unknown")), (0, 0), "{about}");
    for function in FUNCTIONS {
        let live_bytes = said.number(&format!("{function}_live_bytes"));
        let is = left(&report, &format!("by_{function}")).bytes;
        // A block of a few bytes may be none.
        assert!(is.abs_diff(live_bytes) < 64, "{function}: {is} {live_bytes} {about}");
    }
}

/// A call whose return is left out hides no caller, also where another process has its probes on the same file.
#[test]
fn stacks_below_calls_that_are_left_out() {
    let _turn = turn::together();
    for options in [&sampled(None)[..], &["--malloc", "exact", "--min-size", "4K"]] {
        let memtrace = Memtrace::with_json().args(options);
        let outcome = memtrace.command(built("blocks_of_child"), &["8000"]).run();
        let (said, report) = (outcome.stdout.lines().collect::<Said>(), outcome.report());
        let about = format!("{options:?}: {}", report.about_malloc());
        let mut lost = report.lost_events();
        // Of the child, before it asked for anything.
        lost.remove("probed_late");
        assert!(lost.is_empty(), "{about}");
        assert_eq!(report.stacks_that_are("broken"), 0, "{about}");
        let child = u32::try_from(said.number("child")).unwrap();
        let way = ["main", "grow", "ask"];
        let grown = report.stacks("mapped").into_iter().filter(|stack| {
            stack.tid == child && way.iter().all(|name| stack.frames.iter().any(|is| is == name))
        });
        let bytes: u64 = grown.map(|stack| stack.value).sum();
        // The heap was there before, of 33 pages.
        assert!(bytes + 33 * 4096 >= said.number("bytes"), "{bytes}: {about}");
    }
}
