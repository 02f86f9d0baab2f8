//! `--min-size`: small blocks are counted by thread and otherwise ignored, and all else is as if there were none.

use memtrace_tests::{
    allocators::usual,
    exactness::sum,
    memtrace::Memtrace,
    report::Report,
    said::Said,
    turn,
    watch::{Watched, watch, watch_subject},
};

/// What the fixtures count apart.
const MIN_SIZE: &str = "2000";
const OPTIONS: [&str; 4] = ["--malloc", "exact", "--min-size", MIN_SIZE];

/// What the threads of a fixture did together.
fn all(said: &Said, what: &str) -> u64 {
    said.numbers_of("thread", what).values().sum()
}

fn check(what: &str, said: &Said, report: &Report) {
    let about = format!("{what}: {}", report.about_malloc());
    assert_eq!(said.number("large_from").to_string(), MIN_SIZE);
    assert!(report.lost_events().is_empty(), "{about}");
    let large = |what: &str| all(said, &format!("large_{what}"));
    let small = |what: &str| all(said, what) - large(what);
    assert!(small("got") > 100 && large("got") > 100, "{about}");
    // (what it is in the report, what it was)
    let cases = [
        ("min_size_bytes", said.number("large_from")),
        ("allocations", large("got")),
        ("allocated_bytes", large("bytes")),
        ("live_blocks", large("live")),
        ("live_bytes", large("live_bytes")),
        ("ignored_blocks", small("got")),
        ("ignored_bytes", small("bytes")),
        // Each small block that was given back, or that got another size.
        ("freed_before_or_ignored", small("got") - small("live")),
        ("frees_unknown", 0),
        ("frees_missed", 0),
    ];
    for (key, want) in cases {
        assert_eq!(report.malloc(key), want, "{key}: {about}");
    }
    for (metric, of) in [("malloc", ["got", "bytes"]), ("malloc-live", ["live", "live_bytes"])] {
        let listed = sum(report, metric, &|_| true);
        let want = of.map(large);
        assert_eq!([listed.n, listed.bytes], want, "{metric}: {about}");
    }
}

/// By thread: what is told and what is ignored, each as the thread counted it.
fn check_threads(what: &str, said: &Said, report: &Report) {
    let large = |tid: u32, what: &str| said.numbers_of("thread", &format!("large_{what}"))[&tid];
    for (tid, got) in said.numbers_of("thread", "got") {
        let bytes = said.numbers_of("thread", "bytes")[&tid];
        let rows = report.value()["threads"].as_array().cloned().unwrap_or_default();
        let Some(row) = rows.iter().find(|row| row["tid"] == tid) else { panic!("{what}: {tid}") };
        let keys = ["mallocs", "malloc_bytes", "ignored_blocks", "ignored_bytes"];
        let is = keys.map(|key| row[key].as_u64().unwrap_or_default());
        let [n, n_bytes] = ["got", "bytes"].map(|what| large(tid, what));
        assert_eq!(is, [n, n_bytes, got - n, bytes - n_bytes], "{what}: thread {tid}");
    }
}

/// Every function and every change of a size, across the bound in both directions, with each allocator.
#[test]
fn small_blocks_are_ignored() {
    let _turn = turn::together();
    for allocator in usual("malloc_min_size::small_blocks_are_ignored") {
        let Watched { said, report, .. } =
            watch_subject(allocator.subject("blocks", &["3", "40"]), &OPTIONS);
        check(allocator.name, &said, &report);
        check_threads(allocator.name, &said, &report);
    }
}

/// Threads that take each other's blocks, and more calls than are told of at once.
#[test]
fn under_stress() {
    let _turn = turn::alone();
    let Watched { said, report, .. } = watch("blocks_stress", &["3", "20000", "7"], &OPTIONS);
    check("stress", &said, &report);
    check_threads("stress", &said, &report);
}

/// The report of a recorded trace says the same, and the end screen says what is missing.
#[test]
fn recorded() {
    let _turn = turn::together();
    let watched = watch("blocks", &["2", "40"], &OPTIONS);
    let again = Memtrace::report_of(&watched.outcome.file("trace.mt")).run();
    let live = &watched.report.value()["trace"]["malloc"];
    assert_eq!(&again.report().value()["trace"]["malloc"], live);
    for said in [
        "blocks of less than 2.0 KiB",
        "that are ignored or from before",
        "blocks of 2.0 KiB or more",
    ] {
        assert!(again.stdout.contains(said), "{said}: {}", again.stdout);
    }
}
