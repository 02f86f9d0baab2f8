//! The programs on an allocator's functions: one for each of entry, return and the taking back of a block, and one for all.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext,
    bindings::pt_regs,
    helpers::{
        bpf_ktime_get_ns,
        generated::{bpf_get_attach_cookie, bpf_get_func_ip},
    },
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use memtrace_common::{COOKIE_LEAF, Kind, Mend, Regs};

use crate::{
    emit::What,
    frees::given_back,
    malloc::{got, wanted},
    own_stack,
    task::Ids,
};

/// Entry of a function that hands out blocks.
#[uprobe]
pub fn block_wanted(ctx: ProbeContext) -> u32 {
    own_stack::keep(ctx.as_ptr());
    wanted(ctx.regs, cookie(ctx.as_ptr()));
    0
}

/// Its return.
#[uretprobe]
pub fn block_got(ctx: RetProbeContext) -> u32 {
    own_stack::keep(ctx.as_ptr());
    got(ctx.regs);
    0
}

/// A function that takes a block back.
#[uprobe]
pub fn block_given_back(ctx: ProbeContext) -> u32 {
    own_stack::keep(ctx.as_ptr());
    given_back(ctx.regs, cookie(ctx.as_ptr()));
    0
}

/// Entry and return of a function that hands out blocks, entry of one that takes them back: one program for all, where the
/// kernel asks it at the entry whether the return is to be seen (since Linux 6.13).
// The macro's programs return 0 whatever they are told to.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe")]
pub extern "C" fn block_session(ctx: *mut c_void) -> i32 {
    own_stack::keep_in_session(ctx);
    let regs: *const pt_regs = ctx.cast();
    // The helper tells the probed instruction at the return, too.
    // SAFETY: the context is a probe's, and the kernel's saved registers.
    if unsafe { bpf_get_func_ip(ctx) != (*regs).rip } {
        got(regs);
        return RETURN_UNSEEN;
    }
    let cookie = cookie(ctx);
    if cookie.kind.0 == Kind::FREE.0 {
        given_back(regs, cookie);
        return RETURN_UNSEEN;
    }
    if wanted(regs, cookie) { 0 } else { RETURN_UNSEEN }
}

/// What an entry returns whose call's return the kernel need not trap; what a return returns does not matter.
const RETURN_UNSEEN: i32 = 1;

/// What a probe was attached for.
pub(crate) struct Cookie {
    pub(crate) kind: Kind,
    /// Whether no other function that is probed is called from inside this one.
    pub(crate) is_leaf: bool,
    /// A child that has its parent's memory until its exec traps at its parent's probes, and the parent at the child's.
    pub(crate) tgid: u32,
}

#[inline(always)]
fn cookie(ctx: *mut c_void) -> Cookie {
    // SAFETY: the context is a probe's.
    let cookie = unsafe { bpf_get_attach_cookie(ctx) };
    let low = cookie as u32;
    Cookie {
        kind: Kind(low & !COOKIE_LEAF),
        is_leaf: low & COOKIE_LEAF != 0,
        tgid: (cookie >> 32) as u32,
    }
}

/// What happens now, in the life of a block.
#[inline(always)]
pub(crate) fn what(kind: Kind, ids: Ids, [first, second, third]: [u64; 3]) -> What {
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
