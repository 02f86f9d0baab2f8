//! What a thread gives back as its last act, though nobody handed it out: glibc frees the blocks that it had kept for the
//! thread (`tcache_thread_shutdown`, glibc 2.26 to 2.43, malloc/malloc.c), which the program has freed before.
//!
//! These are no calls of the program. From outside they are told by their place: frees of what is no live block, with
//! nothing after them but the thread's end.

use rustc_hash::FxHashMap;

/// Threads that are kept; of more such frees are counted like any other.
const MAX_THREADS: usize = 65_536;

/// Frees of what is no live block, by where it would be from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Unfounded {
    pub(super) before: u64,
    pub(super) inherited: u64,
    pub(super) unknown: u64,
}

impl Unfounded {
    pub(super) fn sum(self) -> u64 {
        self.before + self.inherited + self.unknown
    }
}

/// The last such frees of each thread.
#[derive(Debug, Default)]
pub(super) struct LastFrees {
    by_tid: FxHashMap<u32, Unfounded>,
}

impl LastFrees {
    /// Thread `tid` gave something back that is no live block.
    pub(super) fn add(&mut self, tid: u32, count: impl FnOnce(&mut Unfounded)) {
        if self.by_tid.len() < MAX_THREADS || self.by_tid.contains_key(&tid) {
            count(self.by_tid.entry(tid).or_default());
        }
    }

    /// Thread `tid` goes on: what it gave back was its own doing.
    pub(super) fn goes_on(&mut self, tid: u32) {
        if !self.by_tid.is_empty() {
            self.by_tid.remove(&tid);
        }
    }

    /// Thread `tid` ends: what it gave back last.
    pub(super) fn take(&mut self, tid: u32) -> Unfounded {
        self.by_tid.remove(&tid).unwrap_or_default()
    }
}
