//! Blocks that are added up by thread, and not told of one by one.

use aya_ebpf::{macros::map, maps::HashMap};
use memtrace_common::{Counter, Kind, Tally};

use crate::{
    allocators::what,
    counters::count,
    emit::{Wake, try_emit},
    sampling,
    task::Ids,
    threads::Thread,
};

/// Blocks that a thread ignores before that is told; the rest is told at its end.
const MAX_UNTOLD: u64 = 4096;

/// What threads that have ended had left to be told when there was no room; user space reads it at the end.
#[map]
static LEFT_TALLIES: HashMap<u64, Tally> = HashMap::with_max_entries(32_768, BPF_F_NO_PREALLOC);
/// Memory for an element only when there is one.
const BPF_F_NO_PREALLOC: u32 = 1;

/// Tells what a thread that ends has left, or leaves it to be read.
#[inline(always)]
pub(crate) fn tell_last_tally(thread: &mut Thread, tid: u32) {
    if tell_tally(thread, tid) {
        return;
    }
    let Tally { blocks, bytes, given_back, tgid } = thread.tally;
    let key = tgid << 32 | u64::from(tid);
    // Another thread may have had the same id.
    // SAFETY: only a thread that ends writes the element of its id.
    let before = unsafe { LEFT_TALLIES.get(key).copied() };
    let (b, c, d) = before.map_or((0, 0, 0), |it| (it.blocks, it.bytes, it.given_back));
    let sum = Tally { blocks: blocks + b, bytes: bytes + c, given_back: given_back + d, tgid };
    if LEFT_TALLIES.insert(key, sum, 0).is_err() {
        count(Counter::RING_FULL);
    }
}

/// Adds a block up that is too small to be told of.
#[inline(always)]
pub(crate) fn ignore(thread: &mut Thread, ids: Ids, size: u64) {
    thread.tally.tgid = u64::from(ids.tgid);
    thread.tally.blocks += 1;
    thread.tally.bytes += size;
    if thread.tally.blocks.is_multiple_of(MAX_UNTOLD) {
        tell_tally(thread, ids.tid);
    }
}

/// Tells how many blocks a thread got and gave back since that was last told; where there is no room for it, that stays to
/// be told. Says whether nothing is left.
#[inline(always)]
pub(crate) fn tell_tally(thread: &mut Thread, tid: u32) -> bool {
    let Tally { blocks, bytes, given_back, tgid } = thread.tally;
    if tgid == 0 {
        return true;
    }
    let ids = Ids { tgid: tgid as u32, tid };
    let is_told = try_emit(&what(Kind::TALLY, ids, [blocks, bytes, given_back]), Wake::Later);
    if is_told {
        thread.tally = Tally { blocks: 0, bytes: 0, given_back: 0, tgid: 0 };
    }
    is_told
}

/// Adds a block of `size` bytes up, and tells whether it is one of those that are told of.
#[inline(always)]
pub(crate) fn is_sample(thread: &mut Thread, ids: Ids, size: u64) -> bool {
    thread.tally.tgid = u64::from(ids.tgid);
    thread.tally.blocks += 1;
    thread.tally.bytes += size;
    sampling::is_due(thread, size)
}
