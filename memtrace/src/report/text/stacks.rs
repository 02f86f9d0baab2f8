//! The part of the end screen about stacks.

use super::{Screen, names, units};
use crate::{
    ledger::{Metric, StackRow, Unit},
    stacks::Frame,
    trace::Recording,
};

/// Stacks that are listed; `--folded` and `--json` have all of them.
const MAX_STACKS: usize = 3;
/// Frames of a stack; of a deeper one, the innermost and the outermost.
const MAX_FRAMES: usize = 8;
/// Outermost frames of a stack that is too deep.
const N_OUTERMOST: usize = 3;
/// Columns that a frame's name gets at most, so that a stack is a few lines.
const FRAME: usize = 40;
/// Columns that a Java frame gets with its line: the end of it says where it is, the package is left out first.
const JAVA_FRAME: usize = 64;
/// Where a stack's frames begin.
const FRAMES_INDENT: usize = 6;
/// Columns that a thread's name gets at most.
const NAME: usize = 40;

/// The stacks with the largest values, each with its frames: the innermost first, an arrow from each to the one it calls.
pub(super) fn list(recording: &Recording, metric: Metric, screen: &mut Screen) {
    let rows = recording.ledger.by_stack(metric);
    if rows.is_empty() {
        return;
    }
    screen.heading(&format!("Stacks by {}", names::counted(metric)));
    for row in rows.iter().take(MAX_STACKS) {
        screen.line(&format!("  {}", about(recording, metric, row)));
        let begin = " ".repeat(FRAMES_INDENT);
        screen.parts(&begin, &frames(recording, row), " ←", FRAMES_INDENT);
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
    let mut frames: Vec<_> = recording
        .frames_of(row.stack)
        // The arrow divides frames; no name holds one.
        .map(|frame| shown(frame).replace('←', "<-"))
        .collect();
    frames.reverse();
    if frames.len() > MAX_FRAMES {
        let left_out = MAX_FRAMES - N_OUTERMOST - 1..frames.len() - N_OUTERMOST;
        let line = format!("… {} more frames …", left_out.len());
        frames.splice(left_out, [line]);
    }
    frames
}

/// A method of Java with its line, anything else by its name.
fn shown(frame: &Frame) -> String {
    if frame.kind.is_method() {
        names::clip_start(&names::frame_with_source(frame), JAVA_FRAME)
    } else {
        names::clip(&names::frame(frame), FRAME)
    }
}

fn value(metric: Metric, value: u64) -> String {
    match metric.unit() {
        Unit::Bytes => units::bytes(value),
        Unit::Count => units::count(value),
    }
}
