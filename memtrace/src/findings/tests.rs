//! Each rule with a cause and with its look-alike: what is found, and how many bytes.

use super::*;
use crate::{
    findings::sample::{CLEANER, MIB, PID, S, Sample},
    footprint::{Container, RowKind},
    ledger::StreamKind,
    trace::{Record, Why},
};

const SCANNER: u32 = 104;
const INFLATE: [&str; 5] = [
    "mprotect",
    "Java_java_util_zip_Inflater_inflateBytesBytes",
    "java.util.zip.Inflater.inflate",
    "org.reflections.Reflections.scan",
    "demo.ConfigScanner.run",
];

/// Names and bytes.
type Found = Vec<(&'static str, u64)>;

/// What is suspicious, and what is by design.
fn found(recording: &Recording) -> (Found, Found) {
    let found = findings(recording).expect("it has a footprint");
    let of = |verdict| {
        let of_kind = found.list.iter().filter(move |it| it.verdict == verdict);
        of_kind.map(|it| (it.id, it.bytes)).collect()
    };
    (of(Verdict::Suspicious), of(Verdict::ByDesign))
}

fn suspicious(sample: Sample) -> Vec<(&'static str, u64)> {
    let (suspicious, by_design) = found(&sample.done());
    assert_eq!(by_design, []);
    suspicious
}

fn one(recording: &Recording, id: &str) -> Finding {
    let found = findings(recording).expect("it has a footprint").list;
    let of_id = found.iter().find(|it| it.id == id);
    of_id.unwrap_or_else(|| panic!("no {id} in {found:#?}")).clone()
}

/// A scanner that opens a thousand Inflaters which `ender` ends, and the arena that grew meanwhile.
fn scan(ender: u32) -> Sample {
    let mut sample = Sample::new();
    sample.thread(SCANNER, "mcc-config-scanner");
    let stack = sample.stack(&INFLATE);
    for n in 1..=1000 {
        let address = sample.stream(StreamKind::Inflater, SCANNER, stack, n * S / 100);
        sample.ended(StreamKind::Inflater, ender, 20 * S + n, address);
    }
    sample.arena(SCANNER, stack, 120 * MIB, 100 * MIB);
    sample
}

/// The story: who, how many, ended by whom, what was grown, where, what returns how much.
#[test]
fn the_story() {
    let recording = scan(CLEANER).done();
    let (suspicious, _) = found(&recording);
    assert_eq!(suspicious, [("inflaters-left-to-collector", 100 * MIB)]);
    let finding = one(&recording, "inflaters-left-to-collector");
    assert_eq!(finding.confidence, Confidence::High);
    let thread = recording.ledger.threads().iter().position(|it| it.tid == SCANNER).unwrap() as u32;
    for part in [
        Part::Thread(thread),
        Part::Count(1000),
        Part::Name("Common-Cleaner".into()),
        Part::Count(0),
        Part::Bytes(120 * MIB),
        Part::Bytes(100 * MIB),
        Part::Things(1, "arena"),
    ] {
        assert!(finding.evidence.iter().any(|it| it.0.contains(&part)), "{part:?} {finding:#?}");
    }
    let call: Vec<_> =
        finding.call.iter().map(|id| recording.frames[id.0 as usize].name.as_str()).collect();
    assert_eq!(call[..2], ["demo.ConfigScanner.run", "org.reflections.Reflections.scan"]);
    let trims = finding.remedies.iter().filter(|it| it.returns == Some(100 * MIB..=100 * MIB));
    assert_eq!(trims.count(), 1, "{finding:#?}");
}

/// As many Inflaters, which the scanner ends itself: then it is a burst that is over, and says so.
#[test]
fn closed_inflaters_are_no_story() {
    assert_eq!(suspicious(scan(SCANNER)), [("arena-retention", 100 * MIB)]);
    // And where next to nothing is left, it is nothing.
    let mut sample = scan(SCANNER);
    sample.row(RowKind::MallocReturnable, 8 * MIB);
    sample.footprint.malloc.as_mut().unwrap().arenas[0].returnable_bytes = 8 * MIB;
    assert_eq!(suspicious(sample), []);
}

/// What was lost, or was there before, lowers the confidence and is said.
#[test]
fn doubts() {
    let mut recording = scan(CLEANER).done();
    recording.apply(Record::Losses(vec![("ring_full".into(), 7)]));
    let finding = one(&recording, "inflaters-left-to-collector");
    assert_eq!(finding.confidence, Confidence::Medium);
    assert_eq!(finding.doubts, [sentence::say![Part::Things(7, "event"), " lost"]]);
    recording.end = None;
    let doubts = findings(&recording).unwrap().doubts;
    assert_eq!(doubts.len(), 2, "{doubts:?}");
    recording.end = None;
    let mut late = Sample::new();
    late.row(RowKind::MallocReturnable, 100 * MIB);
    late.footprint.malloc.as_mut().unwrap().arenas.push(crate::footprint::Arena {
        returnable_bytes: 100 * MIB,
        free_pages: vec![crate::footprint::FreePages { start: 1 << 40, bytes: 100 * MIB }],
        ..Default::default()
    });
    let recording = late.done();
    let finding = one(&recording, "arena-retention");
    assert_eq!((finding.bytes, finding.confidence), (100 * MIB, Confidence::Medium));
    assert!(!finding.doubts.is_empty() && finding.call.is_empty(), "{finding:#?}");
}

/// Without a footprint there is nothing to say; of a footprint alone, what needs no trace.
#[test]
fn alone() {
    assert_eq!(findings(&Recording::default()), None);
    let recording = scan(CLEANER).done();
    let footprint = recording.footprint.clone().unwrap();
    let target = recording.target.clone();
    let about = Recording { target, ..Recording::default() };
    let found = findings_of(&about, &footprint);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!((found[0].id, found[0].bytes), ("arena-retention", 100 * MIB));
}

/// Survivors of collections from all of the time, as against a pool, and such as wait for the next collection.
#[test]
fn never_ended() {
    let mut leak = Sample::new();
    leak.row(RowKind::MallocLive, 400 * MIB);
    let stack = leak.stack(&INFLATE);
    for n in 1..=1000 {
        leak.stream(StreamKind::Inflater, PID, stack, n * S / 20);
    }
    let address = leak.stream(StreamKind::Inflater, PID, stack, 55 * S);
    leak.ended(StreamKind::Inflater, CLEANER, 56 * S, address);
    let finding = one(&leak.done(), "inflaters-never-ended");
    assert_eq!((finding.bytes, finding.confidence), (1000 * 40_040, Confidence::Medium));

    // (when they are opened, when the collector was seen to end one)
    let pool = |n: u64| n * S / 500;
    let waiting = |n: u64| 50 * S + n * S / 200;
    for (opened, collected) in [(pool as fn(u64) -> u64, 56 * S), (waiting, 49 * S)] {
        let mut sample = Sample::new();
        sample.row(RowKind::MallocLive, 400 * MIB);
        let stack = sample.stack(&INFLATE);
        (1..=1000).for_each(|n| {
            sample.stream(StreamKind::Inflater, PID, stack, opened(n));
        });
        let address = sample.stream(StreamKind::Inflater, PID, stack, collected - 1);
        sample.ended(StreamKind::Inflater, CLEANER, collected, address);
        assert_eq!(suspicious(sample), []);
    }
}

/// A Deflater holds more, so fewer of them are a matter.
#[test]
fn deflaters() {
    let mut leak = Sample::new();
    leak.row(RowKind::MallocLive, 400 * MIB);
    let stack = leak.stack(&["deflateInit2_", "java.util.zip.Deflater.<init>", "a.B.gzip"]);
    (1..=200).for_each(|n| {
        leak.stream(StreamKind::Deflater, PID, stack, n * S / 4);
    });
    let finding = one(&leak.done(), "deflaters-never-ended");
    assert_eq!((finding.bytes, finding.confidence), (200 * 268_192, Confidence::Low));
}

/// Buffers that are mapped: temporary ones, Netty's, others; steady or growing.
#[test]
fn buffers() {
    let temporary = [
        "mmap",
        "Unsafe_AllocateMemory0",
        "java.nio.DirectByteBuffer.<init>",
        "sun.nio.ch.Util.getTemporaryDirectBuffer",
        "a.B.read",
    ];
    let netty = [
        "mmap",
        "Unsafe_AllocateMemory0",
        "java.nio.DirectByteBuffer.<init>",
        "io.netty.buffer.PoolArena$DirectArena.newChunk",
        "a.B.run",
    ];
    let direct = ["mmap", "Unsafe_AllocateMemory0", "java.nio.DirectByteBuffer.<init>", "a.B.run"];
    let directory =
        ["mmap", "malloc", "readCEN", "ZIP_Put_In_Cache0", "java.util.zip.ZipFile.open"];
    let early = |n: u64| S + n * S / 100;
    let always = |n: u64| n * S / 2;
    // (frames, when, the finding, whether it is suspicious)
    type When = fn(u64) -> u64;
    let cases: [(&[&str], When, &str, bool); 7] = [
        (&temporary, early, "nio-temporary-buffers", true),
        (&netty, early, "netty-chunks", false),
        (&netty, always, "netty-chunks", true),
        (&direct, early, "direct-buffers", false),
        (&direct, always, "direct-buffers", true),
        (&directory, early, "zip-directories", true),
        (&["mmap", "a.B.run"], always, "", false),
    ];
    for (frames, when, id, is_suspicious) in cases {
        let mut sample = Sample::new();
        sample.row(RowKind::Anonymous, 100 * MIB);
        let stack = sample.stack(frames);
        sample.blocks(stack, when);
        let (suspicious, by_design) = found(&sample.done());
        let want: Vec<_> = (!id.is_empty()).then_some((id, 100 * MIB)).into_iter().collect();
        assert_eq!(if is_suspicious { &suspicious } else { &by_design }, &want, "{frames:?}");
        assert!(if is_suspicious { by_design } else { suspicious }.is_empty(), "{frames:?}");
    }
}

/// What is a row of the footprint: found from a size on, and not below.
#[test]
fn rows() {
    use RowKind::{CodeCache, File, JavaHeapViews, MallocFragments, Metaspace, ThreadStacks};
    // (row, bytes, what is suspicious, what is by design)
    type Ids = &'static [&'static str];
    let cases: [(RowKind, u64, Ids, Ids); 12] = [
        (ThreadStacks, 80 * MIB, &["thread-stacks"], &[]),
        (ThreadStacks, 40 * MIB, &[], &[]),
        (MallocFragments, 40 * MIB, &["malloc-fragments"], &[]),
        (MallocFragments, 10 * MIB, &[], &[]),
        (CodeCache, 120 * MIB, &[], &["code-cache"]),
        (CodeCache, 60 * MIB, &[], &[]),
        (File, 100 * MIB, &[], &["mapped-files"]),
        (File, 20 * MIB, &[], &[]),
        (JavaHeapViews, 400 * MIB, &[], &["zgc-heap-counted-again"]),
        (JavaHeapViews, MIB, &[], &[]),
        (Metaspace, 100 * MIB, &[], &[]),
        (RowKind::Gc, 100 * MIB, &[], &[]),
    ];
    for (kind, bytes, suspicious, by_design) in cases {
        let mut sample = Sample::new();
        sample.row(kind, bytes);
        let found = found(&sample.done());
        let want = |ids: Ids| ids.iter().map(|id| (*id, bytes)).collect::<Vec<_>>();
        assert_eq!(found, (want(suspicious), want(by_design)), "{kind:?} {bytes}");
    }
}

/// Fragments beside much that is in use on full pages are usual.
#[test]
fn few_fragments() {
    let mut sample = Sample::new();
    sample.row(RowKind::MallocLive, 200 * MIB);
    sample.row(RowKind::MallocFragments, 60 * MIB);
    assert_eq!(suspicious(sample), []);
}

/// What a collection returns is what its collector does; -Xms is a floor.
#[test]
fn heap() {
    // (collector, -Xms, what a collection returns)
    let cases = [
        ("G1", "", 167..=250),
        ("G1", "-Xms100m", 167..=200),
        ("G1", "-Xms1g", 0..=0),
        ("Shenandoah", "", 200..=250),
        ("Serial", "", 0..=0),
        ("ZGC", "", 0..=0),
    ];
    for (collector, floor, returns) in cases {
        let mut sample = Sample::new();
        sample.recording.target.command.push(floor.into());
        sample.heap(collector, 50 * MIB, 300 * MIB, 300 * MIB);
        let recording = sample.done();
        let finding = one(&recording, "java-heap-not-used");
        assert_eq!((finding.bytes, finding.verdict), (250 * MIB, Verdict::ByDesign));
        let got = finding.remedies[0].returns.clone().unwrap();
        let mib = |bytes: u64| bytes.div_ceil(MIB);
        assert!(mib(*got.start()).abs_diff(*returns.start()) <= 34, "{collector} {floor} {got:?}");
        assert!(mib(*got.end()).abs_diff(*returns.end()) <= 1, "{collector} {floor} {got:?}");
    }
    let mut sample = Sample::new();
    sample.heap("G1", 250 * MIB, 300 * MIB, 300 * MIB);
    assert_eq!(suspicious(sample), []);
}

/// What the compilers left, and what is left beside it.
#[test]
fn compilers() {
    let mut sample = Sample::new();
    sample.thread(110, "C2 CompilerThread0");
    let stack = sample.stack(&["mprotect", "malloc", "Compile::Compile"]);
    sample.arena(110, stack, 100 * MIB, 80 * MIB);
    assert_eq!(suspicious(sample), [("compiler-arenas", 80 * MIB)]);
}

/// What any start-up leaves of its compilers is told of, and is nothing to worry about.
#[test]
fn compilers_of_a_start() {
    let mut sample = Sample::new();
    sample.thread(110, "C2 CompilerThread0");
    let stack = sample.stack(&["mprotect", "malloc", "Compile::Compile"]);
    sample.arena(110, stack, 50 * MIB, 40 * MIB);
    let (suspicious, by_design) = found(&sample.done());
    assert_eq!((suspicious, by_design), (vec![], vec![("compiler-arenas", 40 * MIB)]));
}

/// Free memory in one arena after the other.
#[test]
fn many_arenas() {
    let mut sample = Sample::new();
    for tid in 200..232 {
        sample.thread(tid, "worker");
        let stack = sample.stack(&["mprotect", "malloc", "work"]);
        sample.arena(tid, stack, 4 * MIB, 3 * MIB);
    }
    assert_eq!(suspicious(sample), [("arena-count", 96 * MIB)]);
}

/// Classes that go on growing, and classes of a start-up that is over.
#[test]
fn classes() {
    for (goes_on, want) in [(true, vec![("class-metadata-growth", 50 * MIB)]), (false, vec![])] {
        let mut sample = Sample::new();
        let stack = sample.stack(&["mmap", "metaspace::VirtualSpaceNode::commit_range", "a.B.run"]);
        sample.blocks(stack, |n| if goes_on { n * S / 2 } else { S + n * S / 100 });
        let mut first = sample.footprint.clone();
        first.time_ns = S;
        sample.recording.apply(Record::Footprint(Box::new(first)));
        sample.row(RowKind::Metaspace, 50 * MIB);
        assert_eq!(suspicious(sample), want, "{goes_on}");
    }
}

/// What only the container counts; without a limit, or far from it, it is no matter.
#[test]
fn container() {
    let container = |limit, file, shmem| Container {
        version: 2,
        limit_bytes: limit,
        usage_bytes: 1000 * MIB,
        parts: vec![("file".into(), file * MIB), ("shmem".into(), shmem * MIB)],
    };
    // (container, what is suspicious, what is by design)
    type Found = Vec<(&'static str, u64)>;
    let cases: [(Container, Found, Found); 4] = [
        (container(Some(1100 * MIB), 700, 0), vec![], vec![("page-cache", 700 * MIB)]),
        (container(Some(9000 * MIB), 700, 0), vec![], vec![]),
        (container(None, 700, 700), vec![], vec![]),
        (container(Some(1100 * MIB), 700, 700), vec![("tmpfs-in-container", 700 * MIB)], vec![]),
    ];
    for (container, suspicious, by_design) in cases {
        let mut sample = Sample::new();
        sample.footprint.container = Some(container.clone());
        assert_eq!(found(&sample.done()), (suspicious, by_design), "{container:?}");
    }
}

/// Suspicious ones come first, the largest of each kind first.
#[test]
fn order() {
    let mut sample = scan(CLEANER);
    sample.row(RowKind::ThreadStacks, 80 * MIB);
    sample.heap("G1", 50 * MIB, 600 * MIB, 600 * MIB);
    let found = findings(&sample.done()).unwrap().list;
    let ids: Vec<_> = found.iter().map(|it| it.id).collect();
    assert_eq!(ids, ["inflaters-left-to-collector", "thread-stacks", "java-heap-not-used"]);
}

/// Damaged traces may claim anything; nothing overflows.
#[test]
fn any_numbers() {
    for kind in RowKind::ALL {
        let mut sample = Sample::new();
        sample.footprint.rows =
            vec![crate::footprint::Row { kind, resident_bytes: u64::MAX, swap_bytes: u64::MAX }];
        sample.footprint.rss_bytes = u64::MAX;
        sample.heap_claims(u64::MAX);
        let mut recording = sample.done();
        if let Some(end) = &mut recording.end {
            end.why = Why::OutputFailed;
        }
        let _any = findings(&recording);
    }
}
