//! Footprints of JVMs: of the demo application on each JDK with each collector, against the kernel and against what the JVM
//! says of its own memory.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{collections::BTreeMap, ops::Range, process::Command};

use memtrace::{
    footprint::{Footprint, PageTables, Resident, RowKind, glibc::Malloc, take},
    target::maps,
};
use memtrace_tests::{
    demo::Demo,
    footprint::{Stopped, kernels_rss},
    java::{Jdk, all_jdks},
    nmt::{self, HeapInfo},
    skip::{has_tool, runs_all, skip},
    subject::Subject,
    turn,
};

/// A collector's name, and the options that choose it.
const COLLECTORS: [(&str, &[&str]); 6] = [
    ("G1", &["-XX:+UseG1GC"]),
    ("Serial", &["-XX:+UseSerialGC"]),
    ("Parallel", &["-XX:+UseParallelGC"]),
    ("Shenandoah", &["-XX:+UseShenandoahGC"]),
    ("Z", &["-XX:+UseZGC"]),
    ("Z with generations", &["-XX:+UseZGC", "-XX:+ZGenerational"]),
];
/// Releases that the demo application is looked at on.
const RELEASES: [u32; 4] = [11, 17, 21, 25];
/// What may be unexplained, in thousandths of what is resident.
const MAX_UNEXPLAINED_THOUSANDTHS: u64 = 5;
/// By how much a row may differ from the JVM's own account.
const MAX_OFF_BYTES: u64 = 1 << 20;
const MAX_OFF_PERCENT: u64 = 2;

/// Each JDK with each collector that it has; said which were left out.
fn configurations(test: &str) -> Vec<(Jdk, String, Vec<&'static str>)> {
    let mut found = Vec::new();
    for jdk in all_jdks().into_iter().filter(|jdk| RELEASES.contains(&jdk.major)) {
        for (name, options) in COLLECTORS {
            // With JDK 25 there is no other Z, and the option is obsolete.
            let options = match options {
                [z, _] if jdk.major != 21 => &options[..usize::from(z.is_empty())],
                options => options,
            };
            let what = format!("{} {name}", jdk.home.display());
            if options.is_empty() {
                continue;
            }
            // Before JDK 15 Z has to be unlocked.
            let unlocked = ["-XX:+UnlockExperimentalVMOptions"];
            let options: Vec<&str> = unlocked.into_iter().chain(options.iter().copied()).collect();
            if !is_known(&jdk, &options) {
                skip(test, &format!("{what}: this JVM has no such collector"));
                continue;
            }
            found.push((jdk.clone(), what, options));
        }
    }
    let missing = RELEASES.iter().filter(|release| !found.iter().any(|it| it.0.major == **release));
    missing.for_each(|release| skip(test, &format!("no JDK {release} here")));
    found
}

fn is_known(jdk: &Jdk, options: &[&str]) -> bool {
    let mut java = Command::new(jdk.java());
    java.args(options).arg("-version").output().unwrap().status.success()
}

fn sum(footprint: &Footprint, kinds: &[RowKind]) -> u64 {
    kinds.iter().map(|&kind| footprint.resident(kind)).sum()
}

/// Where JDK 11 puts it, and how much it reserves (share/gc/z/zGlobals_linux_x86.hpp, `ZMarkStackSpaceLimit`).
const Z_MARK_STACK: Range<u64> = 0x1500_0000_0000..0x1500_0000_0000 + (8 << 30);

/// All of what fails, told at the end: each configuration takes half a minute.
#[derive(Default)]
struct Failures(Vec<String>);

impl Failures {
    fn check(&mut self, is_right: bool, what: impl FnOnce() -> String) {
        if !is_right {
            let what = what();
            eprintln!("WRONG: {what}");
            self.0.push(what);
        }
    }
}

impl Drop for Failures {
    fn drop(&mut self) {
        assert!(std::thread::panicking() || self.0.is_empty(), "{:#?}", self.0);
    }
}

/// Of the demo application, stopped, rows add up to the kernel's sum to the byte, and nearly all is explained.
#[test]
fn demo_is_explained() {
    const TEST: &str = "jvm_footprints::demo_is_explained";
    if !runs_all() {
        return skip(TEST, "it starts the demo some twenty times: only with `--all`");
    }
    let _turn = turn::together();
    let mut failures = Failures::default();
    for (jdk, what, options) in configurations(TEST) {
        let demo = Demo::start(&jdk, &options);
        let _stopped = Stopped::process(demo.pid());
        let before = kernels_rss(demo.pid());
        let footprint = take(demo.pid(), 0).unwrap();
        let rows: u64 = footprint.rows.iter().map(|row| row.resident_bytes).sum();
        let unexplained = footprint.resident(RowKind::Unexplained);
        eprintln!("{what}: {unexplained} of {rows} unexplained; notes: {:?}", footprint.notes);
        failures.check(rows == before && before == kernels_rss(demo.pid()), || {
            format!("{what}: rows {rows}, RSS {before}")
        });
        failures.check(unexplained * 1000 <= rows * MAX_UNEXPLAINED_THOUSANDTHS, || {
            format!("{what}: {unexplained} unexplained: {:?}", footprint.rows)
        });
    }
}

/// What of `ranges` is resident.
fn resident(resident: &Resident, ranges: &[Range<u64>]) -> u64 {
    // Ranges may lie in each other: a class space in what it was reserved with.
    let mut ranges = ranges.to_vec();
    ranges.sort_by_key(|range| range.start);
    let mut end = 0;
    let disjoint = ranges.into_iter().filter_map(|range| {
        let rest = range.start.max(end)..range.end;
        end = end.max(range.end);
        (rest.start < rest.end).then_some(rest)
    });
    disjoint.map(|range| resident.bytes_in(range).resident()).sum()
}

/// Rows against what the JVM's own account of reservations says, page by page: the heap, metaspace, code, stacks and the
/// collector's tables of the demo application.
#[test]
fn rows_are_the_jvms() {
    const TEST: &str = "jvm_footprints::rows_are_the_jvms";
    if !runs_all() {
        return skip(TEST, "it starts the demo some twenty times: only with `--all`");
    }
    if !has_tool("jcmd") {
        return skip(TEST, "no jcmd");
    }
    let _turn = turn::together();
    let mut failures = Failures::default();
    for (jdk, what, mut options) in configurations(TEST) {
        options.push("-XX:NativeMemoryTracking=detail");
        let demo = Demo::start(&jdk, &options);
        let detail = nmt::jcmd(demo.pid(), &["VM.native_memory", "detail"]);
        let _stopped = Stopped::process(demo.pid());
        let footprint = take(demo.pid(), 0).unwrap();
        let maps = maps::read(demo.pid()).unwrap();
        let ranges: Vec<_> = maps.iter().map(|mapping| mapping.start..mapping.end).collect();
        let now = Resident::of(demo.pid(), &ranges).unwrap();
        let mut reserved = nmt::reserved(&detail);
        // JDK 11 does not tell itself of Z's mark stack, which has a fixed place (ZMarkStackSpaceStart).
        if jdk.major == 11 && what.ends_with('Z') {
            reserved.entry("GC".to_owned()).or_default().push(Z_MARK_STACK);
        }
        for (name, row, own) in compared(&footprint, &reserved, &now) {
            let most = MAX_OFF_BYTES.max(own * MAX_OFF_PERCENT / 100);
            let said = format!("{what}: {name}: {row} here, {own} by the JVM");
            eprintln!("{said}");
            failures.check(row.abs_diff(own) <= most, || said);
        }
    }
}

/// (what, bytes of the rows, bytes that are resident in the JVM's ranges)
fn compared(
    footprint: &Footprint,
    reserved: &BTreeMap<String, Vec<Range<u64>>>,
    now: &Resident,
) -> Vec<(&'static str, u64, u64)> {
    use RowKind::{
        Cds, ClassSpace, CodeCache, Gc, JavaHeapUnused, JavaHeapUsed, JavaHeapViews, Metaspace,
        ThreadStacks,
    };
    // (rows, categories)
    type Pair = (&'static str, &'static [RowKind], &'static [&'static str]);
    // JDK 17 does not say what its class space is, where there is no archive of classes.
    let pairs: [Pair; 5] = [
        ("heap", &[JavaHeapUsed, JavaHeapUnused, JavaHeapViews], &["Java Heap"]),
        (
            "classes",
            &[Metaspace, ClassSpace, Cds],
            &["Class", "Metaspace", "Shared class space", "Unknown"],
        ),
        ("code", &[CodeCache], &["Code"]),
        ("stacks", &[ThreadStacks], &["Thread Stack"]),
        ("collector", &[Gc], &["GC", "GCCardSet"]),
    ];
    let ranges = |categories: &[&str]| -> Vec<Range<u64>> {
        categories.iter().filter_map(|name| reserved.get(*name)).flatten().cloned().collect()
    };
    pairs
        .into_iter()
        .map(|(name, rows, categories)| {
            (name, sum(footprint, rows), resident(now, &ranges(categories)))
        })
        .collect()
}

/// What the thread that answers holds meanwhile: a buffer of 1 MiB, and the text several times over as it grows.
const MOST_OF_AN_ANSWER: u64 = (1 << 20) + (256 << 10);

/// What is in use of malloc, of a JVM that does nothing, against glibc's own account through the JVM, arena by arena. One
/// arena, that of the thread that answers, has the answer in it then.
#[test]
fn malloc_is_glibcs() {
    const TEST: &str = "jvm_footprints::malloc_is_glibcs";
    if !has_tool("jcmd") {
        return skip(TEST, "no jcmd");
    }
    let _turn = turn::together();
    let jdks = all_jdks().into_iter().filter(|jdk| jdk.major >= 21 && !jdk.is_in_own_root());
    let jdks: Vec<Jdk> = jdks.collect();
    if jdks.is_empty() {
        return skip(TEST, "no JDK of 21 or newer: older ones don't tell");
    }
    for jdk in jdks {
        let what = jdk.home.display();
        let subject = Subject::ready_java(&jdk, &["-Xmx256m"], "Idle", &[]);
        let pid = subject.pid();
        // The first command starts the thread that answers.
        nmt::jcmd(pid, &["VM.version"]);
        let info = HeapInfo::parse(&nmt::jcmd(pid, &["System.native_heap_info"])).unwrap();
        let malloc = malloc_of(pid);
        assert_eq!(malloc.arenas.len(), info.arenas.len(), "{what}");
        assert_eq!(malloc.mmapped_bytes(), info.mmapped_bytes, "{what}: {:?}", malloc.losses);
        let found = malloc.arenas.iter().map(|arena| arena.in_use_as_mallinfo());
        let mut off: Vec<(u64, u64)> = found.zip(info.arenas.iter().copied()).collect();
        off.sort_by_key(|(found, own)| found.abs_diff(*own));
        let (found, own) = off.pop().unwrap();
        assert!(
            (0..=MOST_OF_AN_ANSWER).contains(&own.saturating_sub(found)),
            "{what}: {found} {own}"
        );
        let all = info.mmapped_bytes + info.arenas.iter().sum::<u64>() - (own - found);
        let off: u64 = off.iter().map(|(found, own)| found.abs_diff(*own)).sum();
        eprintln!("{what}: {off} bytes off of {all}, and {} of the answer", own - found);
        assert!(off <= all / 100, "{what}: {off} of {all}");
        // What is live is that without caches and headers of arenas, and it is what the footprint shows.
        let chunks = malloc.chunks();
        let live = malloc.live_bytes() + chunks.tcache_bytes + chunks.overhead_bytes;
        assert!(live.abs_diff(all) <= all / 100, "{what}: {live} of {all}");
        let shown = take(pid, 0).unwrap().malloc.unwrap().live_bytes;
        assert!(shown.abs_diff(malloc.live_bytes()) <= shown / 100, "{what}: {shown}");
    }
}

fn malloc_of(pid: u32) -> Malloc {
    let maps = maps::read(pid).unwrap();
    let ranges: Vec<_> = maps.iter().map(|mapping| mapping.start..mapping.end).collect();
    let tables = PageTables::open(pid).unwrap();
    let resident = tables.read(&ranges).unwrap();
    Malloc::of(pid, &maps, &resident, &tables).unwrap()
}
