//! Memory system calls: entry and exit paired, so that an event has arguments, result and both times.

use aya_ebpf::{
    EbpfContext, helpers::bpf_ktime_get_ns, macros::tracepoint, programs::TracePointContext,
};
use memtrace_common::{Counter, Kind, Mend};

use crate::{
    counters::{count, count_failed, is_on},
    emit::{Wake, What, emit_with_stack},
    maps::target,
    task::{current_ids, regs_of, syscall_args, user_regs},
    threads,
};

/// Offsets in a `sys_enter_*` and `sys_exit_*` record. What lies beyond is not there for every call, and the kernel
/// refuses a program that reads it.
const NR: usize = 8;
const RESULT: usize = 16;

const PROT_EXEC: u64 = 4;
const MAP_ANONYMOUS: u64 = 0x20;
const MAX_ERRNO: u64 = 4095;

/// Remembers when a call began.
#[tracepoint]
pub fn sys_enter(ctx: TracePointContext) -> u32 {
    if let Some(kind) = kind_of(&ctx) {
        enter(kind);
    }
    0
}

/// Emits the call that returns.
#[tracepoint]
pub fn sys_exit(ctx: TracePointContext) -> u32 {
    if let Some(kind) = kind_of(&ctx) {
        // SAFETY: the record has the result there.
        let result = unsafe { ctx.as_ptr().byte_add(RESULT).cast::<u64>().read_volatile() };
        exit(kind, result);
    }
    0
}

#[inline(always)]
fn enter(kind: Kind) {
    let ids = current_ids();
    let known = threads::get(ids.tid);
    if !threads::is_wanted(known.as_deref(), ids.tgid) {
        return;
    }
    let Some(thread) = known.or_else(|| threads::get_or_add(ids.tid)) else { return };
    if thread.kind != 0 {
        count(Counter::EXIT_MISSED);
    }
    thread.kind = kind.0 as u64;
    // SAFETY: the helper has no preconditions.
    thread.enter_ns = unsafe { bpf_ktime_get_ns() };
}

#[inline(always)]
fn exit(kind: Kind, result: u64) {
    let ids = current_ids();
    let Some(thread) = threads::get(ids.tid) else {
        if target(ids.tgid).is_some() {
            count(Counter::UNDER_WAY);
        }
        return;
    };
    if thread.kind != kind.0 as u64 {
        if is_on() {
            count(Counter::ENTRY_MISSED);
        }
        return;
    }
    thread.kind = 0;
    if result > u64::MAX - MAX_ERRNO {
        count_failed(kind);
        return;
    }
    let regs = user_regs();
    let what = What {
        kind,
        ids,
        enter_ns: thread.enter_ns,
        // SAFETY: the helper has no preconditions.
        exit_ns: unsafe { bpf_ktime_get_ns() },
        args: syscall_args(regs),
        result,
        regs: regs_of(regs),
        own_mend: Mend { slot: 0, return_address: 0 },
    };
    emit_with_stack(&what, Some(thread), wake_for(kind, &what.args));
}

/// What user space must look at the process for, while it is as it is: a library that was mapped, a segment's size.
#[inline(always)]
fn wake_for(kind: Kind, args: &[u64; 5]) -> Wake {
    let maps_code = kind == Kind::MMAP && args[2] & PROT_EXEC != 0 && args[3] & MAP_ANONYMOUS == 0;
    if maps_code || kind == Kind::SHMAT { Wake::Now } else { Wake::Later }
}

#[inline(always)]
fn kind_of(ctx: &TracePointContext) -> Option<Kind> {
    // SAFETY: the record has the number of the call there, as a 32-bit integer.
    let nr = unsafe { ctx.as_ptr().byte_add(NR).cast::<i32>().read_volatile() };
    Kind::of_syscall(nr as i64)
}
