//! Inflaters and Deflaters: opened, with the address that the opening returned, and ended.

use aya_ebpf::{
    EbpfContext,
    bindings::pt_regs,
    helpers::{bpf_ktime_get_ns, bpf_probe_read_user, generated::bpf_get_attach_cookie},
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use memtrace_common::{Kind, Mend};

use crate::{
    counters::is_on,
    emit::{Wake, What, emit, emit_with_stack},
    maps::target,
    nesting::{self, Call},
    task::{current_ids, regs_of},
};

/// Entry of a function that opens a stream. The cookie is its `Kind`.
#[uprobe]
pub fn stream_init(ctx: ProbeContext) -> u32 {
    let ids = current_ids();
    if target(ids.tgid).is_none() || !is_on() {
        return 0;
    }
    // SAFETY: the context is the kernel's saved registers.
    let regs = unsafe { &*ctx.regs };
    // SAFETY: the helper checks the address.
    let Ok(return_address) = (unsafe { bpf_probe_read_user(regs.rsp as *const u64) }) else {
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
    nesting::push(ids.tid, call);
    0
}

/// Return of a function that opens a stream: the event is told as it was at the entry, with the result.
#[uretprobe]
pub fn stream_init_return(ctx: RetProbeContext) -> u32 {
    let ids = current_ids();
    if target(ids.tgid).is_none() {
        return 0;
    }
    // SAFETY: the context is the kernel's saved registers.
    let regs = unsafe { &*ctx.regs };
    let Some(call) = nesting::pop(ids.tid, regs.rsp.wrapping_sub(8)) else { return 0 };
    let mut what = event(regs, Kind(call.kind as u32), call.argument);
    what.enter_ns = call.enter_ns;
    what.result = regs.rax;
    what.regs.ip = call.ip;
    what.regs.sp = call.mend.slot;
    // The table no longer has this call, but the copy begins with its slot.
    what.own_mend = call.mend;
    emit_with_stack(&what, Wake::Later);
    0
}

/// Entry of a function that ends a stream, whose address is the JNI functions' third argument. The cookie is its `Kind`.
#[uprobe]
pub fn stream_end(ctx: ProbeContext) -> u32 {
    let ids = current_ids();
    if target(ids.tgid).is_none() || !is_on() {
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
    let what = event(regs, Kind(kind), if is_jni { third } else { first });
    emit(&what, Wake::Later);
    0
}

#[inline(always)]
fn event(regs: &pt_regs, kind: Kind, argument: u64) -> What {
    // SAFETY: the helper has no preconditions.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    What {
        kind,
        ids: current_ids(),
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
