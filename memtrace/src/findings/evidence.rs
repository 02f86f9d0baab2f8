//! What rules look at, worked out once.

use rustc_hash::FxHashMap;

use crate::{
    footprint::{Footprint, RowKind},
    ledger::ThreadRow,
    owners::{self, Retained},
    stacks::StackId,
    trace::{Recording, Why},
};

use super::{Confidence, Part, Sentence, sentence::say};

/// Less is no matter, however small the process.
pub(super) const MIN_BYTES: u64 = 16 << 20;
/// So many percent of what is resident is the least that a finding is about.
const MIN_PERCENT: u64 = 5;

/// A recording and a footprint, with what they add up to.
#[derive(Debug)]
pub(super) struct Evidence<'r> {
    pub(super) recording: &'r Recording,
    pub(super) footprint: &'r Footprint,
    /// Who made the free pages of malloc resident, where the process was traced.
    pub(super) retained: Option<Retained>,
    /// The same, by thread and stack.
    retained_at: FxHashMap<(u32, StackId), u64>,
    /// Threads by what they did, by their index in the ledger.
    pub(super) threads: Vec<ThreadRow<'r>>,
}

impl<'r> Evidence<'r> {
    pub(super) fn of(recording: &'r Recording, footprint: &'r Footprint) -> Self {
        let is_traced = !recording.ledger.threads().is_empty();
        let retained = owners::retained(recording).filter(|_| is_traced);
        let mut threads = recording.ledger.by_thread();
        // All of them are in one slice.
        threads.sort_by_key(|row| std::ptr::from_ref(row.thread).addr());
        let stacks = retained.iter().flat_map(|retained| &retained.stacks);
        let retained_at = stacks.map(|it| ((it.thread, it.stack), it.bytes)).collect();
        Self { recording, footprint, retained, retained_at, threads }
    }

    /// Whether so many bytes are worth a finding.
    pub(super) fn is_much(&self, bytes: u64) -> bool {
        bytes >= MIN_BYTES
            && u128::from(bytes) * 100
                >= u128::from(self.footprint.rss_bytes) * u128::from(MIN_PERCENT)
    }

    pub(super) fn resident(&self, kind: RowKind) -> u64 {
        self.footprint.resident(kind)
    }

    /// Whether the process is a JVM of a release from `major` on.
    pub(super) fn is_jvm_from(&self, major: u32) -> bool {
        let jvm = self.recording.target.jvm.as_ref();
        jvm.and_then(|jvm| jvm.major).is_some_and(|it| it >= major)
    }

    /// Whether a frame's name of the stack is like that.
    pub(super) fn passes(&self, stack: StackId, is_like: impl Fn(&str) -> bool) -> bool {
        self.recording.frames_of(stack).any(|frame| is_like(&frame.name))
    }

    /// What a thread made resident of the free pages, by stack.
    pub(super) fn retained_by(&self, thread: u32) -> Vec<(StackId, u64)> {
        let stacks = self.retained.iter().flat_map(|retained| &retained.stacks);
        stacks.filter(|it| it.thread == thread).map(|it| (it.stack, it.bytes)).collect()
    }

    /// What of the free pages was made resident by a thread at a stack.
    pub(super) fn free_at(&self, thread: u32, stack: StackId) -> u64 {
        self.retained_at.get(&(thread, stack)).copied().unwrap_or_default()
    }

    /// What is missing in the trace as a whole.
    pub(super) fn doubts(&self) -> Vec<Sentence> {
        let recording = self.recording;
        let mut doubts = Vec::new();
        if recording.ledger.counts().before_bytes > 0 {
            doubts.push(say![
                Part::Bytes(recording.ledger.counts().before_bytes),
                " were mapped before tracing began: who obtained them is unknown"
            ]);
        }
        if recording.n_lost() > 0 {
            doubts.push(say![Part::Things(recording.n_lost(), "event"), " lost"]);
        }
        match recording.end.as_ref().map(|end| end.why) {
            None => doubts.push(say!["the trace has no end: what came later is missing"]),
            Some(Why::OutputFailed) => {
                doubts.push(say!["the trace could not be written to its end"])
            }
            Some(_) => {}
        }
        let cut = recording.stack_counts.truncated + recording.stack_counts.broken;
        let whole = recording.stack_counts.complete + recording.stack_counts.approximate;
        if cut > whole / 20 {
            doubts.push(say![Part::Things(cut, "stack"), " are cut or broken"]);
        }
        doubts
    }

    /// How far the trace carries what it says of retained pages, and why not farther.
    pub(super) fn trust_in_owners(&self) -> (Confidence, Vec<Sentence>) {
        let mut doubts = Vec::new();
        let Some(retained) = &self.retained else { return (Confidence::Medium, doubts) };
        let half = retained.bytes / 2;
        if retained.shared_bytes > half {
            doubts.push(say![
                Part::Bytes(retained.shared_bytes),
                " lie in arenas that threads share: others may have used the pages last"
            ]);
        }
        if retained.unknown_bytes > half {
            doubts.push(say![
                Part::Bytes(retained.unknown_bytes),
                " were resident before tracing began, or are again since they were given back: by whom is unknown"
            ]);
        }
        let lost = self.recording.n_lost();
        if lost > 0 {
            doubts.push(say![Part::Things(lost, "event"), " lost"]);
        }
        let confidence = if doubts.is_empty() { Confidence::High } else { Confidence::Medium };
        (confidence, doubts)
    }
}
