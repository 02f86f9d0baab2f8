//! Blocks of an allocator that are given back.

use aya_ebpf::bindings::pt_regs;

use crate::{
    allocators::{Cookie, what},
    emit::{Wake, emit},
    sampling::{self, rate_bytes},
    task::current_ids,
    threads,
};

/// A call of a function that takes a block back.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct LastFree {
    /// The block; 0 if it was handed out again.
    pub(crate) addr: u64,
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

/// Takes note of a block that is given back.
#[inline(always)]
pub(crate) fn given_back(regs: *const pt_regs, cookie: Cookie) {
    let ids = current_ids();
    let known = threads::get(ids.tid);
    if cookie.tgid != ids.tgid || !threads::is_wanted(known.as_deref(), ids.tgid) {
        return;
    }
    // SAFETY: the context is the kernel's saved registers.
    let regs = unsafe { &*regs };
    if regs.rdi == 0 || known.as_deref().is_some_and(|it| it.request.contains(regs.rsp)) {
        return;
    }
    let mut thread = known.or_else(|| threads::get_or_try_add(ids.tid));
    if let Some(thread) = &mut thread {
        if thread.last_free.contains(regs.rdi, regs.rsp, regs.rip) {
            return;
        }
        thread.last_free = LastFree { addr: regs.rdi, slot: regs.rsp, ip: regs.rip, inner_ip: 0 };
    }
    if rate_bytes() != 0 {
        if let Some(thread) = thread {
            thread.tally.tgid = u64::from(ids.tgid);
            thread.tally.given_back += 1;
        }
        if !sampling::forget(ids, regs.rdi) {
            return;
        }
    }
    emit(&what(cookie.kind, ids, [regs.rdi, 0, 0]), Wake::Later);
}
