//! The live blocks of all processes: handed out where and when, given back by whom.
//!
//! In: blocks that are handed out and given back, and what happens to processes. Out: what each does to the totals of
//! those who asked, and counts of what does not fit together. An end that nobody saw the beginning of is never taken off
//! what others hold: it is counted by where its block is likely from.

use rustc_hash::FxHashMap;

use super::{
    block_table::{Block, BlockTable, MAX_TIME, Put},
    fold::at,
    last_frees::{LastFrees, Unfounded},
    samples::{Weight, weight},
    totals::Totals,
};

/// Blocks that are remembered, of all processes together; of more only the allocation is counted.
const MAX_BLOCKS: u64 = 20_000_000;
/// Processes whose blocks are remembered; as many as can be traced.
const MAX_HEAPS: usize = 4096;
/// Nanoseconds of a tick, as a power of two: 8.4 ms, so that a block's time has room for 26 days.
const TICK_SHIFT: u32 = 23;

/// Blocks in all, and what of them does not fit to what was seen before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockCounts {
    /// Blocks that were handed out; exact where only samples of them are told of.
    pub allocations: u64,
    /// Bytes in them, as exact.
    pub allocated_bytes: u64,
    /// Blocks given back, where only samples are told of one by one; else 0.
    pub given_back: u64,
    /// Where the live ones are estimated, half of the 95 % interval of their bytes.
    pub error_bytes: Option<u64>,
    /// Blocks that are live, as far as they are remembered.
    pub live: u64,
    /// Bytes in them.
    pub live_bytes: u64,
    /// The most bytes that were live at once.
    pub peak_bytes: u64,
    /// When that was, in nanoseconds of the monotonic clock.
    pub peak_ns: u64,
    /// Blocks given back that were handed out before tracing began.
    pub freed_before: u64,
    /// Blocks given back by a child that has them from its parent. The parent still holds its own.
    pub freed_inherited: u64,
    /// Ends of what is no live block, in a process that was seen from its first instruction: given back twice, or handed
    /// out unseen.
    pub frees_unknown: u64,
    /// Blocks whose end was never seen, though another was handed out at their address.
    pub frees_missed: u64,
    /// Blocks that were counted when they were handed out, but not remembered: there were too many.
    pub not_kept: u64,
    /// Blocks given back by another thread than the one that had asked.
    pub freed_by_other: u64,
}

/// Half of the 95 % interval of a normal distribution, in standard errors.
const Z_95: f64 = 1.96;

/// Where blocks are from that were not seen being handed out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Origin {
    /// The process ran before tracing began.
    #[default]
    Before,
    /// The process is a fork of another.
    Inherited,
    /// There can't be any: the process was seen from its first instruction.
    Nowhere,
}

/// The blocks of one process.
#[derive(Debug, Default)]
struct Heap {
    table: BlockTable,
    origin: Origin,
    /// Blocks that were not remembered and not given back yet.
    n_not_kept: u64,
}

/// The live blocks of all processes.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    heaps: FxHashMap<u32, Heap>,
    /// What processes held at their end that stays their answer.
    left_behind: Vec<BlockTable>,
    counts: BlockCounts,
    /// The mean number of bytes between two blocks that are told of; `None` if all are.
    mean_bytes: Option<u64>,
    /// The square of the standard error of the live bytes.
    variance: f64,
    last_frees: LastFrees,
    first_ns: Option<u64>,
    /// Blocks that are remembered.
    n_kept: u64,
}

/// A block that is handed out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handed {
    /// The process.
    pub(super) tgid: u32,
    /// The thread that asked.
    pub(super) tid: u32,
    pub(super) address: u64,
    pub(super) size: u64,
    /// Index into the ledger's totals.
    pub(super) owner: u32,
}

/// A block that is given back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Returned {
    /// The process.
    pub(super) tgid: u32,
    /// The thread that gives it back.
    pub(super) tid: u32,
    pub(super) address: u64,
    /// Index of the thread that gives it back.
    pub(super) thread: u32,
    /// Whether it goes on elsewhere, or with another size.
    pub(super) goes_on: bool,
}

impl Blocks {
    /// A block is handed out.
    pub(super) fn begin(&mut self, totals: &mut Totals, it: Handed, time_ns: u64) {
        self.first_ns.get_or_insert(time_ns);
        let Handed { tgid, tid, address, size, owner } = it;
        self.last_frees.goes_on(tid);
        let time = self.ticks(time_ns).min(u64::from(MAX_TIME)) as u32;
        if self.mean_bytes.is_none() {
            self.tally(1, size, 0);
        }
        let has_room = self.n_kept < MAX_BLOCKS;
        let (is_kept, missed) = match heap(&mut self.heaps, tgid) {
            Some(heap) => heap.begin(address, Block { owner, size, time }, has_room),
            None => (false, None),
        };
        if let Some(missed) = missed {
            self.counts.frees_missed += 1;
            self.take_off(totals, missed);
        }
        let weight = weight(size, self.mean_bytes);
        totals.hand_out(owner, weight, is_kept);
        let counts = &mut self.counts;
        if !is_kept {
            counts.not_kept += 1;
            return;
        }
        self.n_kept += 1;
        self.variance += weight.variance;
        counts.live = counts.live.saturating_add(weight.blocks);
        counts.live_bytes = counts.live_bytes.saturating_add(weight.bytes);
        if counts.live_bytes > counts.peak_bytes {
            (counts.peak_bytes, counts.peak_ns) = (counts.live_bytes, time_ns);
        }
    }

    /// A block is given back.
    pub(super) fn end(&mut self, totals: &mut Totals, it: Returned, time_ns: u64) {
        let ended = match heap(&mut self.heaps, it.tgid) {
            Some(heap) => heap.end(it.address),
            None => Ended::Unknown(Origin::Before),
        };
        let counts = &mut self.counts;
        match ended {
            Ended::Known(block) => {
                self.last_frees.goes_on(it.tid);
                let ticks = self.ticks(time_ns).saturating_sub(u64::from(block.time));
                let weight = self.take_off(totals, block);
                let by_other = !it.goes_on && totals.thread(block.owner) != Some(it.thread);
                let n_by_other = if by_other { weight.blocks } else { 0 };
                let freed_by_other = &mut self.counts.freed_by_other;
                *freed_by_other = freed_by_other.saturating_add(n_by_other);
                totals.free(block.owner, weight, ticks, by_other);
            }
            Ended::NotKept => {}
            Ended::Unknown(origin) => {
                let count = |before: &mut u64, inherited: &mut u64, unknown: &mut u64| match origin
                {
                    Origin::Before => *before += 1,
                    Origin::Inherited => *inherited += 1,
                    Origin::Nowhere => *unknown += 1,
                };
                let BlockCounts { freed_before, freed_inherited, frees_unknown, .. } = counts;
                count(freed_before, freed_inherited, frees_unknown);
                self.last_frees.add(it.tid, |Unfounded { before, inherited, unknown }| {
                    count(before, inherited, unknown);
                });
            }
        }
    }

    /// Thread `tid` ends. Returns how many frees were no calls of the program's, and are not counted any more.
    pub(super) fn end_thread(&mut self, tid: u32) -> u64 {
        let last = self.last_frees.take(tid);
        self.counts.freed_before -= last.before;
        self.counts.freed_inherited -= last.inherited;
        self.counts.frees_unknown -= last.unknown;
        last.sum()
    }

    /// A process has no blocks from now on but those of `origin`.
    pub(super) fn renew(&mut self, totals: &mut Totals, tgid: u32, origin: Origin) {
        self.clear(totals, tgid);
        if let Some(heap) = heap(&mut self.heaps, tgid) {
            heap.origin = origin;
        }
    }

    /// A process is gone, and its blocks with it. Nobody gave them back.
    pub(super) fn clear(&mut self, totals: &mut Totals, tgid: u32) {
        let Some(heap) = self.heaps.remove(&tgid) else { return };
        for block in heap.table.blocks() {
            self.take_off(totals, block);
        }
    }

    /// A process is gone, and what it held stays its answer.
    pub(super) fn leave_behind(&mut self, tgid: u32) {
        let heap = self.heaps.remove(&tgid);
        self.left_behind.extend(heap.map(|heap| heap.table).filter(|table| table.len() > 0));
    }

    /// Totals have new numbers.
    pub(super) fn renumber(&mut self, new_totals: &[u32]) {
        let tables = self.heaps.values_mut().map(|heap| &mut heap.table);
        for table in tables.chain(&mut self.left_behind) {
            table.renumber(|owner| at(new_totals, owner));
        }
    }

    /// Owner of each live block that was there before `time_ns`, to the tick, and what it stands for.
    pub(super) fn older_than(&self, time_ns: u64) -> impl Iterator<Item = (u32, Weight)> {
        let end = self.ticks(time_ns);
        let tables = self.heaps.values().map(|heap| &heap.table).chain(&self.left_behind);
        let is_old = move |block: &Block| u64::from(block.time) < end;
        tables
            .flat_map(BlockTable::blocks)
            .filter(is_old)
            .map(|block| (block.owner, weight(block.size, self.mean_bytes)))
    }

    pub(super) fn counts(&self) -> BlockCounts {
        // Differences of large numbers: what is left of nothing may be below it.
        let error_bytes = self.mean_bytes.map(|_| (Z_95 * self.variance.max(0.0).sqrt()) as u64);
        BlockCounts { error_bytes, ..self.counts }
    }

    /// From here on only one block for so many bytes is told of, the others by [`Self::tally`].
    pub(super) fn sample(&mut self, mean_bytes: u64) {
        self.mean_bytes = Some(mean_bytes);
    }

    /// What a thread got and gave back, where only samples are told of one by one.
    pub(super) fn tally(&mut self, blocks: u64, bytes: u64, given_back: u64) {
        for (sum, value) in [
            (&mut self.counts.allocations, blocks),
            (&mut self.counts.allocated_bytes, bytes),
            (&mut self.counts.given_back, given_back),
        ] {
            *sum = sum.saturating_add(value);
        }
    }

    /// Takes a block that is in no table any more off the sums.
    fn take_off(&mut self, totals: &mut Totals, Block { owner, size, .. }: Block) -> Weight {
        let weight = weight(size, self.mean_bytes);
        self.n_kept = self.n_kept.saturating_sub(1);
        self.variance -= weight.variance;
        self.counts.live = self.counts.live.saturating_sub(weight.blocks);
        self.counts.live_bytes = self.counts.live_bytes.saturating_sub(weight.bytes);
        totals.take_off(owner, weight);
        weight
    }

    /// Ticks since the first block.
    fn ticks(&self, time_ns: u64) -> u64 {
        time_ns.saturating_sub(self.first_ns.unwrap_or(time_ns)) >> TICK_SHIFT
    }
}

/// The nanoseconds of as many ticks.
pub(super) fn ticks_ns(ticks: u64) -> u64 {
    ticks.saturating_mul(1 << TICK_SHIFT)
}

fn heap(heaps: &mut FxHashMap<u32, Heap>, tgid: u32) -> Option<&mut Heap> {
    if heaps.len() >= MAX_HEAPS && !heaps.contains_key(&tgid) {
        return None;
    }
    Some(heaps.entry(tgid).or_default())
}

/// What an end means.
enum Ended {
    Known(Block),
    /// More likely the end of a block that there was no room for than anything else.
    NotKept,
    Unknown(Origin),
}

impl Heap {
    /// Tells whether the block is remembered, and which one was there though its end was never seen.
    fn begin(&mut self, address: u64, block: Block, has_room: bool) -> (bool, Option<Block>) {
        let put = if has_room { self.table.put(address, block) } else { Put::Refused };
        match put {
            Put::New => (true, None),
            Put::Over(old) => (true, Some(old)),
            Put::Refused => {
                self.n_not_kept += 1;
                (false, self.table.take(address))
            }
        }
    }

    fn end(&mut self, address: u64) -> Ended {
        if let Some(block) = self.table.take(address) {
            return Ended::Known(block);
        }
        if self.n_not_kept > 0 {
            self.n_not_kept -= 1;
            return Ended::NotKept;
        }
        Ended::Unknown(self.origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ledger::{Allocation, BlockTotal, Event, Freeing, Ledger, Metric, What},
        stacks::StackId,
    };

    const CHILD: u32 = 200;

    /// Something that the first thread of process 1 does, at stack 7.
    fn event(what: What) -> Event {
        Event { time_ns: 0, tgid: 1, tid: 1, stack: StackId(7), what }
    }

    fn alloc(addr: u64, size: u64) -> Event {
        event(What::Alloc { by: Allocation::Malloc, addr, size })
    }

    fn free(addr: u64) -> Event {
        event(What::Free { addr, by: Freeing::Free })
    }

    fn realloc(from: u64, to: u64, size: u64) -> [Event; 2] {
        [
            event(What::Free { addr: from, by: Freeing::Realloc }),
            event(What::Alloc { by: Allocation::Realloc, addr: to, size }),
        ]
    }

    fn of_child(event: Event) -> Event {
        Event { tgid: CHILD, tid: CHILD, ..event }
    }

    fn by_other(event: Event) -> Event {
        Event { tid: 2, ..event }
    }

    fn check(events: &[Event], live: (u64, u64), counts: BlockCounts) {
        let mut ledger = Ledger::default();
        events.iter().for_each(|event| ledger.apply(event));
        let BlockCounts { live: n, live_bytes, .. } = ledger.blocks();
        assert_eq!((n, live_bytes), live, "{events:x?}");
        assert_eq!(ledger.sum(Metric::MallocLive), live_bytes, "{events:x?}");
        let seen = ledger.blocks();
        let (allocations, allocated_bytes) = (seen.allocations, seen.allocated_bytes);
        assert_eq!(allocated_bytes, ledger.sum(Metric::Malloc), "{events:x?}");
        let BlockCounts { peak_bytes, peak_ns, .. } = seen;
        let live = BlockCounts { live: n, live_bytes, peak_bytes, peak_ns, ..counts };
        let want = BlockCounts { allocations, allocated_bytes, ..live };
        assert_eq!(ledger.blocks(), want, "{events:x?}");
        let row = ledger.stacks_of_blocks();
        let sum = row.iter().map(|row| row.blocks.freed_by_other).sum::<u64>();
        assert_eq!(sum, counts.freed_by_other, "{events:x?}");
        assert_eq!(ledger.sum(Metric::Mapped), 0);
    }

    #[test]
    fn what_it_means() {
        let none = BlockCounts::default();
        let fork = event(What::Fork { child: CHILD, followed: true });
        let exec = event(What::Exec);
        let ended = event(What::Exit { ended: true, code: 0 });
        let before = BlockCounts { freed_before: 1, ..none };
        let inherited = BlockCounts { freed_inherited: 1, ..none };
        let unknown = BlockCounts { frees_unknown: 1, ..none };
        let missed = BlockCounts { frees_missed: 1, ..none };
        let other = BlockCounts { freed_by_other: 1, ..none };
        let [moves, arrives] = realloc(16, 64, 9);
        // (what happened, live blocks and bytes, what was counted apart)
        let cases: &[(&[Event], (u64, u64), BlockCounts)] = &[
            (&[alloc(16, 8), alloc(32, 4)], (2, 12), none),
            (&[alloc(16, 8), alloc(32, 4), free(16)], (1, 4), none),
            (&[alloc(16, 0)], (1, 0), none),
            // Its end was missed.
            (&[alloc(16, 8), alloc(16, 4)], (1, 4), missed),
            (&[alloc(16, 8), moves, arrives], (1, 9), none),
            (&[alloc(16, 8), by_other(moves), by_other(arrives)], (1, 9), none),
            (&[alloc(16, 8), moves], (0, 0), none),
            (&[moves, arrives], (1, 9), before),
            (&[free(16)], (0, 0), before),
            (&[alloc(16, 8), free(16), free(16)], (0, 0), before),
            (&[exec, alloc(16, 8), free(16), free(16)], (0, 0), unknown),
            (&[exec, free(u64::MAX)], (0, 0), unknown),
            (&[alloc(16, 8), by_other(free(16))], (0, 0), other),
            // A new image has nothing of the old.
            (&[alloc(16, 8), exec, free(16)], (0, 0), unknown),
            // A child frees what is its own, whatever its parent has there.
            (&[alloc(16, 8), fork, of_child(free(16))], (1, 8), inherited),
            (&[alloc(16, 8), fork, of_child(alloc(16, 5)), of_child(free(16))], (1, 8), none),
            (&[fork, of_child(alloc(16, 5)), free(16)], (1, 5), before),
            (&[fork, of_child(exec), of_child(free(16))], (0, 0), unknown),
            (&[fork, of_child(alloc(16, 5)), of_child(exec)], (0, 0), none),
            // What a child holds is gone with it, what the first process holds is the answer.
            (&[fork, of_child(alloc(16, 5)), of_child(ended)], (0, 0), none),
            (&[alloc(16, 8), fork, of_child(alloc(16, 5)), ended], (2, 13), none),
            (&[alloc(16, 8), ended, alloc(16, 8)], (2, 16), none),
            // A thread ends, its blocks don't.
            (
                &[by_other(alloc(16, 8)), by_other(event(What::Exit { ended: false, code: 0 }))],
                (1, 8),
                none,
            ),
            // Sums stay at the largest number.
            (&[alloc(16, u64::MAX), alloc(32, u64::MAX)], (2, u64::MAX), none),
            // No process has such an address.
            (&[alloc(u64::MAX, 8), free(u64::MAX)], (0, 0), BlockCounts { not_kept: 1, ..none }),
        ];
        for (events, live, counts) in cases {
            check(events, *live, *counts);
        }
    }

    /// The most that was live, and when; a block that moves is not there twice.
    #[test]
    fn peak() {
        let mut ledger = Ledger::default();
        let [moves, arrives] = realloc(16, 64, 9);
        let events = [alloc(16, 8), moves, arrives, alloc(32, 4), free(64), alloc(16, 8), free(16)];
        for (event, time_ns) in events.iter().zip(10..) {
            ledger.apply(&Event { time_ns, ..*event });
        }
        let BlockCounts { peak_bytes, peak_ns, allocations, .. } = ledger.blocks();
        assert_eq!((peak_bytes, peak_ns, allocations), (13, 13, 4));
    }

    /// More processes than can be traced: their blocks are counted, and not remembered.
    #[test]
    fn many_processes() {
        let mut ledger = Ledger::default();
        let n = MAX_HEAPS as u32 + 9;
        for tgid in 1..=n {
            ledger.apply(&Event { tgid, tid: tgid, ..alloc(16, 8) });
        }
        let counts = ledger.blocks();
        assert_eq!((counts.live, counts.not_kept), (MAX_HEAPS as u64, 9));
        assert_eq!(ledger.sum(Metric::Malloc), u64::from(n) * 8);
    }

    /// The end of a block that was not remembered is no end of one from before.
    #[test]
    fn not_kept() {
        let (mut blocks, mut totals) = (Blocks::default(), Totals::default());
        let owner = totals.index(0, StackId(7));
        blocks.n_kept = MAX_BLOCKS;
        blocks.begin(&mut totals, Handed { tgid: 1, tid: 1, address: 16, size: 8, owner }, 0);
        let end = Returned { tgid: 1, tid: 1, address: 16, thread: 0, goes_on: false };
        blocks.end(&mut totals, end, 0);
        assert_eq!((blocks.counts.not_kept, blocks.counts.freed_before), (1, 0));
        blocks.end(&mut totals, end, 0);
        assert_eq!(blocks.counts.freed_before, 1);
        let BlockTotal { mallocs, malloc_live, .. } = totals.blocks(0);
        assert_eq!((mallocs, malloc_live), (1, 0));
    }
}
