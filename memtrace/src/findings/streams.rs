//! Inflaters and Deflaters that are never ended, and whose objects are still referenced.
//!
//! Their look-alikes are streams that are kept and used again (all of them opened early), and such as wait for the next
//! collection (all of them opened since the last one).

use crate::{
    footprint::RowKind,
    ledger::{OpenStream, StreamKind},
    stacks::StackId,
};

use super::{
    Confidence, Finding, Part, Remedy, Verdict, evidence::Evidence, sentence::say, trunk::trunk,
};

/// What an Inflater has of malloc once it has inflated: zlib's state of 7,160 bytes, a window of 32 KiB, and `z_stream`
/// (zlib 1.2.13, inflate.h; java.base/share/native/libzip/Inflater.c).
const INFLATER_BYTES: u64 = 7160 + 32_768 + 112;
/// The same of a Deflater: 256 KiB of tables, windows and pending output, and its state (zlib 1.2.13, deflate.c).
const DEFLATER_BYTES: u64 = 262_144 + 5_936 + 112;
/// Parts of the trace; survivors of each but the first one are needed.
const N_PARTS: usize = 4;
/// Of all survivors, a part of the trace must have one in so many.
const MIN_PART: u64 = 16;
/// A shorter trace tells nothing.
const MIN_TRACE_NS: u64 = 8_000_000_000;
/// Fewer are no leak.
const MIN_STREAMS: u64 = 50;

/// Inflaters that are never ended.
pub(super) fn inflaters(evidence: &Evidence<'_>) -> Option<Finding> {
    let kinds = [StreamKind::Inflater, StreamKind::Inflate];
    never_ended(evidence, kinds, "inflaters-never-ended", "Inflater", INFLATER_BYTES)
}

/// Deflaters that are never ended.
pub(super) fn deflaters(evidence: &Evidence<'_>) -> Option<Finding> {
    let kinds = [StreamKind::Deflater, StreamKind::Deflate];
    never_ended(evidence, kinds, "deflaters-never-ended", "Deflater", DEFLATER_BYTES)
}

fn never_ended(
    evidence: &Evidence<'_>,
    kinds: [StreamKind; 2],
    id: &'static str,
    name: &'static str,
    each_bytes: u64,
) -> Option<Finding> {
    let recording = evidence.recording;
    let ledger = &recording.ledger;
    let collected_ns = ledger.streams_ended_by_other_ns();
    let mut open = ledger.open_streams(recording.target.pid);
    // What was opened since the last collection may be garbage already.
    open.retain(|it| kinds.contains(&it.kind) && collected_ns.is_none_or(|at| it.opened_ns <= at));
    let n = open.len() as u64;
    let until_ns = collected_ns.unwrap_or(ledger.start_ns().saturating_add(ledger.duration_ns()));
    if n < MIN_STREAMS || !is_growing(&open, ledger.start_ns(), until_ns) {
        return None;
    }
    let held = recording.held_by_streams();
    let seen: Option<u64> =
        held.map(|held| held.iter().map(|it| it.bytes).fold(0, u64::saturating_add));
    let live = evidence.resident(RowKind::MallocLive);
    let bytes = n.saturating_mul(each_bytes).min(seen.unwrap_or(u64::MAX)).min(live);
    if !evidence.is_much(bytes) {
        return None;
    }
    let weights: Vec<(StackId, u64)> = open.iter().map(|it| (it.stack, 1)).collect();
    let thread = most_frequent(open.iter().map(|it| it.thread))?;
    let mut doubts = Vec::new();
    if seen.is_none() {
        doubts.push(say![
            "how much each holds is zlib's usual ",
            Part::Bytes(each_bytes),
            ", not measured; --malloc exact measures it"
        ]);
    }
    if collected_ns.is_none() {
        doubts.push(say!["no collection has ended any: some may be garbage that waits for one"]);
    }
    let confidence = match doubts.len() {
        0 => Confidence::High,
        1 => Confidence::Medium,
        _ => Confidence::Low,
    };
    let span = until_ns.saturating_sub(ledger.start_ns());
    let mut proofs = vec![say![
        Part::Things(n, name),
        " opened over ",
        Part::Span(span),
        " and never ended, most by ",
        Part::Thread(thread)
    ]];
    proofs.extend(collected_ns.map(|at| {
        let ago = ledger.start_ns().saturating_add(ledger.duration_ns()).saturating_sub(at);
        say![
            "they outlived the collection ",
            Part::Span(ago),
            " before the end: something still refers to them"
        ]
    }));
    Some(Finding {
        id,
        title: say![Part::Things(n, name), " are never ended, and more come"],
        verdict: Verdict::Suspicious,
        confidence,
        bytes,
        evidence: proofs,
        call: trunk(recording, &weights),
        doubts,
        remedies: vec![Remedy {
            action: say![
                "end each: try (stream) { … }, or ",
                name,
                ".end() in a finally block where it is your own"
            ],
            returns: Some(bytes / 10 * 8..=bytes),
            rests_on: say!["what those hold that are open now; it goes on growing"],
            compare: None,
        }],
    })
}

/// Whether survivors come from all of the time but perhaps its first part.
fn is_growing(open: &[OpenStream], start_ns: u64, until_ns: u64) -> bool {
    let span_ns = until_ns.saturating_sub(start_ns);
    if span_ns < MIN_TRACE_NS {
        return false;
    }
    let mut parts = [0_u64; N_PARTS];
    for it in open {
        let at = u128::from(it.opened_ns.saturating_sub(start_ns)) * N_PARTS as u128;
        let part = (at / u128::from(span_ns)).min(N_PARTS as u128 - 1) as usize;
        parts[part] += 1;
    }
    parts[1..].iter().all(|&n| n * MIN_PART >= open.len() as u64)
}

pub(super) fn most_frequent(threads: impl Iterator<Item = u32>) -> Option<u32> {
    let mut counts: std::collections::BTreeMap<u32, u64> = std::collections::BTreeMap::new();
    threads.for_each(|thread| *counts.entry(thread).or_default() += 1);
    counts.into_iter().max_by_key(|&(thread, n)| (n, std::cmp::Reverse(thread))).map(|it| it.0)
}
