//! Inflaters that nobody ends but the collector, and the arenas that grow meanwhile.
//!
//! The story: a thread opens one stream after the other and ends none of them. Each holds some 40 KiB of malloc's memory
//! (zlib's state of 7 KiB and a window of 32 KiB) until the collector finds the object and the cleaner frees them. By then
//! thousands are open, and the thread's arena has grown by what they hold. Freed, the pages stay resident.
//!
//! Its look-alike opens as many, and ends each before the next: there the opener itself has ended them, and few pages stay.

use crate::{footprint::RowKind, ledger::ThreadRow, stacks::StackId};

use super::{
    Confidence, Finding, Part, Remedy, Sentence, Verdict, evidence::Evidence, retention, scans,
    scans::Scan, sentence::say, trunk::trunk,
};

/// Streams that a thread must have left for others to end.
const MIN_LEFT: u64 = 500;
/// Any start of an old Spring Boot leaves some tens of MiB so.
const MIN_LEFT_BYTES: u64 = 64 << 20;
/// Of those that were ended, the percentage that others ended.
const MIN_LEFT_PERCENT: u64 = 50;
/// What the names of the functions begin with that ask for a stream's memory (java.base/share/native/libzip/Inflater.c).
const JNI: [&str; 2] = ["Java_java_util_zip_Inflater_", "Java_java_util_zip_Deflater_"];

/// A thread that leaves its streams to the collector.
struct Opener<'e> {
    index: u32,
    row: &'e ThreadRow<'e>,
    /// Streams that another thread ended.
    left: u64,
    /// What it made resident of the free pages, by stack, where a stream's memory was asked for.
    stacks: Vec<(StackId, u64)>,
    bytes: u64,
}

/// The threads that leave their streams to the collector, the one that made the most resident first.
fn openers<'e>(evidence: &'e Evidence<'_>) -> Vec<Opener<'e>> {
    let rows = (0..).zip(&evidence.threads).filter(|(_, row)| row.inflaters >= MIN_LEFT);
    let mut openers: Vec<Opener<'e>> = rows
        .filter_map(|(index, row)| {
            let ended: u64 = row.ended_by.iter().map(|by| by.n).sum();
            let left: u64 = row.ended_by.iter().filter(|by| !by.itself).map(|by| by.n).sum();
            if left < MIN_LEFT || left * 100 < ended * MIN_LEFT_PERCENT {
                return None;
            }
            let mut stacks = evidence.retained_by(index);
            let is_of_stream = |name: &str| JNI.iter().any(|start| name.starts_with(start));
            stacks.retain(|&(stack, _)| evidence.passes(stack, is_of_stream));
            let bytes = stacks.iter().map(|it| it.1).fold(0, u64::saturating_add);
            Some(Opener { index, row, left, stacks, bytes })
        })
        .collect();
    openers.sort_by_key(|it| (std::cmp::Reverse(it.bytes), it.index));
    openers
}

/// Bytes that Inflaters made resident which were left to the collector, where that is a finding.
pub(super) fn bytes(evidence: &Evidence<'_>) -> u64 {
    inflaters_left_to_the_collector(evidence).map_or(0, |finding| finding.bytes)
}

/// The story, as one finding.
pub(super) fn inflaters_left_to_the_collector(evidence: &Evidence<'_>) -> Option<Finding> {
    let openers = openers(evidence);
    let bytes = openers.iter().map(|it| it.bytes).fold(0, u64::saturating_add);
    let first = openers.first()?;
    if !evidence.is_much(bytes) || bytes < MIN_LEFT_BYTES {
        return None;
    }
    let call = trunk(evidence.recording, &first.stacks);
    let scan = scans::scan_in(evidence, &call);
    let (mut confidence, doubts) = evidence.trust_in_owners();
    if call.is_empty() {
        confidence = confidence.min(Confidence::Medium);
    }
    let title = match scan {
        Some(scan) => say![
            scan.name,
            " in ",
            Part::Thread(first.index),
            " leaves its Inflaters to the garbage collector"
        ],
        None => say![Part::Thread(first.index), " leaves its Inflaters to the garbage collector"],
    };
    Some(Finding {
        id: "inflaters-left-to-collector",
        title,
        verdict: Verdict::Suspicious,
        confidence,
        bytes,
        evidence: proofs(evidence, &openers, bytes),
        call,
        doubts,
        remedies: remedies(evidence, first, scan, bytes),
    })
}

fn proofs(evidence: &Evidence<'_>, openers: &[Opener<'_>], bytes: u64) -> Vec<Sentence> {
    let first = &openers[0];
    let mut proofs = vec![opened(first)];
    let grown = retention::grown_by(evidence, first.index);
    let n_arenas = retention::n_arenas_of(evidence, first.index);
    proofs.push(say![
        "meanwhile it grew ",
        Part::Things(n_arenas, "arena"),
        " of malloc's by ",
        Part::Bytes(grown),
        "; freed since, ",
        Part::Bytes(first.bytes),
        " of it are resident"
    ]);
    if let Some((others, rest)) = openers.get(1..).filter(|rest| !rest.is_empty()).map(|rest| {
        (rest.len() as u64, rest.iter().map(|it| it.bytes).fold(0, u64::saturating_add))
    }) {
        let left = openers[1..].iter().map(|it| it.left).fold(0, u64::saturating_add);
        proofs.push(say![
            Part::Things(others, "other thread"),
            " left ",
            Part::Count(left),
            " Inflaters likewise: ",
            Part::Bytes(rest)
        ]);
    }
    let retained = evidence.retained.as_ref().map_or(0, |retained| retained.bytes);
    proofs.push(say![
        "that is ",
        Part::Share(bytes, retained),
        " of what malloc keeps free and resident, and ",
        Part::Share(bytes, evidence.footprint.rss_bytes),
        " of the process"
    ]);
    proofs
}

/// How many it opened, and who ended them.
fn opened(opener: &Opener<'_>) -> Sentence {
    let row = opener.row;
    let by = row.ended_by.iter().find(|by| !by.itself).map(|by| by.thread);
    let itself: u64 = row.ended_by.iter().filter(|by| by.itself).map(|by| by.n).sum();
    let name = by.map_or(Part::from("others"), |thread| {
        Part::Name(String::from_utf8_lossy(&thread.name).into_owned())
    });
    say![
        Part::Thread(opener.index),
        " opened ",
        Part::Count(row.inflaters),
        " Inflaters: ",
        Part::Count(opener.left),
        " were ended by ",
        name,
        " and ",
        Part::Count(itself),
        " by `close` or `end`; ",
        Part::Count(row.inflaters_live),
        " are open"
    ]
}

fn remedies(
    evidence: &Evidence<'_>,
    first: &Opener<'_>,
    scan: Option<&'static Scan>,
    bytes: u64,
) -> Vec<Remedy> {
    let of_thread: u64 =
        evidence.retained_by(first.index).iter().map(|it| it.1).fold(0, u64::saturating_add);
    let mut remedies = Vec::new();
    if let Some(scan) = scan {
        remedies.push(Remedy {
            action: say!["scan only what is needed: ", scan.restrict],
            returns: Some(nearly(first.bytes)..=of_thread.max(first.bytes)),
            rests_on: say!["what ", Part::Thread(first.index), " made resident"],
            compare: None,
        });
    }
    remedies.push(Remedy {
        action: say!["close each stream: try (InputStream in = …) { … }, or end() for an Inflater of your own"],
        returns: Some(nearly(first.bytes)..=bytes),
        rests_on: say!["one that is ended leaves its blocks to the next"],
        compare: None,
    });
    remedies.extend(retention::trim(evidence));
    remedies
}

/// What others may use in its place is not returned.
fn nearly(bytes: u64) -> u64 {
    bytes / 10 * 8
}

/// Of the rows, what malloc holds free.
pub(super) fn free_bytes(evidence: &Evidence<'_>) -> u64 {
    evidence
        .resident(RowKind::MallocReturnable)
        .saturating_add(evidence.resident(RowKind::MallocKept))
}
