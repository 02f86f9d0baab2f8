//! What a trace file may claim: no more than a live trace can come to.
//!
//! In: the records of a file, one by one, before anything is made of them. Out: the limit that one exceeds, in words.
//! A live trace keeps to these numbers by itself (`stacks` counts what it has no room for), so only a file that was made
//! by hand, or by a later memtrace, gets here.

use super::record::{Record, ThreadName};
use crate::{
    footprint::Footprint,
    ledger::{Event, What},
    stacks::{MAX_FRAMES, MAX_FRAMES_OF_WALK, MAX_STACKS},
};

/// As many frames as a walk has, and `[java]`.
const MAX_FRAMES_OF_STACK: usize = MAX_FRAMES_OF_WALK + 1;
/// Frames of all stacks: more than 200 in each.
const MAX_FRAMES_OF_STACKS: usize = 64 << 20;
/// Bytes of a frame's name: a symbol, or a file's name and an address.
const MAX_FRAME_BYTES: usize = 4096;
/// Arenas of a footprint, and heaps of all of them.
const MAX_ARENAS: usize = 1024;
const MAX_PINS: usize = 65_536;
/// Names in a list: of losses, of failed calls, of features; notes on a footprint.
const MAX_LIST: usize = 1024;
/// No id of a thread is larger (`PID_MAX_LIMIT` of 64-bit kernels).
const MAX_TID: u32 = 1 << 22;

/// What the records have claimed so far.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    n_frames: usize,
    n_stacks: usize,
    n_frames_of_stacks: usize,
}

impl Bounds {
    /// Takes note of `record`, or tells what there is too much of.
    pub(super) fn admit(&mut self, record: &Record) -> Result<(), &'static str> {
        match record {
            Record::Frame(frame) => {
                self.n_frames += 1;
                within(self.n_frames, MAX_FRAMES, "more than 500,000 frames")?;
                within(frame.name.len(), MAX_FRAME_BYTES, "a frame's name of more than 4 KiB")
            }
            Record::Stack(stack) => {
                self.n_stacks += 1;
                self.n_frames_of_stacks += stack.frames.len();
                within(self.n_stacks, MAX_STACKS, "more than 300,000 stacks")?;
                within(
                    stack.frames.len(),
                    MAX_FRAMES_OF_STACK,
                    "a stack of more than 1,025 frames",
                )?;
                let what = "stacks of more than 67,108,864 frames in all";
                within(self.n_frames_of_stacks, MAX_FRAMES_OF_STACKS, what)
            }
            Record::Losses(list) | Record::Failed(list) => within_list(list.len()),
            Record::Features(list) => within_list(list.len()),
            Record::Event(event) => within_ids(&ids_of(event)),
            Record::ThreadName(ThreadName { tgid, tid, .. }) => within_ids(&[*tgid, *tid]),
            Record::Before((tgid, _)) => within_ids(&[*tgid]),
            Record::Footprint(footprint) => admit_footprint(footprint),
            Record::Target(_)
            | Record::Sample(_)
            | Record::Note(_)
            | Record::End(_)
            | Record::Malloc(_)
            | Record::MinSize(_) => Ok(()),
        }
    }
}

fn admit_footprint(footprint: &Footprint) -> Result<(), &'static str> {
    let arenas = footprint.malloc.as_ref().map_or(&[][..], |malloc| &malloc.arenas);
    let n_pins = arenas.iter().map(|arena| arena.pinned_by.len()).sum();
    within(arenas.len(), MAX_ARENAS, "a footprint of more than 1,024 arenas")?;
    within(n_pins, MAX_PINS, "a footprint of more than 65,536 heaps")?;
    let parts = footprint.container.as_ref().map_or(0, |container| container.parts.len());
    within_list(parts.max(footprint.notes.len()).max(footprint.rows.len()))
}

fn ids_of(event: &Event) -> [u32; 3] {
    let third = match event.what {
        What::ThreadStart { tid } => tid,
        What::Fork { child, .. } => child,
        _ => 0,
    };
    [event.tgid, event.tid, third]
}

fn within_ids(ids: &[u32]) -> Result<(), &'static str> {
    let largest = ids.iter().copied().max().unwrap_or_default();
    within(largest as usize, MAX_TID as usize, "a thread id that no kernel gives")
}

fn within_list(len: usize) -> Result<(), &'static str> {
    within(len, MAX_LIST, "a list of more than 1,024 names")
}

fn within(n: usize, max: usize, what: &'static str) -> Result<(), &'static str> {
    if n <= max { Ok(()) } else { Err(what) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ledger::NameFrom,
        stacks::{Frame, FrameId, FrameKind, Quality, Stack, StackId},
    };

    fn frame(len: usize) -> Record {
        Record::Frame(Frame {
            name: "x".repeat(len),
            kind: FrameKind::Native,
            guess: false,
            source: None,
        })
    }

    fn stack(len: usize) -> Record {
        Record::Stack(Stack { frames: vec![FrameId(0); len], quality: Quality::Complete })
    }

    fn event(what: What) -> Record {
        Record::Event(Event { time_ns: 0, tgid: 1, tid: MAX_TID, stack: StackId(0), what })
    }

    /// The largest number is admitted, one more is not.
    #[test]
    fn limits() {
        let losses = |n| Record::Losses(vec![(String::new(), 1); n]);
        let name = |tid| {
            Record::ThreadName(ThreadName { tgid: 1, tid, name: vec![], from: NameFrom::Comm })
        };
        // (the last that is admitted, how often it is, what comes then, what is said)
        let cases = [
            (frame(1), MAX_FRAMES, frame(1), "more than 500,000 frames"),
            (frame(MAX_FRAME_BYTES), 1, frame(4097), "a frame's name of more than 4 KiB"),
            (stack(1), MAX_STACKS, stack(1), "more than 300,000 stacks"),
            (stack(1025), 1, stack(1026), "a stack of more than 1,025 frames"),
            (stack(1024), 65536, stack(1), "stacks of more than 67,108,864 frames in all"),
            (losses(MAX_LIST), 1, losses(1025), "a list of more than 1,024 names"),
            (name(MAX_TID), 1, name(MAX_TID + 1), "a thread id that no kernel gives"),
            (
                event(What::ThreadStart { tid: 1 }),
                1,
                event(What::ThreadStart { tid: MAX_TID + 1 }),
                "a thread id that no kernel gives",
            ),
            (
                event(What::Exec),
                1,
                event(What::Fork { child: u32::MAX, followed: true }),
                "a thread id that no kernel gives",
            ),
        ];
        for (last, n, beyond, said) in cases {
            let mut bounds = Bounds::default();
            for _ in 0..n {
                assert_eq!(bounds.admit(&last), Ok(()), "{said}");
            }
            assert_eq!(bounds.admit(&beyond), Err(said));
        }
    }
}
