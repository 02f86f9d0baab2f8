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
}

/// What became of a stream that was told to be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// It is new.
    New,
    /// It was known by zlib's own function already, which Java's calls: this is the same one.
    Same(Open),
    /// It was known by Java's function already, which calls zlib's own.
    AsJava,
    /// One was open at this address whose end was never seen.
    Replaced(Open),
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
    pub(super) fn open(&mut self, tgid: u32, address: u64, stream: Open) -> Opened {
        let Some(old) = self.open.insert((tgid, address), stream) else { return Opened::New };
        match (old.kind.is_native(), stream.kind.is_native()) {
            (true, false) if old.thread == stream.thread => Opened::Same(old),
            (false, true) if old.thread == stream.thread => {
                self.open.insert((tgid, address), old);
                Opened::AsJava
            }
            _ => Opened::Replaced(old),
        }
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
