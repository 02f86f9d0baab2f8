//! Blocks of an allocator that are handed out, with the address that the call returned.
//!
//! What an allocator's function calls of its own kind, in the same allocator or in another, is a part of the outer call.

use aya_ebpf::{
    bindings::pt_regs,
    helpers::{bpf_ktime_get_ns, bpf_probe_read_user},
};
use memtrace_common::{Counter, Kind, Mend, Regs};

use crate::{
    allocators::{Cookie, what},
    counters::{count, count_failed, is_behind},
    emit::{Wake, What, emit, emit_with_stack},
    maps::MIN_BLOCK_BYTES,
    sampling::{self, rate_bytes},
    tallies::{ignore, is_sample, tell_tally},
    task::{Ids, current_ids, regs_of},
    threads::{self, Thread},
};

/// No allocator takes so long, but in a process that is stopped meanwhile.
const MAX_REQUEST_NS: u64 = 1_000_000_000;

/// A function of an allocator that a thread is in and that hands out a block.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Request {
    /// Its return address, which its probe hides.
    pub(crate) mend: Mend,
    /// A `Kind`, 0 if the thread is in no such function.
    kind: u64,
    /// Where it was probed.
    ip: u64,
    enter_ns: u64,
    args: [u64; 3],
    /// Not 0 if it is a realloc of a block that was a sample.
    was_sample: u64,
    /// Not 0 if it is a sample, and was added up when it was entered.
    is_counted: u64,
}

/// A thread in no such function.
pub(crate) const NO_REQUEST: Request = Request {
    mend: Mend { slot: 0, return_address: 0 },
    kind: 0,
    ip: 0,
    enter_ns: 0,
    args: [0; 3],
    was_sample: 0,
    is_counted: 0,
};

impl Request {
    /// Whether a function whose return address is at `slot` was called from inside this one, perhaps as its last act.
    ///
    /// One that was left by a jump or by an exception would contain all that comes: where its return address stands again
    /// as it was, or it takes longer than any, it is not under way.
    #[inline(always)]
    pub(crate) fn contains(&self, slot: u64) -> bool {
        if self.kind == 0 || slot > self.mend.slot {
            return false;
        }
        // SAFETY: the helpers check the address, and have no preconditions.
        let (word, now_ns) =
            unsafe { (bpf_probe_read_user(self.mend.slot as *const u64), bpf_ktime_get_ns()) };
        word != Ok(self.mend.return_address) && now_ns.wrapping_sub(self.enter_ns) < MAX_REQUEST_NS
    }

    /// Whether the thread is in such a function.
    #[inline(always)]
    pub(crate) fn is_under_way(&self) -> bool {
        self.kind != 0
    }

    /// The thread has a new image: what it was in hands out no block any more.
    #[inline(always)]
    pub(crate) fn forget(&mut self) {
        self.kind = 0;
    }
}

/// Takes note of a request for a block; tells whether its result is wanted.
#[inline(always)]
pub(crate) fn wanted(regs: *const pt_regs, cookie: Cookie) -> bool {
    let ids = current_ids();
    let known = threads::get(ids.tid);
    let Cookie { kind, tgid, .. } = cookie;
    if tgid != ids.tgid || !threads::is_wanted(known.as_deref(), ids.tgid) {
        return false;
    }
    // SAFETY: the context is the kernel's saved registers.
    let regs = unsafe { &*regs };
    let Some(thread) = known.or_else(|| threads::get_or_add(ids.tid)) else { return false };
    // SAFETY: the helper checks the address.
    let Ok(return_address) = (unsafe { bpf_probe_read_user(regs.rsp as *const u64) }) else {
        // Then the kernel can't replace it either, and its return is not seen.
        count(Counter::RETURN_MISSED);
        return false;
    };
    let mend = Mend { slot: regs.rsp, return_address };
    if thread.request.contains(regs.rsp) {
        thread.unwanted = mend;
        return false;
    }
    if thread.request.is_under_way() {
        // It was left by a jump.
        count(Counter::RETURN_MISSED);
    }
    let args = [regs.rdi, regs.rsi, regs.rdx];
    let is_sampled = rate_bytes() != 0;
    if cookie.is_leaf && is_done(thread, ids, size_of(kind, &args)) {
        thread.request.kind = 0;
        thread.unwanted = mend;
        // It may be this block.
        thread.last_free.addr = 0;
        return false;
    }
    // From here on another thread may get the block.
    let was_sample =
        is_sampled && is_realloc(kind) && args[0] != 0 && sampling::forget(ids, args[0]);
    thread.request = Request {
        mend,
        kind: u64::from(kind.0),
        ip: regs.rip,
        // SAFETY: the helper has no preconditions.
        enter_ns: unsafe { bpf_ktime_get_ns() },
        args,
        was_sample: u64::from(was_sample),
        is_counted: u64::from(is_sampled && cookie.is_leaf),
    };
    true
}

/// Adds up a request for a block that is not to be told of, if it is none: then its result does not matter.
#[inline(always)]
fn is_done(thread: &mut Thread, ids: Ids, size: u64) -> bool {
    if rate_bytes() != 0 {
        return !is_sample(thread, ids, size);
    }
    let is_ignored = size < MIN_BLOCK_BYTES.load();
    if is_ignored {
        ignore(thread, ids, size);
    }
    is_ignored
}

/// The request's return: the event is told as it was at the entry, with the result.
#[inline(always)]
pub(crate) fn got(regs: *const pt_regs) {
    let ids = current_ids();
    // Only threads of traced processes are there.
    let Some(thread) = threads::get(ids.tid) else { return };
    // SAFETY: the context is the kernel's saved registers.
    let regs = unsafe { &*regs };
    let request = thread.request;
    // Another one is the return of a call from inside, or of one that was under way when tracing began.
    if !request.is_under_way() || request.mend.slot != regs.rsp.wrapping_sub(8) {
        return;
    }
    thread.request.kind = 0;
    let kind = Kind(request.kind as u32);
    let [first, second, third] = request.args;
    let size = size_of(kind, &request.args);
    let result = result_of(kind, regs, first);
    if result == thread.last_free.addr {
        thread.last_free.addr = 0;
    }
    if result == 0 && !gives_back(kind, second, third) {
        if request.was_sample != 0 {
            sampling::remember(ids, first);
        }
        if request.is_counted != 0 {
            thread.tally.blocks -= 1;
            thread.tally.bytes -= size;
        }
        count_failed(kind);
        return;
    }
    if size < MIN_BLOCK_BYTES.load() {
        if is_realloc(kind) && first != 0 {
            // What it was before may be a block that was told of.
            let gone =
                What { enter_ns: request.enter_ns, ..what(Kind::REALLOC_FROM, ids, request.args) };
            emit(&gone, Wake::Later);
        }
        if result != 0 {
            ignore(thread, ids, size);
        }
        return;
    }
    let is_sampled = rate_bytes() != 0;
    let mut args = request.args;
    if is_sampled {
        if request.was_sample != 0 {
            let gone = What { enter_ns: request.enter_ns, ..what(Kind::REALLOC_FROM, ids, args) };
            emit(&gone, Wake::Later);
        }
        if is_realloc(kind) {
            // It is told already.
            args[0] = 0;
        }
        let is_due = request.is_counted != 0 || result != 0 && is_sample(thread, ids, size);
        if result == 0 || !is_due || !sampling::remember(ids, result) {
            return;
        }
    }
    let [first, second, third] = args;
    let regs = regs_of(regs);
    let what = What {
        kind,
        ids,
        enter_ns: request.enter_ns,
        // SAFETY: the helper has no preconditions.
        exit_ns: unsafe { bpf_ktime_get_ns() },
        args: [first, second, third, 0, 0],
        result,
        regs: Regs { ip: request.ip, sp: request.mend.slot, ..regs },
        own_mend: request.mend,
    };
    // Better many blocks without their stacks than some that nobody knows of.
    if is_behind() {
        emit(&what, Wake::Later);
    } else {
        emit_with_stack(&what, Some(thread), Wake::Later);
    }
    if is_sampled {
        tell_tally(thread, ids.tid);
    }
}

#[inline(always)]
fn is_realloc(kind: Kind) -> bool {
    kind.0 == Kind::REALLOC.0 || kind.0 == Kind::REALLOCARRAY.0
}

/// The bytes that a call of `kind` asked for.
#[inline(always)]
fn size_of(kind: Kind, args: &[u64; 3]) -> u64 {
    let [first, second, third] = *args;
    match kind {
        Kind::CALLOC => product(first, second),
        Kind::REALLOC | Kind::ALIGNED_ALLOC | Kind::MEMALIGN => second,
        Kind::REALLOCARRAY => product(second, third),
        Kind::POSIX_MEMALIGN => third,
        // Whole pages.
        Kind::PVALLOC => first.wrapping_add(4095) & !4095,
        _ => first,
    }
}

/// The product, or the largest number: what is too much can't be had, and must not look small.
#[inline(always)]
fn product(first: u64, second: u64) -> u64 {
    // By halves: the instruction set has no product of 128 bits.
    let (large, small) = if first > second { (first, second) } else { (second, first) };
    let carry = ((large & 0xffff_ffff) * (small & 0xffff_ffff)) >> 32;
    let upper = (large >> 32) * (small & 0xffff_ffff) + carry;
    if small >> 32 != 0 || upper >> 32 != 0 { u64::MAX } else { first.wrapping_mul(second) }
}

/// The block that a function of `kind` returns; `posix_memalign` returns a status, and the block at `place`.
#[inline(always)]
fn result_of(kind: Kind, regs: &pt_regs, place: u64) -> u64 {
    if kind.0 != Kind::POSIX_MEMALIGN.0 {
        return regs.rax;
    }
    if regs.rax as u32 != 0 {
        return 0;
    }
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_user(place as *const u64) }.unwrap_or_default()
}

/// Whether a call without a result gave its block back: a new size of 0 does.
#[inline(always)]
fn gives_back(kind: Kind, second: u64, third: u64) -> bool {
    match kind {
        Kind::REALLOC => second == 0,
        Kind::REALLOCARRAY => second == 0 || third == 0,
        _ => false,
    }
}
