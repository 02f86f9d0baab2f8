//! What was obtained and handed out, by thread and stack.

use rustc_hash::FxHashMap;

use super::{
    fold::at,
    samples::{NBlocks, Weight},
};
use crate::stacks::StackId;

/// Pairs of thread and stack that are kept apart; of later ones only the thread is kept.
const MAX_TOTALS: usize = 400_000;

/// What one thread obtained at one stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Total {
    /// Index of the thread.
    pub thread: u32,
    /// The stack.
    pub stack: StackId,
    /// Calls that obtained memory, and streams opened.
    pub n_events: u64,
    /// Bytes that became accessible.
    pub mapped_bytes: u64,
    /// Those of them that were not given back.
    pub mapped_live_bytes: u64,
    /// zlib streams opened.
    pub streams: u64,
    /// Those of them that were not ended.
    pub streams_live: u64,
}

/// The blocks that an allocator handed out to one thread at one stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockTotal {
    /// Blocks handed out.
    pub mallocs: NBlocks,
    /// Bytes that were asked for with them.
    pub malloc_bytes: u64,
    /// Those of the blocks that are live.
    pub malloc_live: NBlocks,
    /// Bytes of those.
    pub malloc_live_bytes: u64,
    /// Those of the blocks that were seen given back, moved or resized.
    pub freed: NBlocks,
    /// Those of them that another thread gave back.
    pub freed_by_other: NBlocks,
    /// How long they lived together, in ticks and 1/1024 of a block.
    pub(super) life_ticks: u64,
}

impl BlockTotal {
    /// Adds what another has.
    pub fn add(&mut self, other: &BlockTotal) {
        self.mallocs.add(other.mallocs);
        self.malloc_live.add(other.malloc_live);
        self.freed.add(other.freed);
        self.freed_by_other.add(other.freed_by_other);
        for (sum, value) in [
            (&mut self.malloc_bytes, other.malloc_bytes),
            (&mut self.malloc_live_bytes, other.malloc_live_bytes),
            (&mut self.life_ticks, other.life_ticks),
        ] {
            *sum = sum.saturating_add(value);
        }
    }
}

impl Total {
    fn add(&mut self, other: &Total) {
        for (sum, value) in [
            (&mut self.n_events, other.n_events),
            (&mut self.mapped_bytes, other.mapped_bytes),
            (&mut self.mapped_live_bytes, other.mapped_live_bytes),
            (&mut self.streams, other.streams),
            (&mut self.streams_live, other.streams_live),
        ] {
            *sum = sum.saturating_add(value);
        }
    }
}

/// All totals, by index.
#[derive(Debug, Default)]
pub struct Totals {
    all: Vec<Total>,
    /// The blocks of the totals, by the same index: apart, because most traces have none, and shorter than that.
    blocks: Vec<BlockTotal>,
    by_key: FxHashMap<(u32, StackId), u32>,
    /// Events of pairs that were not kept apart.
    pub(super) n_grouped: u64,
}

impl Totals {
    pub(super) fn all(&self) -> &[Total] {
        &self.all
    }

    /// The blocks of the total at `index`.
    pub(super) fn blocks(&self, index: usize) -> BlockTotal {
        self.blocks.get(index).copied().unwrap_or_default()
    }

    /// All totals, each with its blocks.
    pub(super) fn with_blocks(&self) -> impl Iterator<Item = (&Total, BlockTotal)> {
        self.all.iter().enumerate().map(|(index, total)| (total, self.blocks(index)))
    }

    /// The thread of the total at `index`.
    pub(super) fn thread(&self, index: u32) -> Option<u32> {
        self.all.get(index as usize).map(|total| total.thread)
    }

    /// The index of the total of `thread` at `stack`.
    pub(super) fn index(&mut self, thread: u32, stack: StackId) -> u32 {
        if let Some(&index) = self.by_key.get(&(thread, stack)) {
            return index;
        }
        if self.all.len() >= MAX_TOTALS && stack != StackId::NOT_KEPT {
            self.n_grouped += 1;
            return self.index(thread, StackId::NOT_KEPT);
        }
        let index = self.all.len() as u32;
        self.all.push(Total {
            thread,
            stack,
            n_events: 0,
            mapped_bytes: 0,
            mapped_live_bytes: 0,
            streams: 0,
            streams_live: 0,
        });
        self.by_key.insert((thread, stack), index);
        index
    }

    /// Adds up what has become the same by new numbers of the threads. Returns the new index of each total.
    pub(super) fn fold(&mut self, new_threads: &[u32]) -> Vec<u32> {
        self.by_key.clear();
        let mut new = Vec::with_capacity(self.all.len());
        let blocks = std::mem::take(&mut self.blocks);
        for (old, mut total) in std::mem::take(&mut self.all).into_iter().enumerate() {
            total.thread = at(new_threads, total.thread);
            let next = self.all.len() as u32;
            let index = *self.by_key.entry((total.thread, total.stack)).or_insert(next);
            match self.all.get_mut(index as usize) {
                Some(known) => known.add(&total),
                None => self.all.push(total),
            }
            if let Some(blocks) = blocks.get(old) {
                self.blocks_mut(index).add(blocks);
            }
            new.push(index);
        }
        new
    }

    pub(super) fn obtain(&mut self, index: u32, bytes: u64) {
        if let Some(total) = self.all.get_mut(index as usize).filter(|_| bytes > 0) {
            total.n_events += 1;
            total.mapped_bytes = total.mapped_bytes.saturating_add(bytes);
            total.mapped_live_bytes = total.mapped_live_bytes.saturating_add(bytes);
        }
    }

    pub(super) fn give_back(&mut self, index: u32, bytes: u64) {
        if let Some(total) = self.all.get_mut(index as usize) {
            total.mapped_live_bytes = total.mapped_live_bytes.saturating_sub(bytes);
        }
    }

    pub(super) fn open(&mut self, index: u32) {
        if let Some(total) = self.all.get_mut(index as usize) {
            total.n_events += 1;
            total.streams += 1;
            total.streams_live += 1;
        }
    }

    pub(super) fn end(&mut self, index: u32) {
        if let Some(total) = self.all.get_mut(index as usize) {
            total.streams_live = total.streams_live.saturating_sub(1);
        }
    }

    /// Takes an opening back that turned out to be part of another.
    pub(super) fn unopen(&mut self, index: u32) {
        if let Some(total) = self.all.get_mut(index as usize) {
            total.n_events = total.n_events.saturating_sub(1);
            total.streams = total.streams.saturating_sub(1);
            total.streams_live = total.streams_live.saturating_sub(1);
        }
        self.drop_if_empty(index);
    }

    /// A block is handed out; one that is not kept is never live.
    pub(super) fn hand_out(&mut self, index: u32, weight: Weight, is_kept: bool) {
        let blocks = self.blocks_mut(index);
        blocks.mallocs.add(weight.blocks);
        blocks.malloc_bytes = blocks.malloc_bytes.saturating_add(weight.bytes);
        if is_kept {
            blocks.malloc_live.add(weight.blocks);
            blocks.malloc_live_bytes = blocks.malloc_live_bytes.saturating_add(weight.bytes);
        }
    }

    /// A block is live no more, however it ended.
    pub(super) fn take_off(&mut self, index: u32, weight: Weight) {
        let blocks = self.blocks_mut(index);
        blocks.malloc_live.take_off(weight.blocks);
        blocks.malloc_live_bytes = blocks.malloc_live_bytes.saturating_sub(weight.bytes);
    }

    /// A block that was taken off was given back after `ticks`.
    pub(super) fn free(&mut self, index: u32, weight: Weight, ticks: u64, by_other: bool) {
        let blocks = self.blocks_mut(index);
        blocks.freed.add(weight.blocks);
        if by_other {
            blocks.freed_by_other.add(weight.blocks);
        }
        let life_ticks = ticks.saturating_mul(weight.blocks.parts());
        blocks.life_ticks = blocks.life_ticks.saturating_add(life_ticks);
    }

    fn blocks_mut(&mut self, index: u32) -> &mut BlockTotal {
        let index = index as usize;
        if index >= self.blocks.len() {
            self.blocks.resize_with(index + 1, BlockTotal::default);
        }
        &mut self.blocks[index]
    }

    /// Nothing refers to a total that nothing was obtained at; one that others follow keeps its number.
    fn drop_if_empty(&mut self, index: u32) {
        let is_last = index as usize + 1 == self.all.len();
        let is_empty =
            |total: &&Total| total.n_events == 0 && self.blocks(index as usize).mallocs.is_none();
        if let Some(&Total { thread, stack, .. }) =
            self.all.get(index as usize).filter(is_empty).filter(|_| is_last)
            && stack != StackId::NOT_KEPT
        {
            self.all.pop();
            self.blocks.truncate(self.all.len());
            self.by_key.remove(&(thread, stack));
        }
    }
}
