//! What a fixture said of its blocks, against what memtrace says of them: by function, by thread, in all.

use crate::{report::Report, said::Said, watch::Watched};

/// Functions that hand out blocks, as fixtures and reports name them; a fixture calls each from `by_NAME`.
pub const FUNCTIONS: [&str; 9] = [
    "malloc",
    "calloc",
    "posix_memalign",
    "aligned_alloc",
    "memalign",
    "valloc",
    "pvalloc",
    "realloc",
    "reallocarray",
];

/// What a metric of blocks adds up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Calls, or blocks where they are live ones.
    pub n: u64,
    /// Bytes.
    pub bytes: u64,
}

/// The calls and bytes of the stacks that have the frame `function`.
pub fn asked(report: &Report, function: &str) -> Sum {
    sum(report, "malloc", &|frames| frames.iter().any(|frame| frame == function))
}

/// The blocks and bytes that are left of the stacks that have the frame `function`.
pub fn left(report: &Report, function: &str) -> Sum {
    sum(report, "malloc-live", &|frames| frames.iter().any(|frame| frame == function))
}

/// What the stacks of `metric` whose frames are `wanted` add up to.
pub fn sum(report: &Report, metric: &str, wanted: &dyn Fn(&[String]) -> bool) -> Sum {
    let stacks = report.stacks(metric).into_iter().filter(|stack| wanted(&stack.frames));
    stacks.fold(Sum::default(), |sum, stack| Sum {
        n: sum.n + stack.blocks.unwrap_or(stack.events),
        bytes: sum.bytes + stack.value,
    })
}

/// Everything that was counted is what the fixture said. It made no call but those, while it was watched.
pub fn assert_exact(what: &str, watched: &Watched) {
    let Watched { said, report, .. } = watched;
    let about = format!("{what}: {}", report.about_malloc());
    assert!(report.lost_events().is_empty(), "{about}");
    assert_calls(said, report, &about);
    assert_stacks(said, report, &about);
    assert_threads(said, report, &about);
    assert_all(said, report, &about);
}

/// The calls of each function, and those that failed.
pub fn assert_calls(said: &Said, report: &Report, about: &str) {
    for names in functions(said) {
        let was = |suffix: &str| -> u64 {
            names.iter().map(|name| said.number(&format!("{name}{suffix}"))).sum()
        };
        let is: u64 = names.iter().map(|name| report.events(name)).sum();
        assert_eq!(is, was(""), "{names:?}: {about}");
        let failed: u64 = names.iter().map(|name| report.failed(name)).sum();
        assert_eq!(failed, was("_failed"), "{names:?} that failed: {about}");
    }
}

/// All functions, each with its names: where two are names of one function, nobody can tell which was called.
fn functions(said: &Said) -> Vec<&'static [&'static str]> {
    let mut all: Vec<&[&str]> = vec![
        &["malloc"],
        &["calloc"],
        &["posix_memalign"],
        &["valloc"],
        &["pvalloc"],
        &["realloc"],
        &["reallocarray"],
        &["free"],
    ];
    if said.number("aligned_alloc_is_memalign") == 1 {
        all.push(&["aligned_alloc", "memalign"]);
    } else {
        all.extend([&["aligned_alloc"][..], &["memalign"]]);
    }
    all
}

/// The blocks by the function that they were got by, which is a frame of their stacks.
pub fn assert_stacks(said: &Said, report: &Report, about: &str) {
    for function in FUNCTIONS {
        let number = |what| said.number(&format!("{function}_{what}"));
        let frame = format!("by_{function}");
        let want = Sum { n: number("got"), bytes: number("bytes") };
        assert_eq!(asked(report, &frame), want, "{function}: {about}");
        let want = Sum { n: number("live"), bytes: number("live_bytes") };
        assert_eq!(left(report, &frame), want, "live, {function}: {about}");
    }
}

/// The blocks by thread.
pub fn assert_threads(said: &Said, report: &Report, about: &str) {
    let (got, live) = (said.numbers_of("thread", "got"), said.numbers_of("thread", "live_bytes"));
    for (tid, bytes) in said.numbers_of("thread", "bytes") {
        let Some(malloc) = report.thread(tid).malloc else { panic!("thread {tid}: {about}") };
        let is = (malloc.n, malloc.bytes, malloc.live_bytes);
        assert_eq!(is, (got[&tid], bytes, live[&tid]), "thread {tid}: {about}");
    }
}

/// The sums of all.
pub fn assert_all(said: &Said, report: &Report, about: &str) {
    let all = |what: &str| -> u64 { said.numbers_of("thread", what).values().sum() };
    // (what it is in the report, what it was)
    let cases = [
        ("allocations", all("got")),
        ("allocated_bytes", all("bytes")),
        ("live_blocks", all("live")),
        ("live_bytes", all("live_bytes")),
        ("freed_before", 0),
        ("freed_inherited", 0),
        ("frees_unknown", 0),
        ("frees_missed", 0),
    ];
    for (key, want) in cases {
        assert_eq!(report.malloc(key), want, "{key}: {about}");
    }
    assert!(report.malloc("peak_live_bytes") >= all("live_bytes"), "{about}");
}
