//! Making room for later threads in a trace that runs for a week.
//!
//! In: a ledger with as many threads as it may have. Out: the same ledger, in which threads that have ended and hold
//! nothing any more are one row a name, or one row in all where that is not enough. Sums stay what they were.

use super::{Ledger, Process};

impl Ledger {
    /// Puts threads together if there is no room for another one.
    pub(super) fn fold_threads(&mut self) {
        if !self.threads.wants_folding() {
            return;
        }
        for by_name in [true, false] {
            let new_threads = self.threads.fold(&self.holders(), by_name);
            self.renumber(&new_threads);
            if self.threads.has_room() {
                return;
            }
        }
    }

    /// For each thread, whether something that it obtained or opened is still there.
    fn holders(&self) -> Vec<bool> {
        let mut holders = vec![false; self.threads.all().len()];
        for (total, blocks) in self.totals.with_blocks() {
            if let Some(holds) = holders.get_mut(total.thread as usize) {
                *holds |= total.mapped_live_bytes > 0 || total.streams_live > 0;
                *holds |= !blocks.malloc_live.is_none();
            }
        }
        holders
    }

    /// Everything that refers to threads, and what refers to that.
    fn renumber(&mut self, new_threads: &[u32]) {
        let new_totals = self.totals.fold(new_threads);
        for Process { regions, faults, moving, .. } in self.processes.values_mut() {
            regions.renumber(&new_totals);
            faults.renumber(&new_totals);
            moving.values_mut().flatten().for_each(|piece| piece.renumber(&new_totals));
        }
        self.streams.renumber(new_threads, &new_totals);
        self.blocks.renumber(&new_totals);
        for ((opener, ender), n) in std::mem::take(&mut self.ended_by) {
            *self.ended_by.entry((at(new_threads, opener), at(new_threads, ender))).or_default() +=
                n;
        }
    }
}

/// The new number of `index`.
pub(super) fn at(new: &[u32], index: u32) -> u32 {
    new.get(index as usize).copied().unwrap_or(index)
}

#[cfg(test)]
mod tests {
    use crate::{
        ledger::{Allocation, Event, Freeing, Ledger, Metric, NameFrom, StreamKind, What},
        stacks::StackId,
    };

    const PAGE: u64 = 4096;

    fn event(tid: u32, what: What) -> Event {
        Event { time_ns: 0, tgid: 1, tid, stack: StackId(7), what }
    }

    /// Thread `tid` begins, maps a page and opens a stream, gives both back if `gives_back`, and ends.
    fn comes_and_goes(ledger: &mut Ledger, tid: u32, name: &str, gives_back: bool) {
        let (addr, kind) = (u64::from(tid) * PAGE, StreamKind::Inflater);
        ledger.apply(&event(1, What::ThreadStart { tid }));
        ledger.name_thread(1, tid, name.as_bytes(), NameFrom::Comm);
        ledger.apply(&event(tid, What::Mmap { addr, len: PAGE, access: true }));
        ledger.apply(&event(tid, What::StreamInit { kind, address: addr }));
        ledger.apply(&event(tid, What::Alloc { by: Allocation::Malloc, addr, size: 24 }));
        if gives_back {
            ledger.apply(&event(1, What::Munmap { addr, len: PAGE }));
            ledger.apply(&event(tid, What::StreamEnd { kind, address: addr }));
            ledger.apply(&event(tid, What::Free { addr, by: Freeing::Free }));
        }
        ledger.apply(&event(tid, What::Exit { ended: false, code: 0 }));
    }

    /// A later thread has a row of its own however many came before it, and so has one that left something behind.
    #[test]
    fn a_week_of_threads() {
        const N: u32 = 50_000;
        for is_one_name in [true, false] {
            let name = |tid| if is_one_name { "worker".into() } else { format!("worker-{tid}") };
            let mut ledger = Ledger::default();
            comes_and_goes(&mut ledger, 2, "leaves some", false);
            (10..10 + N).for_each(|tid| comes_and_goes(&mut ledger, tid, &name(tid), true));
            comes_and_goes(&mut ledger, 3, "late", true);
            // Its memory is still known for its own.
            assert_eq!(
                (ledger.sum(Metric::MappedLive), ledger.sum(Metric::InflatersLive)),
                (PAGE, 1)
            );
            assert_eq!(ledger.sum(Metric::MallocLive), 24);
            let rows = ledger.by_thread();
            let row = |tid| rows.iter().find(|row| row.thread.tid == tid).unwrap();
            assert_eq!((row(2).mapped_live_bytes, row(2).inflaters_live), (PAGE, 1));
            assert_eq!(row(2).blocks.malloc_live_bytes, 24);
            assert_eq!((row(3).mapped_bytes, row(3).thread.name.as_slice()), (PAGE, &b"late"[..]));
            assert!(rows.len() <= 20_000, "{}", rows.len());
            // Nothing is lost from the sums, and it is told how many are together.
            assert_eq!(ledger.sum(Metric::Mapped), u64::from(N + 2) * PAGE);
            assert_eq!(ledger.sum(Metric::Malloc), u64::from(N + 2) * 24);
            assert_eq!(ledger.ended_by().iter().map(|row| row.2).sum::<u64>(), u64::from(N + 1));
            let grouped = ledger.counts().threads_grouped;
            let n_single = rows.iter().filter(|row| row.thread.tid > 1).count() as u64;
            assert_eq!(grouped + n_single, u64::from(N + 2));
            // What the first one left behind is given back late.
            ledger.apply(&event(1, What::Munmap { addr: 2 * PAGE, len: PAGE }));
            ledger.apply(&event(2, What::Free { addr: 2 * PAGE, by: Freeing::Free }));
            assert_eq!((ledger.sum(Metric::MappedLive), ledger.sum(Metric::MallocLive)), (0, 0));
        }
    }
}
