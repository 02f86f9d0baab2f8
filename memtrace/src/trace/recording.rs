//! What a trace says, as far as it was read: the one model behind the live view and `memtrace report`.

use crate::{
    footprint::Footprint,
    ledger::{Ledger, What},
    stacks::{Frame, FrameId, Quality, Stack, StackId},
};

use super::record::{End, Malloc, Record, Target};

/// Losses of something about an event, not of the event.
const DEGRADED: [&str; 5] =
    ["segment_size", "code_maps", "out_of_order", "stacks_left_out", "stacks_not_kept"];

/// Notes that are kept.
const MAX_NOTES: usize = 100;
/// Bytes of a note; what is longer is cut.
const MAX_NOTE_BYTES: usize = 4096;
/// Bytes of a thread's name, which a Java program may make as long as it likes; what is longer is cut.
const MAX_NAME_BYTES: usize = 1024;

/// How many events have stacks of each quality.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StackCounts {
    /// Stacks that go to the thread's first frame or to Java.
    pub complete: u64,
    /// As complete, but with a frame that was guessed.
    pub approximate: u64,
    /// Stacks that had more frames than were copied or walked.
    pub truncated: u64,
    /// Stacks that end at something that could not be unwound.
    pub broken: u64,
}

/// Everything that records have said.
#[derive(Debug, Default)]
pub struct Recording {
    /// The traced process.
    pub target: Target,
    /// What of the kernel was used.
    pub features: Vec<String>,
    /// How calls of allocators were traced; `None` if they were not.
    pub malloc: Option<Malloc>,
    /// Blocks of fewer bytes are ignored; `None` if none are.
    pub min_size: Option<u64>,
    /// Who obtained memory and who holds it.
    pub ledger: Ledger,
    /// What the process's resident bytes consisted of when that was first looked at, if it was more than once.
    pub first_footprint: Option<Footprint>,
    /// The same when it was last looked at.
    pub footprint: Option<Footprint>,
    /// Frames by number.
    pub frames: Vec<Frame>,
    /// Stacks by number.
    pub stacks: Vec<Stack>,
    /// How many events have stacks of each quality.
    pub stack_counts: StackCounts,
    /// What was lost, by name. Always complete: a loss that did not happen is there with 0.
    pub losses: Vec<(String, u64)>,
    /// Calls that failed, by name.
    pub failed: Vec<(String, u64)>,
    /// What the user should know, a line each.
    pub notes: Vec<String>,
    /// How the trace ended; `None` as long as it goes on, or if it was cut.
    pub end: Option<End>,
}

impl Recording {
    /// Takes note of `record`.
    pub fn apply(&mut self, record: Record) {
        match record {
            Record::Target(target) => self.target = target,
            Record::Features(features) => self.features = features,
            Record::Frame(frame) => self.frames.push(frame),
            Record::Stack(stack) => self.stacks.push(stack),
            Record::Event(event) => {
                let is_block = matches!(event.what, What::Alloc { .. } | What::Free { .. });
                // Of a block the stack may be left out; that is a loss of its own.
                let is_left_out = is_block && event.stack == StackId::NOT_KEPT;
                if event.what.has_stack() && !is_left_out {
                    self.count_stack(event.stack);
                }
                self.ledger.apply(&event);
            }
            Record::Before((tgid, mapping)) => self.ledger.before(tgid, mapping),
            Record::ThreadName(name) => {
                let bytes = &name.name[..name.name.len().min(MAX_NAME_BYTES)];
                self.ledger.name_thread(name.tgid, name.tid, bytes, name.from)
            }
            Record::Sample(sample) => self.ledger.sample(sample),
            Record::Losses(losses) => self.losses = losses,
            Record::Failed(failed) => self.failed = failed,
            Record::Note(note) => self.note(note),
            Record::End(end) => self.end = Some(end),
            Record::Footprint(footprint) => {
                let last = self.footprint.replace(footprint);
                self.first_footprint = self.first_footprint.take().or(last);
            }
            Record::MinSize(bytes) => {
                self.min_size = Some(bytes);
                self.ledger.ignore_blocks(bytes);
            }
            Record::Malloc(malloc) => {
                self.malloc = Some(malloc);
                if let Malloc::Sampled { mean_bytes } = malloc {
                    self.ledger.sample_blocks(mean_bytes);
                }
            }
        }
    }

    /// The frames of a stack, outermost first; nothing for a number that was never given.
    pub fn frames_of(&self, stack: StackId) -> impl Iterator<Item = &Frame> {
        let frames = self.stacks.get(stack.0 as usize).map_or(&[][..], |stack| &stack.frames);
        frames.iter().rev().filter_map(|&FrameId(number)| self.frames.get(number as usize))
    }

    /// How far a stack can be trusted.
    pub fn quality_of(&self, stack: StackId) -> Quality {
        self.stacks.get(stack.0 as usize).map_or(Quality::Broken, |stack| stack.quality)
    }

    /// How many events were lost in all. What was recorded but not as well as it should be is no lost event.
    pub fn n_lost(&self) -> u64 {
        let lost = self.losses.iter().filter(|(name, _)| !DEGRADED.contains(&name.as_str()));
        lost.map(|(_, n)| n).sum()
    }

    fn count_stack(&mut self, stack: StackId) {
        let StackCounts { complete, approximate, truncated, broken } = &mut self.stack_counts;
        let counter = match self.stacks.get(stack.0 as usize).map(|stack| stack.quality) {
            Some(Quality::Complete) => complete,
            Some(Quality::Approximate) => approximate,
            Some(Quality::Truncated) => truncated,
            Some(Quality::Broken) | None => broken,
        };
        *counter += 1;
    }

    fn note(&mut self, mut note: String) {
        note.truncate(note.floor_char_boundary(MAX_NOTE_BYTES));
        if self.notes.len() < MAX_NOTES && !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }
}
