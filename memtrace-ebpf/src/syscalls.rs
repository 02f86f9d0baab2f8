//! Memory system calls: entry and exit paired, so that an event has arguments, result and both times.

use aya_ebpf::{
    helpers::bpf_ktime_get_ns,
    macros::{map, tracepoint},
    maps::HashMap,
    programs::TracePointContext,
};
use memtrace_common::{Counter, Kind, Mend};

use crate::{
    counters::{count, count_failed, is_on},
    emit::{Wake, What, emit_with_stack},
    maps::target,
    task::{current_ids, syscall_regs},
};

/// Offsets in a `sys_enter_*` and `sys_exit_*` record, the same for every call.
const NR: usize = 8;
const ARGS: usize = 16;
const RESULT: usize = 16;

const PROT_EXEC: u64 = 4;
const MAP_ANONYMOUS: u64 = 0x20;
const MAX_ERRNO: u64 = 4095;

/// A call that was entered.
#[repr(C)]
#[derive(Clone, Copy)]
struct Pending {
    enter_ns: u64,
    args: [u64; 5],
    /// A `Kind`; 0 when no call is under way.
    kind: u64,
}

#[map]
static PENDING: HashMap<u32, Pending> = HashMap::with_max_entries(32768, 0);

/// Remembers the arguments of a call.
#[tracepoint]
pub fn sys_enter(ctx: TracePointContext) -> u32 {
    enter(&ctx);
    0
}

/// Emits the call that returns.
#[tracepoint]
pub fn sys_exit(ctx: TracePointContext) -> u32 {
    exit(&ctx);
    0
}

#[inline(always)]
fn enter(ctx: &TracePointContext) -> Option<()> {
    let ids = current_ids();
    target(ids.tgid)?;
    if !is_on() {
        return None;
    }
    let kind = kind_of(ctx)?;
    // SAFETY: the record has six arguments.
    let args = unsafe { ctx.read_at::<[u64; 5]>(ARGS) }.ok()?;
    // SAFETY: the helper has no preconditions.
    let pending = Pending { enter_ns: unsafe { bpf_ktime_get_ns() }, args, kind: kind.0 as u64 };
    if let Some(last) = PENDING.get_ptr_mut(ids.tid) {
        // SAFETY: only the thread itself writes its element, and it is in this program.
        let last = unsafe { &mut *last };
        if last.kind != 0 {
            count(Counter::EXIT_MISSED);
        }
        *last = pending;
    } else if PENDING.insert(ids.tid, pending, 0).is_err() {
        count(Counter::PENDING_FULL);
    }
    Some(())
}

#[inline(always)]
fn exit(ctx: &TracePointContext) -> Option<()> {
    let ids = current_ids();
    target(ids.tgid)?;
    let kind = kind_of(ctx)?;
    let Some(pending) = PENDING.get_ptr_mut(ids.tid) else {
        count(Counter::UNDER_WAY);
        return None;
    };
    // SAFETY: as in `enter`.
    let pending = unsafe { &mut *pending };
    if pending.kind != kind.0 as u64 {
        if is_on() {
            count(Counter::ENTRY_MISSED);
        }
        return None;
    }
    pending.kind = 0;
    // SAFETY: the record has the result there.
    let result = unsafe { ctx.read_at::<u64>(RESULT) }.ok()?;
    if result > u64::MAX - MAX_ERRNO {
        count_failed(kind);
        return None;
    }
    let what = What {
        kind,
        ids,
        enter_ns: pending.enter_ns,
        // SAFETY: the helper has no preconditions.
        exit_ns: unsafe { bpf_ktime_get_ns() },
        args: pending.args,
        result,
        regs: syscall_regs(),
        own_mend: Mend { slot: 0, return_address: 0 },
    };
    emit_with_stack(&what, wake_for(kind, &what.args));
    Some(())
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
    let nr = unsafe { ctx.read_at::<i32>(NR) }.ok()?;
    Kind::of_syscall(nr as i64)
}

/// Forgets thread `tid`, which ends.
#[inline(always)]
pub(crate) fn forget(tid: u32) {
    // Most threads have nothing pending.
    PENDING.remove(tid).ok();
}
