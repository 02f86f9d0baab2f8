//! The part of the end screen about an allocator's blocks; nothing where its calls were not traced.

use super::{Screen, names, stacks, units};
use crate::{
    ledger::{BlockCounts, StackBlocks, TAIL_PERCENT, Trend},
    trace::{Malloc, Recording},
};

/// Stacks that hold blocks and are listed.
const MAX_HOLDERS: usize = 2;
/// Columns that a thread's name gets at most.
const NAME: usize = 40;

/// How much was allocated and is live, in all.
pub(super) fn sums(recording: &Recording, screen: &mut Screen) {
    let Some(how) = recording.malloc else { return };
    let ledger = &recording.ledger;
    let blocks = ledger.blocks();
    let how = match how {
        Malloc::Exact => {
            let min_size = recording.min_size.map(units::bytes);
            min_size.map(|size| format!(" of {size} or more")).unwrap_or_default()
        }
        Malloc::Sampled { mean_bytes } => {
            format!(", sampled every {} on average", units::bytes(mean_bytes))
        }
    };
    let (allocated, live) = (units::bytes(blocks.allocated_bytes), live_bytes(&blocks));
    screen.labeled_parts(
        "malloc",
        &[
            format!("{allocated} allocated in {}{how}", units::things(blocks.allocations, "block")),
            format!("{live} in {} live", units::things(blocks.live, "block")),
            format!(
                "{} at the peak after {}",
                units::bytes(blocks.peak_bytes),
                units::span(ledger.since_start_ns(blocks.peak_ns))
            ),
        ],
    );
    if let Some(min_size) = recording.min_size {
        let n = units::things(blocks.ignored, "block");
        let (bytes, size) = (units::bytes(blocks.ignored_bytes), units::bytes(min_size));
        screen.labeled("ignored", &format!("{bytes} in {n} of less than {size}"));
    }
    let before = match recording.min_size {
        Some(_) => "that are ignored or from before tracing began",
        None => "from before tracing began",
    };
    let freed = [
        (blocks.freed_before, before),
        (blocks.freed_inherited, "that children have from their parents"),
        (blocks.freed_by_other, "by another thread than the one that asked"),
    ];
    let freed: Vec<_> = freed
        .into_iter()
        .filter(|&(n, _)| n > 0)
        .map(|(n, what)| format!("{} {what}", units::count(n)))
        .collect();
    if !freed.is_empty() {
        screen.labeled_parts("freed", &freed);
    }
}

/// Live bytes, with how far off they may be where they are estimated.
fn live_bytes(blocks: &BlockCounts) -> String {
    let live = units::bytes(blocks.live_bytes);
    match blocks.error_bytes {
        Some(error) => format!("{live} ± {}", units::bytes(error)),
        None => live,
    }
}

/// The stacks that hold the most that is not young, and the one whose blocks come and go the most.
pub(super) fn section(recording: &Recording, screen: &mut Screen) {
    if recording.malloc.is_none() {
        return;
    }
    let rows = recording.ledger.stacks_of_blocks();
    let holders: Vec<_> = rows.iter().filter(|row| row.old_bytes > 0).collect();
    let churn = rows.iter().filter(|row| row.trend == Some(Trend::Churn));
    let churn = churn.max_by_key(|row| row.blocks.malloc_bytes);
    if holders.is_empty() && churn.is_none() {
        return;
    }
    screen.heading(&format!(
        "Stacks by bytes allocated and not freed (but for the last {TAIL_PERCENT} % of the time)"
    ));
    for row in holders.iter().take(MAX_HOLDERS) {
        screen.line(&format!("  {}", held(recording, row)));
        stacks::frames_of(recording, row.stack, screen);
    }
    let rest = holders.get(MAX_HOLDERS..).unwrap_or_default();
    if !rest.is_empty() {
        screen.line(&format!("  {}", more(rest)));
    }
    if let Some(row) = churn {
        screen.line(&format!("  {}", churned(recording, row)));
        stacks::frames_of(recording, row.stack, screen);
    }
}

fn held(recording: &Recording, row: &StackBlocks) -> String {
    let about = about(recording, row, row.old_bytes, row.old.rounded());
    match row.trend {
        Some(Trend::Growing) => {
            format!("{about}, growing by {} a second", units::bytes(row.growth_per_second))
        }
        Some(Trend::Steady) => about + ", steady",
        Some(Trend::Churn) => about + ", others soon freed",
        None => about,
    }
}

fn more(rows: &[&StackBlocks]) -> String {
    let bytes = rows.iter().fold(0_u64, |sum, row| sum.saturating_add(row.old_bytes));
    let n = units::things(rows.len() as u64, "more stack");
    let growing = rows.iter().filter(|row| row.trend == Some(Trend::Growing)).count() as u64;
    let growing = if growing > 0 {
        format!(", {} of them growing", units::count(growing))
    } else {
        String::new()
    };
    format!("{} at {n}{growing}", units::bytes(bytes))
}

fn churned(recording: &Recording, row: &StackBlocks) -> String {
    let about = about(recording, row, row.blocks.malloc_bytes, row.blocks.mallocs.rounded());
    format!("soon freed: {about}, {}", row.mean_life_ns.map(life).unwrap_or_default())
}

fn about(recording: &Recording, row: &StackBlocks, bytes: u64, n: u64) -> String {
    let mut text = format!("{} in {}", units::bytes(bytes), units::things(n, "block"));
    if let Some(thread) = recording.ledger.threads().get(row.thread as usize) {
        text.push_str(&format!(" by {}", names::thread_with_id(thread, NAME)));
    }
    text
}

fn life(ns: u64) -> String {
    match ns / 1_000_000 {
        // As exact as lives are measured.
        0..10 => "after less than 10 ms".to_owned(),
        ms @ 10..1000 => format!("after {ms} ms on average"),
        _ => format!("after {} on average", units::span(ns)),
    }
}
