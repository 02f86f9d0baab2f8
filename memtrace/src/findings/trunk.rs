//! The call that many stacks have in common.
//!
//! In: stacks of one thread, each with a weight. Out: the frames from the outermost inwards, as far as nearly all of the
//! weight lies below them: there the program decided to do it. A method counts as the same however it ran.

use std::collections::BTreeMap;

use crate::{
    stacks::{FrameId, StackId},
    trace::Recording,
};

/// Of the weight, the percentage that goes through a frame of the trunk.
const MIN_PERCENT: u128 = 95;
/// Frames that are followed at most.
const MAX_DEPTH: usize = 4096;

/// The frames that nearly all of some stacks have in common, the outermost first.
pub(super) fn trunk(recording: &Recording, weights: &[(StackId, u64)]) -> Vec<FrameId> {
    let whole: u128 = weights.iter().map(|&(_, weight)| u128::from(weight)).sum();
    let frames = |stack: StackId| -> &[FrameId] {
        recording.stacks.get(stack.0 as usize).map_or(&[], |stack| &stack.frames)
    };
    let mut left = weights.to_vec();
    let mut trunk = Vec::new();
    while trunk.len() < MAX_DEPTH {
        let mut branches: BTreeMap<&str, (u128, FrameId)> = BTreeMap::new();
        let next = |stack: StackId| {
            // Stacks have their innermost frame first.
            let id = frames(stack).iter().rev().nth(trunk.len())?;
            Some((recording.frames.get(id.0 as usize)?.name.as_str(), *id))
        };
        for (name, id, weight) in left.iter().filter_map(|&(stack, weight)| {
            let (name, id) = next(stack)?;
            Some((name, id, weight))
        }) {
            branches.entry(name).or_insert((0, id)).0 += u128::from(weight);
        }
        let Some((&name, &(weight, id))) = branches.iter().max_by_key(|(_, branch)| branch.0)
        else {
            break;
        };
        if whole == 0 || weight * 100 < whole * MIN_PERCENT {
            break;
        }
        left.retain(|&(stack, _)| next(stack).is_some_and(|it| it.0 == name));
        trunk.push(id);
    }
    trunk
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        stacks::{Frame, FrameKind, Quality, Stack},
        trace::Record,
    };

    /// Down to where it divides; what is less than a twentieth elsewhere does not count, nor how a method ran.
    #[test]
    fn down_to_where_it_divides() {
        let mut recording = Recording::default();
        let names = ["run", "scan", "scan", "open", "inflate", "other"];
        for (name, compiled) in names.into_iter().zip([false, false, true, false, false, false]) {
            let kind = if compiled { FrameKind::Compiled } else { FrameKind::Interpreted };
            recording.apply(Record::Frame(Frame {
                name: name.into(),
                kind,
                guess: false,
                source: None,
            }));
        }
        for frames in [&[3, 1, 0][..], &[4, 2, 0], &[5, 0], &[]] {
            let frames = frames.iter().map(|&id| FrameId(id)).collect();
            recording.apply(Record::Stack(Stack { frames, quality: Quality::Complete }));
        }
        // (weights of the four stacks, names of the trunk)
        let cases: [([u64; 4], &[&str]); 5] = [
            ([50, 50, 0, 0], &["run", "scan"]),
            ([96, 0, 4, 0], &["run", "scan", "open"]),
            ([50, 44, 6, 0], &["run"]),
            ([10, 10, 10, 70], &[]),
            ([0; 4], &[]),
        ];
        for (weights, expected) in cases {
            let weights: Vec<_> = (0..).map(StackId).zip(weights).collect();
            let names: Vec<_> = trunk(&recording, &weights)
                .iter()
                .map(|id| recording.frames[id.0 as usize].name.as_str())
                .collect();
            assert_eq!(names, expected, "{weights:?}");
        }
    }
}
