//! The live blocks of all processes: handed out where and when, given back by whom.
//!
//! In: blocks that are handed out and given back, and what happens to processes. Out: what each does to the totals of
//! those who asked, and counts of what does not fit together. An end that nobody saw the beginning of is never taken off
//! what others hold: it is counted by where its block is likely from.

use rustc_hash::FxHashMap;

use super::{
    block_table::{Block, BlockTable, MAX_TIME, Put},
    event::Freeing,
    fold::at,
    last_frees::{LastFrees, Unfounded},
    samples::{NBlocks, Weight, weight},
    totals::Totals,
};

/// Blocks that are remembered, of all processes together; of more only the allocation is counted.
const MAX_BLOCKS: u64 = 20_000_000;
/// Processes whose blocks are remembered, those too whose blocks stayed their answer; as many as can be traced at once.
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
    /// Blocks that were too small to be told of.
    pub ignored: u64,
    /// Bytes in them.
    pub ignored_bytes: u64,
    /// Blocks given back that were handed out before tracing began, or that are ignored.
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
    /// What of the counts may be estimated: blocks that are live, and that another thread gave back.
    live: NBlocks,
    freed_by_other: NBlocks,
    /// The mean number of bytes between two blocks that are told of; `None` if all are.
    mean_bytes: Option<u64>,
    /// Blocks of fewer bytes are ignored; `None` if none are.
    min_bytes: Option<u64>,
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
    pub(super) by: Freeing,
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
        let (is_kept, missed) = match self.heap(tgid) {
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
        self.live.add(weight.blocks);
        counts.live_bytes = counts.live_bytes.saturating_add(weight.bytes);
        if counts.live_bytes > counts.peak_bytes {
            (counts.peak_bytes, counts.peak_ns) = (counts.live_bytes, time_ns);
        }
    }

    /// A block is given back.
    pub(super) fn end(&mut self, totals: &mut Totals, it: Returned, time_ns: u64) {
        let ended = self.heap(it.tgid).map_or(Ended::NotKept, |heap| heap.end(it.address));
        let counts = &mut self.counts;
        match ended {
            Ended::Known(block) => {
                self.last_frees.goes_on(it.tid);
                let ticks = self.ticks(time_ns).saturating_sub(u64::from(block.time));
                let weight = self.take_off(totals, block);
                // Otherwise it goes on elsewhere, or with another size.
                let is_over = it.by != Freeing::Realloc;
                let by_other = is_over && totals.thread(block.owner) != Some(it.thread);
                if by_other {
                    self.freed_by_other.add(weight.blocks);
                }
                totals.free(block.owner, weight, ticks, by_other);
            }
            Ended::NotKept => {}
            Ended::Unknown(_) if self.min_bytes.is_some() => {
                // Of what is ignored it can't be told whether a thread's end gave it back.
                counts.freed_before += 1;
            }
            Ended::Unknown(origin) => {
                let count = |before: &mut u64, inherited: &mut u64, unknown: &mut u64| match origin
                {
                    Origin::Before => *before += 1,
                    Origin::Inherited => *inherited += 1,
                    Origin::Nowhere => *unknown += 1,
                };
                let BlockCounts { freed_before, freed_inherited, frees_unknown, .. } = counts;
                count(freed_before, freed_inherited, frees_unknown);
                if it.by != Freeing::Free {
                    return self.last_frees.goes_on(it.tid);
                }
                let ids = (it.tgid, it.tid);
                self.last_frees.add(ids, time_ns, |Unfounded { before, inherited, unknown }| {
                    count(before, inherited, unknown);
                });
            }
        }
    }

    /// A thread of a process that goes on ends by what ends a thread. Returns how many frees were no calls of the
    /// program's, and are not counted any more.
    pub(super) fn end_thread(&mut self, tgid: u32, tid: u32, time_ns: u64) -> u64 {
        let last = self.last_frees.take((tgid, tid), time_ns);
        self.counts.freed_before -= last.before;
        self.counts.freed_inherited -= last.inherited;
        self.counts.frees_unknown -= last.unknown;
        last.sum()
    }

    /// A thread ends otherwise, or goes on: what it gave back was its own doing.
    pub(super) fn goes_on(&mut self, tid: u32) {
        self.last_frees.goes_on(tid);
    }

    /// A thread is about to end, by itself.
    pub(super) fn leave(&mut self, tid: u32) {
        self.last_frees.leave(tid);
    }

    /// A process has no blocks from now on but those of `origin`.
    pub(super) fn renew(&mut self, totals: &mut Totals, tgid: u32, origin: Origin) {
        self.clear(totals, tgid);
        if let Some(heap) = self.heap(tgid) {
            heap.origin = origin;
        }
    }

    /// A process is gone, and its blocks with it. Nobody gave them back.
    pub(super) fn clear(&mut self, totals: &mut Totals, tgid: u32) {
        self.last_frees.forget_process(tgid);
        let Some(heap) = self.heaps.remove(&tgid) else { return };
        for block in heap.table.blocks() {
            self.take_off(totals, block);
        }
    }

    /// A process is gone, and what it held stays its answer.
    pub(super) fn leave_behind(&mut self, tgid: u32) {
        self.last_frees.forget_process(tgid);
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

    /// The block at `address` of a process that goes on, with the index of its owner.
    pub(super) fn at(&self, tgid: u32, address: u64) -> Option<Block> {
        self.heaps.get(&tgid)?.table.get(address)
    }

    pub(super) fn counts(&self) -> BlockCounts {
        // Differences of large numbers: what is left of nothing may be below it.
        let error_bytes = self.mean_bytes.map(|_| (Z_95 * self.variance.max(0.0).sqrt()) as u64);
        let (live, freed_by_other) = (self.live.rounded(), self.freed_by_other.rounded());
        BlockCounts { error_bytes, live, freed_by_other, ..self.counts }
    }

    /// Whether only samples of blocks are told of one by one.
    pub(super) fn are_sampled(&self) -> bool {
        self.mean_bytes.is_some()
    }

    /// From here on only one block for so many bytes is told of, the others by [`Self::tally`].
    pub(super) fn sample(&mut self, mean_bytes: u64) {
        self.mean_bytes = Some(mean_bytes);
    }

    /// From here on blocks of fewer bytes are told of by [`Self::count_ignored`] only.
    pub(super) fn ignore(&mut self, min_bytes: u64) {
        self.min_bytes = Some(min_bytes);
    }

    /// See [`Self::ignore`].
    pub(super) fn min_bytes(&self) -> Option<u64> {
        self.min_bytes
    }

    /// Blocks that are ignored.
    pub(super) fn count_ignored(&mut self, blocks: u64, bytes: u64) {
        let counts = &mut self.counts;
        counts.ignored = counts.ignored.saturating_add(blocks);
        counts.ignored_bytes = counts.ignored_bytes.saturating_add(bytes);
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
        self.live.take_off(weight.blocks);
        self.counts.live_bytes = self.counts.live_bytes.saturating_sub(weight.bytes);
        totals.take_off(owner, weight);
        weight
    }

    /// The blocks of a process; `None` if there are too many.
    fn heap(&mut self, tgid: u32) -> Option<&mut Heap> {
        let has_room = self.heaps.len() + self.left_behind.len() < MAX_HEAPS;
        if !has_room && !self.heaps.contains_key(&tgid) {
            return None;
        }
        Some(self.heaps.entry(tgid).or_default())
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
mod tests;
