//! zlib streams: opened where, ended by whom.

use rustc_hash::FxHashMap;

use super::{event::StreamKind, fold::at};

/// A stream that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) kind: StreamKind,
    /// Index into the ledger's totals.
    pub(super) owner: u32,
    /// The thread that opened it.
    pub(super) thread: u32,
    /// When, in nanoseconds of the monotonic clock.
    pub(super) opened_ns: u64,
}

/// What became of a stream that was told to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was open.
    Known(Open),
    /// Java's function has told of this end already.
    Same,
    /// It was opened before tracing began.
    Before,
}

/// The open streams of all processes.
#[derive(Debug, Default)]
pub(super) struct Streams {
    open: FxHashMap<(u32, u64), Open>,
    /// The stream that a thread last ended through Java, whose end zlib tells once more.
    ended_by_java: FxHashMap<u32, u64>,
}

impl Streams {
    /// Whether an opening by zlib's own function is part of one by Java's that was told already.
    pub(super) fn is_of_java(&self, tgid: u32, at: u64, kind: StreamKind, thread: u32) -> bool {
        let is_java = |open: &Open| !open.kind.is_native() && open.thread == thread;
        kind.is_native() && self.open.get(&(tgid, at)).is_some_and(is_java)
    }

    /// Takes out the opening by zlib's own function that was part of one by Java's, which is told now.
    pub(super) fn take_native(
        &mut self,
        tgid: u32,
        at: u64,
        kind: StreamKind,
        thread: u32,
    ) -> Option<Open> {
        let open = self.open.get(&(tgid, at))?;
        let is_part = open.kind.is_native() && !kind.is_native() && open.thread == thread;
        if is_part { self.open.remove(&(tgid, at)) } else { None }
    }

    /// A stream is opened. Returns the one that was open at its address, whose end was never seen.
    pub(super) fn open(&mut self, tgid: u32, address: u64, stream: Open) -> Option<Open> {
        self.open.insert((tgid, address), stream)
    }

    pub(super) fn end(&mut self, tgid: u32, address: u64, kind: StreamKind, thread: u32) -> Ended {
        if kind.is_native() && self.ended_by_java.remove(&thread) == Some(address) {
            return Ended::Same;
        }
        if !kind.is_native() {
            self.ended_by_java.insert(thread, address);
        }
        self.open.remove(&(tgid, address)).map_or(Ended::Before, Ended::Known)
    }

    /// Those of process `tgid` that are open.
    pub(super) fn open_in(&self, tgid: u32) -> impl Iterator<Item = &Open> {
        self.open.iter().filter(move |(key, _)| key.0 == tgid).map(|(_, open)| open)
    }

    /// The streams of a process that ended or has a new image.
    pub(super) fn close_process(&mut self, tgid: u32) -> Vec<Open> {
        self.open.extract_if(|key, _| key.0 == tgid).map(|(_, open)| open).collect()
    }

    /// Threads and totals have new numbers.
    pub(super) fn renumber(&mut self, new_threads: &[u32], new_totals: &[u32]) {
        for open in self.open.values_mut() {
            open.thread = at(new_threads, open.thread);
            open.owner = at(new_totals, open.owner);
        }
        let ended_by_java = std::mem::take(&mut self.ended_by_java).into_iter();
        self.ended_by_java =
            ended_by_java.map(|(thread, address)| (at(new_threads, thread), address)).collect();
    }

    /// Forgets a thread that ended.
    pub(super) fn forget_thread(&mut self, thread: u32) {
        self.ended_by_java.remove(&thread);
    }
}
