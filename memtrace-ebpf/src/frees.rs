//! Blocks of an allocator that are given back.

use aya_ebpf::{bindings::pt_regs, helpers::bpf_probe_read_user};
use memtrace_common::Mend;

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
    /// The return address.
    mend: Mend,
    /// Where it was probed, and where the innermost of those that it handed the block on to.
    ip: u64,
    inner_ip: u64,
}

/// A thread that gave nothing back yet.
pub(crate) const NO_FREE: LastFree =
    LastFree { addr: 0, mend: Mend { slot: 0, return_address: 0 }, ip: 0, inner_ip: 0 };

impl LastFree {
    /// Whether a call with the block `addr` whose return address is at `slot`, and which is probed at `ip`, was made by this
    /// one, or is its last act; if so it is a part of this one.
    ///
    /// This one has not returned as long as its return address stands where it was: what is called next from there puts
    /// another one in its place.
    #[inline(always)]
    fn contains(&mut self, addr: u64, slot: u64, ip: u64) -> bool {
        if addr != self.addr || slot > self.mend.slot || ip == self.ip || ip == self.inner_ip {
            return false;
        }
        // SAFETY: the helper checks the address.
        let word = unsafe { bpf_probe_read_user(self.mend.slot as *const u64) };
        if word != Ok(self.mend.return_address) {
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
        // SAFETY: the helper checks the address; what can't be read the kernel can't replace either.
        let return_address = unsafe { bpf_probe_read_user(regs.rsp as *const u64) };
        let mend = Mend { slot: regs.rsp, return_address: return_address.unwrap_or_default() };
        thread.last_free = LastFree { addr: regs.rdi, mend, ip: regs.rip, inner_ip: 0 };
        thread.unwanted = mend;
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
