//! What a thread gives back as its last act, though nobody handed it out: glibc frees the blocks that it had kept for the
//! thread (`tcache_thread_shutdown`, glibc 2.26 to 2.43, malloc/malloc.c), which the program has freed before.
//!
//! These are no calls of the program. From outside they are told by their place: calls of `free` with what is no live
//! block, a few microseconds apart, after which the thread ends by itself. What a thread gave back that is ended from
//! outside, with its process, was its own doing; so was what the first thread gave back.

use rustc_hash::FxHashMap;

/// Threads that are kept; of more such frees are counted like any other.
const MAX_THREADS: usize = 65_536;
/// From the first of these frees to the thread's end, and so between any two. At most 1,216 blocks are kept for a thread
/// (76 bins of 16, glibc 2.42), and a traced call of `free` takes some 2 µs: 3 ms, and turns of other threads between, of which there may be thousands.
const MAX_NS: u64 = 1_000_000_000;

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

/// Such frees of one thread, with no other block got or given back between them.
#[derive(Debug)]
struct Row {
    tgid: u32,
    first_ns: u64,
    last_ns: u64,
    /// Whether the thread ends by itself now.
    leaves: bool,
    n: Unfounded,
}

/// The last such frees of each thread.
#[derive(Debug, Default)]
pub(super) struct LastFrees {
    by_tid: FxHashMap<u32, Row>,
}

impl LastFrees {
    /// Thread `tid` gave something back that is no live block.
    pub(super) fn add(
        &mut self,
        (tgid, tid): (u32, u32),
        time_ns: u64,
        count: impl FnOnce(&mut Unfounded),
    ) {
        if self.by_tid.len() >= MAX_THREADS && !self.by_tid.contains_key(&tid) {
            return;
        }
        let n = Unfounded::default();
        let first = || Row { tgid, first_ns: time_ns, last_ns: time_ns, leaves: false, n };
        let row = self.by_tid.entry(tid).or_insert_with(first);
        if row.tgid != tgid || time_ns.saturating_sub(row.last_ns) > MAX_NS {
            *row = first();
        }
        row.last_ns = time_ns;
        count(&mut row.n);
    }

    /// Thread `tid` goes on: what it gave back was its own doing.
    pub(super) fn goes_on(&mut self, tid: u32) {
        if !self.by_tid.is_empty() {
            self.by_tid.remove(&tid);
        }
    }

    /// Thread `tid` is about to end, by itself.
    pub(super) fn leave(&mut self, tid: u32) {
        if let Some(row) = self.by_tid.get_mut(&tid) {
            row.leaves = true;
        }
    }

    /// Thread `tid` ends: what it gave back last, and not by its own doing.
    pub(super) fn take(&mut self, (tgid, tid): (u32, u32), time_ns: u64) -> Unfounded {
        let is_last = |row: &Row| {
            row.leaves && row.tgid == tgid && time_ns.saturating_sub(row.first_ns) <= MAX_NS
        };
        self.by_tid.remove(&tid).filter(is_last).map(|row| row.n).unwrap_or_default()
    }

    /// The threads of process `tgid` end, or have another program.
    pub(super) fn forget_process(&mut self, tgid: u32) {
        self.by_tid.retain(|_, row| row.tgid != tgid);
    }
}

#[cfg(test)]
mod tests {
    use memtrace_common::Kind;

    use super::*;
    use crate::{
        ledger::{Allocation, Event, Freeing, Ledger, What},
        stacks::StackId,
    };

    /// A tenth of the longest time.
    const TENTH_NS: u64 = MAX_NS / 10;
    const FIRST: u32 = 1;
    const WORKER: u32 = 2;

    fn free(addr: u64) -> What {
        What::Free { addr, by: Freeing::Free }
    }

    /// What is counted in the end of what threads do: frees from before, of nothing, and calls of `free`.
    fn counted(what: &[(u64, u32, What)]) -> (u64, u64, u64) {
        let mut ledger = Ledger::default();
        for &(tenths, tid, what) in what {
            let stack = StackId::NOT_KEPT;
            ledger.apply(&Event { time_ns: tenths * TENTH_NS, tgid: FIRST, tid, stack, what });
        }
        let counts = ledger.blocks();
        (counts.freed_before, counts.frees_unknown, ledger.n(Kind::FREE))
    }

    /// What is taken off is what a thread that ends by itself gives back right before.
    #[test]
    fn what_is_no_call() {
        let alloc = What::Alloc { by: Allocation::Malloc, addr: 16, size: 8 };
        let delete = What::Free { addr: 32, by: Freeing::ReallocToZero };
        let zero = What::Free { addr: 32, by: Freeing::ReallocToZero };
        let exit = What::Exit { ended: false, code: 0 };
        let ended = What::Exit { ended: true, code: 0 };
        let of = |tid: u32, what: &[(u64, What)]| -> Vec<(u64, u32, What)> {
            what.iter().map(|&(ms, what)| (ms, tid, what)).collect()
        };
        let worker = |what: &[(u64, What)]| of(WORKER, what);
        let bye = |ms| [(ms, What::Leaves), (ms, exit)];
        let ends = |what: &[(u64, What)], ms| worker(&[what, &bye(ms)].concat());
        // (what happens, frees from before, of nothing, and calls of free that are counted)
        let cases = [
            (ends(&[(1, free(16)), (2, free(32))], 3), (0, 0, 0)),
            // In a process that was seen from its first instruction.
            (ends(&[(0, What::Exec), (1, free(16)), (2, free(32))], 3), (0, 0, 0)),
            // Its own doing: long ago, or in a row that began long ago.
            (ends(&[(1, free(16))], 12), (1, 0, 1)),
            (ends(&[(1, free(16)), (8, free(32))], 12), (2, 0, 2)),
            (ends(&[(1, free(16)), (12, free(32))], 13), (1, 0, 1)),
            // Other calls of the allocator between.
            (ends(&[(1, free(32)), (1, alloc), (2, free(48))], 3), (1, 0, 1)),
            (ends(&[(1, alloc), (1, free(32)), (1, free(16)), (2, free(48))], 3), (1, 0, 2)),
            (ends(&[(1, free(16)), (2, delete)], 3), (2, 0, 1)),
            (ends(&[(1, free(16)), (2, zero)], 3), (2, 0, 1)),
            (ends(&[(2, delete), (2, free(16))], 3), (1, 0, 0)),
            // It is ended from outside, alone or with its process.
            (worker(&[(1, free(16)), (2, exit)]), (1, 0, 1)),
            (
                [worker(&[(1, free(16)), (2, exit)]), of(FIRST, &[(2, free(32)), (2, ended)])]
                    .concat(),
                (2, 0, 2),
            ),
            (worker(&[(1, free(16)), (2, What::Leaves), (2, ended)]), (1, 0, 1)),
            // The first thread ends otherwise.
            (of(FIRST, &[(1, free(16)), (2, What::Leaves), (2, exit)]), (1, 0, 1)),
            // A later thread or program has nothing to do with it.
            ([worker(&[(1, free(16)), (1, ended)]), worker(&bye(2))].concat(), (1, 0, 1)),
            (
                [of(FIRST, &[(1, free(16)), (1, exit)]), of(FIRST, &[(1, free(32))])].concat(),
                (2, 0, 2),
            ),
            (ends(&[(1, free(16)), (1, What::Exec)], 2), (1, 0, 1)),
        ];
        for (what, want) in cases {
            assert_eq!(counted(&what), want, "{what:?}");
        }
    }

    /// Nothing is kept of threads and processes that are gone, and of too many threads nothing more.
    #[test]
    fn few_are_kept() {
        let mut last_frees = LastFrees::default();
        for tid in 1..=MAX_THREADS as u32 + 5 {
            last_frees.add((1 + tid % 2, tid), 0, |n| n.before += 1);
        }
        assert_eq!(last_frees.by_tid.len(), MAX_THREADS);
        last_frees.leave(3);
        assert_eq!(last_frees.take((2, 3), 0).sum(), 1);
        assert_eq!(last_frees.by_tid.len(), MAX_THREADS - 1);
        last_frees.forget_process(2);
        assert_eq!(last_frees.by_tid.len(), MAX_THREADS / 2);
        last_frees.forget_process(1);
        assert!(last_frees.by_tid.is_empty());
    }
}
