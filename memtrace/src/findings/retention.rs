//! Free pages that malloc keeps resident: who made them so, and what gives them back.

use crate::{
    footprint::{Arena, RowKind},
    ledger::Metric,
    trace::Why,
};

use super::{
    Confidence, Finding, Part, Remedy, Verdict, evidence::Evidence, scans, sentence::say, story,
    threads, trunk::trunk,
};

/// A heap of an arena, in address space (glibc malloc/arena.c, HEAP_MAX_SIZE).
const HEAP_BYTES: u64 = 64 << 20;
/// So many arenas, none of which has much of the whole, are the matter themselves.
const MANY_ARENAS: u64 = 12;
/// The part of what is resident that malloc may keep free: a JVM that has just started, and is well, has a ninth.
const MIN_RETAINED_PART: u64 = 6;
/// The JVM trims by itself from this release on (JDK-8293114; 17.0.9, 21.0.1, 22).
const TRIMS_ITSELF: u32 = 17;

/// What the last stack frame is called where an arena grows.
fn is_growth(name: &str) -> bool {
    ["mprotect", "__mprotect", "brk", "__brk", "sbrk", "__sbrk"].contains(&name)
}

/// Bytes by which a thread has grown arenas.
pub(super) fn grown_by(evidence: &Evidence<'_>, thread: u32) -> u64 {
    let recording = evidence.recording;
    let rows = recording.ledger.by_stack(Metric::Mapped).into_iter();
    let rows = rows.filter(|row| row.thread == thread);
    let grown = rows.filter(|row| {
        // Frames come with the outermost first.
        recording.frames_of(row.stack).last().is_some_and(|frame| is_growth(&frame.name))
    });
    grown.map(|row| row.value).fold(0, u64::saturating_add)
}

/// Arenas in which a thread has made more than a little resident of what is free there.
pub(super) fn n_arenas_of(evidence: &Evidence<'_>, thread: u32) -> u64 {
    let retained = evidence.retained.as_ref();
    let share = retained.and_then(|it| it.threads.iter().find(|share| share.thread == thread));
    share.map_or(0, |share| share.n_arenas)
}

fn has_ended(evidence: &Evidence<'_>) -> bool {
    evidence.recording.end.as_ref().is_some_and(|end| end.why == Why::TargetEnded)
}

/// What a trim gives back at once, and what does it again and again.
pub(super) fn trim(evidence: &Evidence<'_>) -> Vec<Remedy> {
    let returns = evidence.resident(RowKind::MallocReturnable);
    if returns == 0 {
        return Vec::new();
    }
    let mut remedies = Vec::new();
    if evidence.is_jvm_from(TRIMS_ITSELF) {
        if !has_ended(evidence) {
            let pid = evidence.recording.target.pid;
            remedies.push(Remedy {
                action: say![format!("now: memtrace try trim {pid}")],
                returns: Some(returns..=returns),
                rests_on: say!["whole free pages, counted arena by arena"],
                compare: None,
            });
        }
        remedies.push(Remedy {
            action: say!["for good: -XX:TrimNativeHeapInterval=5000 (17.0.9, 21.0.1 and later)"],
            returns: Some(returns / 10 * 8..=returns),
            rests_on: say!["the same, less what is in use between two trims"],
            compare: Some("-XX:TrimNativeHeapInterval=5000"),
        });
    }
    remedies.push(Remedy {
        action: say!["fewer arenas: MALLOC_ARENA_MAX=2"],
        returns: None,
        rests_on: say!["threads would share pages; one trace can't tell how many"],
        compare: Some("MALLOC_ARENA_MAX=2"),
    });
    remedies
}

/// What is left of the free pages beside what a better finding explains: a burst that is over.
pub(super) fn arena_retention(evidence: &Evidence<'_>) -> Option<Finding> {
    let malloc = evidence.footprint.malloc.as_ref()?;
    let explained = story::bytes(evidence).saturating_add(threads::bytes_of_compilers(evidence));
    let bytes = story::free_bytes(evidence).saturating_sub(explained);
    if !evidence.is_much(bytes) || bytes < evidence.footprint.rss_bytes / MIN_RETAINED_PART {
        return None;
    }
    let (confidence, doubts) = evidence.trust_in_owners();
    let holds =
        |arena: &&Arena| arena.returnable_bytes.saturating_add(arena.kept_bytes) > HEAP_BYTES / 64;
    let n_arenas = malloc.arenas.iter().filter(holds).count() as u64;
    let mut proofs = vec![say![
        Part::Things(n_arenas, "arena"),
        " hold ",
        Part::Bytes(bytes),
        " of free pages beside ",
        Part::Bytes(malloc.live_bytes),
        " in use"
    ]];
    let first = evidence.retained.as_ref().and_then(|it| it.threads.first());
    let mut call = Vec::new();
    if let (Some(first), Some(retained)) = (first, &evidence.retained) {
        proofs.push(say![
            Part::Share(first.bytes, retained.bytes),
            " of it was made resident by ",
            Part::Thread(first.thread)
        ]);
        call = trunk(evidence.recording, &evidence.retained_by(first.thread));
    }
    let scan = scans::scan_in(evidence, &call);
    let largest =
        malloc.arenas.iter().map(|it| it.returnable_bytes.saturating_add(it.kept_bytes)).max();
    let is_scattered = n_arenas >= MANY_ARENAS && largest.unwrap_or_default() < bytes / 8;
    let title = match scan {
        Some(scan) => say!["malloc keeps what ", scan.name, " once needed"],
        None if is_scattered => say!["malloc keeps free memory in each of many arenas"],
        None => say!["malloc keeps free memory of a burst that is over"],
    };
    let mut remedies = Vec::new();
    remedies.extend(scan.map(|scan| Remedy {
        action: say!["scan only what is needed: ", scan.restrict],
        ..Remedy::default()
    }));
    remedies.extend(trim(evidence));
    Some(Finding {
        id: if is_scattered { "arena-count" } else { "arena-retention" },
        title,
        verdict: Verdict::Suspicious,
        confidence,
        bytes,
        evidence: proofs,
        call,
        doubts,
        remedies,
    })
}

/// Free bytes on pages with blocks in use, which no trim gives back.
pub(super) fn fragments(evidence: &Evidence<'_>) -> Option<Finding> {
    let bytes = evidence.resident(RowKind::MallocFragments);
    let live = evidence.resident(RowKind::MallocLive);
    if !evidence.is_much(bytes) || bytes < evidence.footprint.rss_bytes / 10 || bytes < live / 2 {
        return None;
    }
    Some(Finding {
        id: "malloc-fragments",
        title: say!["blocks in use are scattered over pages that are free else"],
        verdict: Verdict::Suspicious,
        confidence: Confidence::High,
        bytes,
        evidence: vec![say![
            Part::Bytes(live),
            " in use lie on pages with ",
            Part::Bytes(bytes),
            " that are free; a trim returns ",
            Part::Bytes(evidence.resident(RowKind::MallocReturnable)),
            " beside"
        ]],
        call: Vec::new(),
        doubts: Vec::new(),
        remedies: vec![Remedy {
            action: say!["an allocator with a place for each size: LD_PRELOAD=libjemalloc.so.2"],
            returns: None,
            rests_on: say!["blocks of one size share pages there"],
            compare: Some("LD_PRELOAD=libjemalloc.so.2"),
        }],
    })
}
