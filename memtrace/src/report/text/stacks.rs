//! The part of the end screen about stacks.

use std::ops::Range;

use super::{Screen, names, rows, units};
use crate::{
    ledger::{Metric, StackRow, Unit},
    stacks::{Frame, FrameId, StackId},
    trace::Recording,
};

/// Stacks that are listed; `--folded` and `--json` have all of them.
const MAX_STACKS: usize = 3;
/// The same where stacks are listed by their blocks, too.
const MAX_STACKS_BESIDE_BLOCKS: usize = 2;
/// Frames of a stack of native code; of a deeper one, the innermost and the outermost.
const MAX_FRAMES: usize = 8;
/// Outermost frames of a stack that is too deep, and of the methods in one.
const N_OUTERMOST: usize = 3;
/// Innermost frames of native code in a stack that is too deep.
const N_INNERMOST: usize = MAX_FRAMES - 1 - N_OUTERMOST;
/// Innermost methods in a stack that is too deep: their names are longer.
const N_METHODS: usize = 3;
/// Frames of native code between the call and the first method: what Java called, and by which way it got to the call.
const N_CALLED: usize = 2;
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
    let rows = rows::by_stack(recording, metric);
    if let Some(why) = rows::not_measured(recording, metric).filter(|_| rows.is_empty()) {
        screen.heading(&format!("Stacks by {}", names::counted(metric)));
        screen.line(&format!("  {why}"));
    }
    if rows.is_empty() {
        return;
    }
    screen.heading(&format!("Stacks by {}", names::counted(metric)));
    let n = if recording.malloc.is_some() { MAX_STACKS_BESIDE_BLOCKS } else { MAX_STACKS };
    for row in rows.iter().take(n) {
        screen.line(&format!("  {}", about(recording, metric, row)));
        frames_of(recording, row.stack, screen);
    }
    let rest = rows.get(n..).unwrap_or_default();
    if !rest.is_empty() {
        let sum = rest.iter().fold(0_u64, |sum, row| sum.saturating_add(row.value));
        let n = units::things(rest.len() as u64, "more stack");
        screen.line(&format!("  {} at {n}", value(metric, sum)));
    }
}

/// The frames of a stack below the line about it.
pub(super) fn frames_of(recording: &Recording, stack: StackId, screen: &mut Screen) {
    let begin = " ".repeat(FRAMES_INDENT);
    let mut frames: Vec<&Frame> = recording.frames_of(stack).collect();
    frames.reverse();
    let frames = shown_of(&frames);
    screen.parts(&begin, &frames, " ←", FRAMES_INDENT);
}

fn about(recording: &Recording, metric: Metric, row: &StackRow) -> String {
    let mut text = value(metric, row.value);
    if let Some(share) = units::share(row.value, rows::sum(recording, metric)) {
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

/// The frames that are shown of those that come with the innermost first.
pub(super) fn frames(recording: &Recording, ids: impl Iterator<Item = FrameId>) -> Vec<String> {
    let frames: Vec<&Frame> = ids.filter_map(|id| recording.frames.get(id.0 as usize)).collect();
    shown_of(&frames)
}

/// What is shown of frames that come with the innermost first.
fn shown_of(frames: &[&Frame]) -> Vec<String> {
    let is_method: Vec<bool> = frames.iter().map(|frame| frame.kind.is_method()).collect();
    let mut lines = Vec::new();
    let mut next = 0;
    for part in parts(&is_method) {
        match part.start - next {
            0 => {}
            1 => lines.push(line(frames[next])),
            n => lines.push(format!("… {} …", units::things(n as u64, "more frame"))),
        }
        next = part.end;
        lines.extend(frames[part].iter().map(|frame| line(frame)));
    }
    lines
}

/// Which frames of a stack are shown, the innermost being the first: of native code alone the two ends; of Java's the
/// call, what Java called, and both ends of the methods. The last part is empty and at the end.
fn parts(is_method: &[bool]) -> [Range<usize>; 4] {
    let n = is_method.len();
    let Some(first) = is_method.iter().position(|&is| is) else {
        let is_deep = n > MAX_FRAMES;
        let (innermost, outermost) = if is_deep { (N_INNERMOST, n - N_OUTERMOST) } else { (n, n) };
        return [0..innermost, outermost..n, n..n, n..n];
    };
    let end = is_method.iter().rposition(|&is| is).map_or(n, |last| last + 1);
    let called = first.saturating_sub(N_CALLED);
    let innermost = end.min(first + N_METHODS);
    let outermost = end.saturating_sub(N_OUTERMOST).max(innermost);
    [0..called.min(1), called..innermost, outermost..end, n..n]
}

// The arrow divides frames; no name holds one.
fn line(frame: &Frame) -> String {
    shown(frame).replace('←', "<-")
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A stack with its innermost frame first, `n` for native code and `J` for a method; what is left out is a point.
    #[test]
    fn what_is_shown() {
        let cases = [
            ("", ""),
            ("nnnnnnnn", "nnnnnnnn"),
            ("nnnnnnnnnn", "nnnn...nnn"),
            ("nJn", "nJ."),
            ("nnnnnJJ", "n..nnJJ"),
            ("nnnnnnJJnJ", "n...nnJJnJ"),
            ("nnJJJJJJJJJJnnn", "nnJJJ....JJJ..."),
            ("JJJJJJJJJJ", "JJJ....JJJ"),
        ];
        for (stack, expected) in cases {
            let is_method: Vec<bool> = stack.chars().map(|c| c == 'J').collect();
            let mut shown = vec![b'.'; stack.len()];
            for part in parts(&is_method) {
                shown[part.clone()].copy_from_slice(&stack.as_bytes()[part]);
            }
            assert_eq!(String::from_utf8(shown).unwrap(), expected, "{stack}");
        }
    }
}
