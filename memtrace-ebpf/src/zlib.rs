//! Inflaters and Deflaters: opened, with the address that the opening returned, and ended.

use aya_ebpf::{
    EbpfContext,
    bindings::pt_regs,
    helpers::{bpf_ktime_get_ns, bpf_probe_read_user, generated::bpf_get_attach_cookie},
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use memtrace_common::{Counter, Kind, Mend};

use crate::{
    counters::count,
    emit::{Wake, What, emit, emit_with_stack},
    nesting::Call,
    own_stack,
    task::{Ids, current_ids, regs_of},
    threads,
};

/// Entry of a function that opens a stream. The cookie is its `Kind`.
#[uprobe]
pub fn stream_init(ctx: ProbeContext) -> u32 {
    own_stack::keep(ctx.as_ptr());
    let ids = current_ids();
    let known = threads::get(ids.tid);
    if !threads::is_wanted(known.as_deref(), ids.tgid) {
        return 0;
    }
    // SAFETY: the context is the kernel's saved registers.
    let regs = unsafe { &*ctx.regs };
    // SAFETY: the helper checks the address.
    let Ok(return_address) = (unsafe { bpf_probe_read_user(regs.rsp as *const u64) }) else {
        // Then the kernel can't replace it either, and its return is not seen.
        count(Counter::RETURN_MISSED);
        return 0;
    };
    let call = Call {
        mend: Mend { slot: regs.rsp, return_address },
        ip: regs.rip,
        // SAFETY: the helper has no preconditions.
        enter_ns: unsafe { bpf_ktime_get_ns() },
        argument: regs.rdi,
        kind: cookie(&ctx),
    };
    if let Some(thread) = known.or_else(|| threads::get_or_add(ids.tid)) {
        thread.nesting.push(call);
    }
    0
}

/// A function that opens a stream, at its call of zlib's own function with the stream's address. The cookie is its `Kind`.
///
/// One trap in place of two, and no hidden return address. Zlib's function can still fail for lack of memory: such a
/// stream is told as opened, too.
#[uprobe]
pub fn stream_opens(ctx: ProbeContext) -> u32 {
    own_stack::keep(ctx.as_ptr());
    let ids = current_ids();
    let known = threads::get(ids.tid);
    if !threads::is_wanted(known.as_deref(), ids.tgid) {
        return 0;
    }
    // SAFETY: the context is the kernel's saved registers.
    let regs = unsafe { &*ctx.regs };
    let mut what = event(ids, regs, Kind(cookie(&ctx) as u32), 0);
    what.result = regs.rdi;
    let thread = known.or_else(|| threads::get_or_try_add(ids.tid));
    emit_with_stack(&what, thread, Wake::Later);
    0
}

/// Return of a function that opens a stream: the event is told as it was at the entry, with the result.
#[uretprobe]
pub fn stream_init_return(ctx: RetProbeContext) -> u32 {
    own_stack::keep(ctx.as_ptr());
    let ids = current_ids();
    // Only threads of traced processes are there.
    let Some(thread) = threads::get(ids.tid) else { return 0 };
    // SAFETY: the context is the kernel's saved registers.
    let regs = unsafe { &*ctx.regs };
    let Some(&call) = thread.nesting.pop(regs.rsp.wrapping_sub(8)) else { return 0 };
    let mut what = event(ids, regs, Kind(call.kind as u32), call.argument);
    what.enter_ns = call.enter_ns;
    what.result = regs.rax;
    what.regs.ip = call.ip;
    what.regs.sp = call.mend.slot;
    // The table no longer has this call, but the copy begins with its slot.
    what.own_mend = call.mend;
    emit_with_stack(&what, Some(thread), Wake::Later);
    0
}

/// Entry of a function that ends a stream, whose address is the JNI functions' third argument. The cookie is its `Kind`.
#[uprobe]
pub fn stream_end(ctx: ProbeContext) -> u32 {
    own_stack::keep(ctx.as_ptr());
    let ids = current_ids();
    let known = threads::get(ids.tid);
    if !threads::is_wanted(known.as_deref(), ids.tgid) {
        return 0;
    }
    // SAFETY: the context is the kernel's saved registers.
    let regs = unsafe { &*ctx.regs };
    let kind = cookie(&ctx) as u32;
    // Both are loaded as they are: the verifier refuses a load whose place depends on the cookie.
    // SAFETY: fields of the context, which is valid.
    let (first, third) =
        unsafe { ((&raw const regs.rdi).read_volatile(), (&raw const regs.rdx).read_volatile()) };
    let is_jni = kind == Kind::INFLATER_END.0 || kind == Kind::DEFLATER_END.0;
    let what = event(ids, regs, Kind(kind), if is_jni { third } else { first });
    emit(&what, Wake::Later);
    0
}

#[inline(always)]
fn event(ids: Ids, regs: &pt_regs, kind: Kind, argument: u64) -> What {
    // SAFETY: the helper has no preconditions.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    What {
        kind,
        ids,
        enter_ns: now_ns,
        exit_ns: now_ns,
        args: [argument, 0, 0, 0, 0],
        result: 0,
        regs: regs_of(regs),
        own_mend: Mend::default(),
    }
}

#[inline(always)]
fn cookie(ctx: &ProbeContext) -> u64 {
    // SAFETY: the context is a probe's.
    unsafe { bpf_get_attach_cookie(ctx.as_ptr()) }
}
