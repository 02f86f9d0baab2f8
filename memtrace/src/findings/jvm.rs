//! The JVM's own areas: a heap that is larger than it needs to be now, code, classes.

use crate::{
    footprint::{JavaHeap, RowKind},
    ledger::Metric,
    stacks::StackId,
};

use super::{
    Confidence, Finding, Part, Remedy, Sentence, Verdict, evidence::Evidence, sentence::say,
    trunk::trunk,
};

/// Of what is resident, the percentage that unused heap must be.
const MIN_UNUSED_PERCENT: u128 = 25;
/// Less code is usual: the code cache is bounded by 240 MiB.
const MIN_CODE_BYTES: u64 = 96 << 20;
/// G1 leaves so much of its heap free after a collection, in percent (`MaxHeapFreeRatio`, the default of 8 to 25).
const MAX_FREE_PERCENT: u64 = 70;
/// Classes must have grown by so much while tracing, and for so long.
const MIN_CLASS_BYTES: u64 = 8 << 20;
const MIN_CLASS_NS: u64 = 30_000_000_000;

fn large(
    id: &'static str,
    title: Sentence,
    bytes: u64,
    proofs: Vec<Sentence>,
    remedies: Vec<Remedy>,
) -> Finding {
    Finding {
        id,
        title,
        verdict: Verdict::ByDesign,
        confidence: Confidence::High,
        bytes,
        evidence: proofs,
        call: Vec::new(),
        doubts: Vec::new(),
        remedies,
    }
}

/// Heap that is resident, but holds no object.
pub(super) fn heap_not_used(evidence: &Evidence<'_>) -> Option<Finding> {
    let bytes = evidence.resident(RowKind::JavaHeapUnused);
    let heap = evidence.footprint.java_heap.as_ref()?;
    let rss = u128::from(evidence.footprint.rss_bytes);
    if !evidence.is_much(bytes) || u128::from(bytes) * 100 < rss * MIN_UNUSED_PERCENT {
        return None;
    }
    let used = heap.used_bytes.unwrap_or(heap.resident_bytes.saturating_sub(bytes));
    let proofs = vec![say![
        Part::Bytes(heap.resident_bytes),
        " of the heap are resident, ",
        Part::Bytes(used),
        " are used; ",
        Part::Bytes(heap.committed_bytes),
        " are committed"
    ]];
    let remedies = vec![collection(evidence, heap, used), smaller(evidence)];
    Some(large("java-heap-not-used", say!["Java heap without objects"], bytes, proofs, remedies))
}

/// What a full collection returns, by what collectors do (measured on JDK 11 to 25).
fn collection(evidence: &Evidence<'_>, heap: &JavaHeap, used: u64) -> Remedy {
    let pid = u64::from(evidence.recording.target.pid);
    let floor = option_bytes(evidence, "-Xms").unwrap_or_default().min(heap.resident_bytes);
    let resident = heap.resident_bytes;
    let (returns, rests_on) = match heap.collector.as_str() {
        "G1" => {
            let most_left =
                (used / (100 - MAX_FREE_PERCENT)).saturating_mul(100).max(floor).min(resident);
            let least_left = used.max(floor).min(resident);
            let rests_on = if floor == 0 {
                say!["G1 keeps up to 70 % of what is left free (MaxHeapFreeRatio)"]
            } else {
                say!["G1 keeps what -Xms asks for, and up to 70 % free (MaxHeapFreeRatio)"]
            };
            (resident - most_left..=resident - least_left, rests_on)
        }
        "Shenandoah" => {
            let left = used.max(floor).min(resident);
            (
                (resident - left) / 10 * 8..=resident - left,
                say!["it uncommits at once, down to -Xms"],
            )
        }
        "ZGC" => (0..=0, say!["it uncommits later, after ZUncommitDelay, down to -Xms"]),
        _ => (0..=0, say!["this collector keeps the pages"]),
    };
    Remedy {
        action: say![format!("jcmd {pid} GC.run")],
        returns: Some(returns),
        rests_on,
        compare: None,
    }
}

fn smaller(evidence: &Evidence<'_>) -> Remedy {
    let has_floor = option_bytes(evidence, "-Xms").is_some();
    let action = if has_floor {
        say![
            "a smaller -Xmx and -Xms; with -Xms below -Xmx, G1PeriodicGCInterval gives back when idle"
        ]
    } else {
        say!["a smaller -Xmx; -XX:G1PeriodicGCInterval=60000 gives back when idle (12 and later)"]
    };
    Remedy { action, returns: None, ..Remedy::default() }
}

/// The size that an option of the command line has, the last one of its kind.
fn option_bytes(evidence: &Evidence<'_>, option: &str) -> Option<u64> {
    let words = evidence.recording.target.command.iter();
    let value = words.filter_map(|word| word.strip_prefix(option)).next_back()?;
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match value.get(digits.len()..)?.to_ascii_lowercase().as_str() {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1_u64 << 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// Pages of ZGC's heap that RSS counts more than once.
pub(super) fn heap_views(evidence: &Evidence<'_>) -> Option<Finding> {
    let bytes = evidence.resident(RowKind::JavaHeapViews);
    if !evidence.is_much(bytes) {
        return None;
    }
    let rss = evidence.footprint.rss_bytes;
    let proofs = vec![say![
        "ZGC maps its heap several times; of the ",
        Part::Bytes(rss),
        " of RSS ",
        Part::Bytes(rss.saturating_sub(bytes)),
        " are memory"
    ]];
    let remedies = vec![Remedy {
        action: say![
            "nothing to do: read Pss, or what the container is charged; -XX:+ZGenerational (21) maps it once"
        ],
        returns: Some(0..=0),
        ..Remedy::default()
    }];
    Some(large(
        "zgc-heap-counted-again",
        say!["pages that RSS counts again"],
        bytes,
        proofs,
        remedies,
    ))
}

/// A large code cache.
pub(super) fn code_cache(evidence: &Evidence<'_>) -> Option<Finding> {
    let bytes = evidence.resident(RowKind::CodeCache);
    if bytes < MIN_CODE_BYTES || !evidence.is_much(bytes) {
        return None;
    }
    let proofs = vec![say![
        "compiled code is ",
        Part::Share(bytes, evidence.footprint.rss_bytes),
        " of the resident bytes; that is usual for large applications"
    ]];
    let remedies = vec![Remedy {
        action: say!["-XX:ReservedCodeCacheSize=96m"],
        returns: None,
        rests_on: say!["less is compiled then, and slower"],
        compare: Some("-XX:ReservedCodeCacheSize=96m"),
    }];
    Some(large("code-cache", say!["code cache"], bytes, proofs, remedies))
}

/// Class metadata that goes on growing: loaders that are not unloaded.
pub(super) fn class_metadata(evidence: &Evidence<'_>) -> Option<Finding> {
    let (first, last) = (evidence.recording.first_footprint.as_ref()?, evidence.footprint);
    let span_ns = last.time_ns.saturating_sub(first.time_ns);
    let grown = [RowKind::Metaspace, RowKind::ClassSpace]
        .map(|kind| last.resident(kind).saturating_sub(first.resident(kind)));
    let grown = grown[0].saturating_add(grown[1]);
    if grown < MIN_CLASS_BYTES || span_ns < MIN_CLASS_NS {
        return None;
    }
    let recording = evidence.recording;
    let is_class_memory =
        |name: &str| name.starts_with("metaspace::") || name.starts_with("Metaspace::");
    let stacks: Vec<(StackId, u64)> = recording
        .ledger
        .by_stack(Metric::MappedLive)
        .iter()
        .filter(|row| evidence.passes(row.stack, is_class_memory))
        .map(|row| (row.stack, row.value))
        .collect();
    let growth = recording.ledger.growth_of_mapped(&stacks).filter(|&growth| growth > 0)?;
    let pid = u64::from(recording.target.pid);
    Some(Finding {
        id: "class-metadata-growth",
        title: say!["more and more classes"],
        verdict: Verdict::Suspicious,
        confidence: Confidence::Medium,
        bytes: grown,
        evidence: vec![say![
            "metaspace and class space grew by ",
            Part::Bytes(grown),
            " in ",
            Part::Span(span_ns),
            ", and go on by ",
            Part::Bytes(growth),
            " a second"
        ]],
        call: trunk(recording, &stacks),
        doubts: vec![say!["classes that are loaded for the first time look the same for a while"]],
        remedies: vec![Remedy {
            action: say![format!(
                "find the loaders that should be gone: memtrace heap {pid} loaders --dump"
            )],
            returns: None,
            rests_on: say!["a loader's classes go with it, all at once"],
            compare: None,
        }],
    })
}
