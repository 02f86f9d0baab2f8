//! The parts of the document about an allocator's blocks: absent where its calls were not traced.

use std::collections::HashMap;

use serde::Serialize;

use super::super::units;
use crate::{
    ledger::{Metric, StackBlocks, StackRow, ThreadRow, Trend},
    stacks::StackId,
    trace::{Held, Malloc, Recording},
};

/// Blocks in all.
#[derive(Serialize)]
pub(super) struct Blocks {
    mode: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sampled_every_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_size_bytes: Option<u64>,
    allocations: u64,
    allocated_bytes: u64,
    /// Where blocks are sampled; else calls of `free` are among the events.
    #[serde(skip_serializing_if = "Option::is_none")]
    given_back: Option<u64>,
    live_blocks: u64,
    live_bytes: u64,
    /// Half of the 95 % interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    live_bytes_error: Option<u64>,
    peak_live_bytes: u64,
    peak_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    freed_before: Option<u64>,
    /// Where small blocks are ignored it can't be told which of the two.
    #[serde(skip_serializing_if = "Option::is_none")]
    freed_before_or_ignored: Option<u64>,
    #[serde(flatten)]
    ignored: Option<Ignored>,
    freed_inherited: u64,
    frees_unknown: u64,
    frees_missed: u64,
    blocks_not_kept: u64,
    freed_by_other_thread: u64,
    /// Of the live ones, what open Inflaters and Deflaters of Java hold.
    inflaters_live_blocks: u64,
    inflaters_live_bytes: u64,
}

/// Blocks that were too small to be told of.
#[derive(Serialize)]
struct Ignored {
    ignored_blocks: u64,
    ignored_bytes: u64,
}

/// Blocks that a thread asked for.
#[derive(Serialize)]
pub(super) struct BlocksOfThread {
    mallocs: u64,
    malloc_bytes: u64,
    malloc_live_bytes: u64,
    /// What open Inflaters and Deflaters hold of them.
    inflaters_live_bytes: u64,
    #[serde(flatten)]
    ignored: Option<Ignored>,
}

/// Blocks that were asked for at a stack. How they go on is the same for all threads that come there.
#[derive(Serialize)]
pub(super) struct BlocksOfStack {
    /// Live ones of this thread.
    #[serde(skip_serializing_if = "Option::is_none")]
    blocks: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trend: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mean_life_seconds: Option<f64>,
}

/// How the blocks of each stack go on.
pub(super) struct Trends(HashMap<StackId, StackBlocks>);

impl Blocks {
    pub(super) fn of(recording: &Recording) -> Option<Self> {
        let (mode, sampled_every_bytes) = match recording.malloc? {
            Malloc::Exact => ("exact", None),
            Malloc::Sampled { mean_bytes } => ("sampled", Some(mean_bytes)),
        };
        let ledger = &recording.ledger;
        let (counts, min_size) = (ledger.blocks(), recording.min_size);
        let held = recording.held_by_streams().unwrap_or_default();
        let of_streams = |of: fn(&Held) -> u64| held.iter().map(of).fold(0, u64::saturating_add);
        Some(Self {
            mode,
            sampled_every_bytes,
            min_size_bytes: min_size,
            allocations: counts.allocations,
            allocated_bytes: counts.allocated_bytes,
            given_back: sampled_every_bytes.map(|_| counts.given_back),
            live_blocks: counts.live,
            live_bytes: counts.live_bytes,
            live_bytes_error: counts.error_bytes,
            peak_live_bytes: counts.peak_bytes,
            peak_seconds: units::seconds(ledger.since_start_ns(counts.peak_ns)),
            freed_before: min_size.is_none().then_some(counts.freed_before),
            freed_before_or_ignored: min_size.map(|_| counts.freed_before),
            ignored: min_size.map(|_| Ignored {
                ignored_blocks: counts.ignored,
                ignored_bytes: counts.ignored_bytes,
            }),
            freed_inherited: counts.freed_inherited,
            frees_unknown: counts.frees_unknown,
            frees_missed: counts.frees_missed,
            blocks_not_kept: counts.not_kept,
            freed_by_other_thread: counts.freed_by_other,
            inflaters_live_blocks: of_streams(|held| held.blocks),
            inflaters_live_bytes: of_streams(|held| held.bytes),
        })
    }
}

impl BlocksOfThread {
    /// `held` is what Inflaters and Deflaters hold that the thread asked for.
    pub(super) fn of(recording: &Recording, row: &ThreadRow<'_>, held: u64) -> Option<Self> {
        recording.malloc.map(|_| Self {
            mallocs: row.blocks.mallocs.rounded(),
            malloc_bytes: row.blocks.malloc_bytes,
            malloc_live_bytes: row.blocks.malloc_live_bytes,
            inflaters_live_bytes: held,
            ignored: recording.min_size.map(|_| Ignored {
                ignored_blocks: row.thread.ignored,
                ignored_bytes: row.thread.ignored_bytes,
            }),
        })
    }
}

impl Trends {
    pub(super) fn of(recording: &Recording) -> Self {
        let rows = recording.malloc.map(|_| recording.ledger.stacks_of_blocks());
        Self(rows.unwrap_or_default().into_iter().map(|row| (row.stack, row)).collect())
    }

    /// What is told of blocks with a row of `metric`.
    pub(super) fn blocks(&self, metric: Metric, row: &StackRow) -> Option<BlocksOfStack> {
        let of_stack = self.0.get(&row.stack).filter(|_| metric.is_malloc())?;
        Some(BlocksOfStack {
            blocks: (metric == Metric::MallocLive).then_some(row.n_live_blocks),
            trend: of_stack.trend.map(trend),
            mean_life_seconds: of_stack.mean_life_ns.map(units::seconds),
        })
    }
}

fn trend(trend: Trend) -> &'static str {
    match trend {
        Trend::Growing => "growing",
        Trend::Steady => "steady",
        Trend::Churn => "churn",
    }
}
