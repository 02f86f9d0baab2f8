//! Blocks of an allocator: handed out, with the address that the call returned, and given back.
//!
//! What an allocator's function calls of its own kind, in the same allocator or in another, is a part of the outer call.

use aya_ebpf::{
    EbpfContext,
    bindings::pt_regs,
    helpers::{bpf_ktime_get_ns, bpf_probe_read_user, generated::bpf_get_attach_cookie},
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use memtrace_common::{Counter, Kind, Mend, Regs, Tally};

use crate::{
    counters::{count, count_failed, is_behind},
    emit::{Wake, What, emit, emit_with_stack},
    maps::MIN_BLOCK_BYTES,
    sampling::{self, rate_bytes},
    task::{Ids, current_ids, regs_of},
    threads::{self, Thread},
};

/// No allocator takes so long, but in a process that is stopped meanwhile.
const MAX_REQUEST_NS: u64 = 1_000_000_000;

/// Blocks that a thread ignores before that is told; the rest is told at its end.
const MAX_UNTOLD: u64 = 4096;

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
}

/// A thread in no such function.
pub(crate) const NO_REQUEST: Request = Request {
    mend: Mend { slot: 0, return_address: 0 },
    kind: 0,
    ip: 0,
    enter_ns: 0,
    args: [0; 3],
    was_sample: 0,
};

impl Request {
    /// Whether a function whose return address is at `slot` was called from inside this one, perhaps as its last act.
    ///
    /// One that was left by a jump or by an exception would contain all that comes: where its return address stands again
    /// as it was, or it takes longer than any, it is not under way.
    #[inline(always)]
    fn contains(&self, slot: u64) -> bool {
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

/// A call of a function that takes a block back.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct LastFree {
    /// The block; 0 if it was handed out again.
    addr: u64,
    /// Where the return address was.
    slot: u64,
    /// Where it was probed, and where the innermost of those that it handed the block on to.
    ip: u64,
    inner_ip: u64,
}

/// A thread that gave nothing back yet.
pub(crate) const NO_FREE: LastFree = LastFree { addr: 0, slot: 0, ip: 0, inner_ip: 0 };

impl LastFree {
    /// Whether a call with the block `addr` whose return address is at `slot`, and which is probed at `ip`, was made by this
    /// one, or is its last act; if so it is a part of this one.
    ///
    /// Whether this one has returned is not known. But no two functions take back one block, unless one of them is made of
    /// the other.
    #[inline(always)]
    fn contains(&mut self, addr: u64, slot: u64, ip: u64) -> bool {
        if addr != self.addr || slot > self.slot || ip == self.ip || ip == self.inner_ip {
            return false;
        }
        self.inner_ip = ip;
        true
    }
}

/// Entry of a function that hands out blocks. The cookie is its `Kind`.
#[uprobe]
pub fn block_wanted(ctx: ProbeContext) -> u32 {
    let ids = current_ids();
    let known = threads::get(ids.tid);
    let Cookie { kind, tgid } = cookie(&ctx);
    if tgid != ids.tgid || !threads::is_wanted(known.as_deref(), ids.tgid) {
        return 0;
    }
    // SAFETY: the context is the kernel's saved registers.
    let regs = unsafe { &*ctx.regs };
    let Some(thread) = known.or_else(|| threads::get_or_add(ids.tid)) else { return 0 };
    if thread.request.contains(regs.rsp) {
        return 0;
    }
    if thread.request.is_under_way() {
        // It was left by a jump.
        count(Counter::RETURN_MISSED);
    }
    // SAFETY: the helper checks the address.
    let Ok(return_address) = (unsafe { bpf_probe_read_user(regs.rsp as *const u64) }) else {
        // Then the kernel can't replace it either, and its return is not seen.
        count(Counter::RETURN_MISSED);
        return 0;
    };
    let args = [regs.rdi, regs.rsi, regs.rdx];
    // From here on another thread may get the block.
    let was_sample =
        rate_bytes() != 0 && is_realloc(kind) && args[0] != 0 && sampling::forget(ids, args[0]);
    thread.request = Request {
        mend: Mend { slot: regs.rsp, return_address },
        kind: u64::from(kind.0),
        ip: regs.rip,
        // SAFETY: the helper has no preconditions.
        enter_ns: unsafe { bpf_ktime_get_ns() },
        args,
        was_sample: u64::from(was_sample),
    };
    0
}

/// Its return: the event is told as it was at the entry, with the result.
#[uretprobe]
pub fn block_got(ctx: RetProbeContext) -> u32 {
    let ids = current_ids();
    // Only threads of traced processes are there.
    let Some(thread) = threads::get(ids.tid) else { return 0 };
    // SAFETY: the context is the kernel's saved registers.
    let regs = unsafe { &*ctx.regs };
    let request = thread.request;
    // Another one is the return of a call from inside, or of one that was under way when tracing began.
    if !request.is_under_way() || request.mend.slot != regs.rsp.wrapping_sub(8) {
        return 0;
    }
    thread.request.kind = 0;
    let kind = Kind(request.kind as u32);
    let [first, second, third] = request.args;
    let result = result_of(kind, regs, first);
    if result == thread.last_free.addr {
        thread.last_free.addr = 0;
    }
    if result == 0 && !gives_back(kind, second, third) {
        if request.was_sample != 0 {
            sampling::remember(ids, first);
        }
        count_failed(kind);
        return 0;
    }
    let size = size_of(kind, &request.args);
    if size < MIN_BLOCK_BYTES.load() {
        if is_realloc(kind) && first != 0 {
            // What it was before may be a block that was told of.
            let gone =
                What { enter_ns: request.enter_ns, ..what(Kind::REALLOC_FROM, ids, request.args) };
            emit(&gone, Wake::Later);
        }
        ignore(thread, ids, size, result);
        return 0;
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
        if !is_sample(thread, ids, size, result) {
            return 0;
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
    0
}

/// Adds a block up that is too small to be told of.
#[inline(always)]
fn ignore(thread: &mut Thread, ids: Ids, size: u64, addr: u64) {
    if addr == 0 {
        return;
    }
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
fn is_sample(thread: &mut Thread, ids: Ids, size: u64, addr: u64) -> bool {
    thread.tally.tgid = u64::from(ids.tgid);
    if addr == 0 {
        return false;
    }
    thread.tally.blocks += 1;
    thread.tally.bytes += size;
    sampling::is_due(thread, size) && sampling::remember(ids, addr)
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
        Kind::CALLOC => first.wrapping_mul(second),
        Kind::REALLOC | Kind::ALIGNED_ALLOC | Kind::MEMALIGN => second,
        Kind::REALLOCARRAY => second.wrapping_mul(third),
        Kind::POSIX_MEMALIGN => third,
        // Whole pages.
        Kind::PVALLOC => first.wrapping_add(4095) & !4095,
        _ => first,
    }
}

#[inline(always)]
fn what(kind: Kind, ids: Ids, [first, second, third]: [u64; 3]) -> What {
    // SAFETY: the helper has no preconditions.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    What {
        kind,
        ids,
        enter_ns: now_ns,
        exit_ns: now_ns,
        args: [first, second, third, 0, 0],
        result: 0,
        regs: Regs::default(),
        own_mend: Mend::default(),
    }
}

/// A function that takes a block back. The cookie is its `Kind`.
#[uprobe]
pub fn block_given_back(ctx: ProbeContext) -> u32 {
    let ids = current_ids();
    let known = threads::get(ids.tid);
    let Cookie { kind, tgid } = cookie(&ctx);
    if tgid != ids.tgid || !threads::is_wanted(known.as_deref(), ids.tgid) {
        return 0;
    }
    // SAFETY: the context is the kernel's saved registers.
    let regs = unsafe { &*ctx.regs };
    if regs.rdi == 0 || known.as_deref().is_some_and(|it| it.request.contains(regs.rsp)) {
        return 0;
    }
    let mut thread = known.or_else(|| threads::get_or_try_add(ids.tid));
    if let Some(thread) = &mut thread {
        if thread.last_free.contains(regs.rdi, regs.rsp, regs.rip) {
            return 0;
        }
        thread.last_free = LastFree { addr: regs.rdi, slot: regs.rsp, ip: regs.rip, inner_ip: 0 };
    }
    if rate_bytes() != 0 {
        if let Some(thread) = thread {
            thread.tally.tgid = u64::from(ids.tgid);
            thread.tally.given_back += 1;
        }
        if !sampling::forget(ids, regs.rdi) {
            return 0;
        }
    }
    emit(&what(kind, ids, [regs.rdi, 0, 0]), Wake::Later);
    0
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

/// What a probe was attached for.
struct Cookie {
    kind: Kind,
    /// A child that has its parent's memory until its exec traps at its parent's probes, and the parent at the child's.
    tgid: u32,
}

#[inline(always)]
fn cookie(ctx: &ProbeContext) -> Cookie {
    // SAFETY: the context is a probe's.
    let cookie = unsafe { bpf_get_attach_cookie(ctx.as_ptr()) };
    Cookie { kind: Kind(cookie as u32), tgid: (cookie >> 32) as u32 }
}
