//! The part of the end screen about stacks.

use super::{Screen, names, units};
use crate::{
    ledger::{Metric, StackRow, Unit},
    trace::Recording,
};

/// Stacks that are listed.
const MAX_STACKS: usize = 5;
/// Lines of a stack; of a deeper one, the innermost and the outermost frames.
const MAX_LINES: usize = 12;
/// Outermost frames of a stack that is too deep.
const N_OUTERMOST: usize = 3;
/// Columns that a thread's name gets at most.
const NAME: usize = 40;

/// The stacks with the largest values, each with its frames, the innermost first.
pub(super) fn list(recording: &Recording, metric: Metric, screen: &mut Screen) {
    let rows = recording.ledger.by_stack(metric);
    if rows.is_empty() {
        return;
    }
    screen.heading(&format!("Stacks by {}", names::counted(metric)));
    for row in rows.iter().take(MAX_STACKS) {
        screen.line(&format!("  {}", about(recording, metric, row)));
        for frame in frames(recording, row) {
            screen.line(&format!("      {frame}"));
        }
    }
    let rest = rows.get(MAX_STACKS..).unwrap_or_default();
    if !rest.is_empty() {
        let sum = rest.iter().fold(0_u64, |sum, row| sum.saturating_add(row.value));
        let n = units::things(rest.len() as u64, "more stack");
        screen.line(&format!("  {} at {n}", value(metric, sum)));
    }
}

fn about(recording: &Recording, metric: Metric, row: &StackRow) -> String {
    let mut text = value(metric, row.value);
    if let Some(share) = units::share(row.value, recording.ledger.sum(metric)) {
        text.push_str(&format!(" ({share})"));
    }
    if metric.unit() == Unit::Bytes {
        text.push_str(&format!(" in {}", units::things(row.n_events, "call")));
    }
    if let Some(thread) = recording.ledger.threads().get(row.thread as usize) {
        text.push_str(&format!(" by {}", names::thread_with_id(thread, NAME)));
    }
    if let Some(quality) = names::quality(recording.quality_of(row.stack)) {
        text.push_str(&format!(", stack {quality}"));
    }
    text
}

fn frames(recording: &Recording, row: &StackRow) -> Vec<String> {
    let mut frames: Vec<_> = recording.frames_of(row.stack).map(names::frame).collect();
    frames.reverse();
    if frames.len() > MAX_LINES {
        let left_out = MAX_LINES - N_OUTERMOST - 1..frames.len() - N_OUTERMOST;
        let line = format!("… {} more frames …", left_out.len());
        frames.splice(left_out, [line]);
    }
    frames
}

fn value(metric: Metric, value: u64) -> String {
    match metric.unit() {
        Unit::Bytes => units::bytes(value),
        Unit::Count => units::count(value),
    }
}
