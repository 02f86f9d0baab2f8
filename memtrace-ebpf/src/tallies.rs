//! Blocks that are added up by thread, and not told of one by one.

use memtrace_common::{Kind, Tally};

use crate::{
    allocators::what,
    emit::{Wake, emit},
    sampling,
    task::Ids,
    threads::Thread,
};

/// Blocks that a thread ignores before that is told; the rest is told at its end.
const MAX_UNTOLD: u64 = 4096;

/// Adds a block up that is too small to be told of.
#[inline(always)]
pub(crate) fn ignore(thread: &mut Thread, ids: Ids, size: u64) {
    thread.tally.tgid = u64::from(ids.tgid);
    thread.tally.blocks += 1;
    thread.tally.bytes += size;
    if thread.tally.blocks >= MAX_UNTOLD {
        tell_tally(thread, ids.tid);
    }
}

/// Tells how many blocks a thread got and gave back since that was last told.
#[inline(always)]
pub(crate) fn tell_tally(thread: &mut Thread, tid: u32) {
    let Tally { blocks, bytes, given_back, tgid } = thread.tally;
    if tgid == 0 {
        return;
    }
    let ids = Ids { tgid: tgid as u32, tid };
    if emit(&what(Kind::TALLY, ids, [blocks, bytes, given_back]), Wake::Later) {
        thread.tally = Tally { blocks: 0, bytes: 0, given_back: 0, tgid: 0 };
    }
}

/// Adds a block of `size` bytes up, and tells whether it is one of those that are told of.
#[inline(always)]
pub(crate) fn is_sample(thread: &mut Thread, ids: Ids, size: u64) -> bool {
    thread.tally.tgid = u64::from(ids.tgid);
    thread.tally.blocks += 1;
    thread.tally.bytes += size;
    sampling::is_due(thread, size)
}
