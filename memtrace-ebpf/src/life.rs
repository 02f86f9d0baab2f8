//! Processes and threads: begin, new image, new name, end.

use aya_ebpf::{
    helpers::{bpf_ktime_get_ns, bpf_probe_read_kernel_str_bytes},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use aya_log_ebpf::debug;
use memtrace_common::{Counter, Kind, Mend, Regs, TargetFlags};

use crate::{
    counters::count,
    emit::{Wake, What, emit},
    frees::NO_FREE,
    maps::{KERNEL, TARGETS, target},
    tallies::{tell_last_tally, tell_tally},
    task::{Ids, current_ids, current_task, field},
    threads,
};

/// `signal_struct.flags` of a process whose threads are all to end (Linux, include/linux/sched/signal.h).
const SIGNAL_GROUP_EXIT: u32 = 4;

/// `sched_process_fork(parent, child)`: a thread or a process begins.
#[btf_tracepoint(function = "sched_process_fork")]
pub fn process_fork(ctx: BtfTracePointContext) -> i32 {
    let ids = current_ids();
    let Some(flags) = target(ids.tgid) else { return 0 };
    let kernel = KERNEL.load();
    let child: u64 = ctx.arg(1);
    let tgid: u32 = field(child, kernel.task_tgid);
    let tid: u32 = field(child, kernel.task_pid);
    if tgid == ids.tgid {
        emit(&life(Kind::THREAD_START, ids, [tid as u64, 0, 0, 0, 0]), Wake::Later);
        return 0;
    }
    let mut followed = flags.follow != 0;
    if followed && TARGETS.insert(tgid, flags, 0).is_err() {
        count(Counter::TARGETS_FULL);
        followed = false;
    }
    debug!(&ctx, "fork: {} -> {}, followed {}", ids.tgid, tgid, followed as u32);
    emit(&life(Kind::FORK, ids, [tgid as u64, followed as u64, 0, 0, 0]), Wake::Now);
    0
}

/// `sched_process_exec(task, old_pid, bprm)`: the process has a new image.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn process_exec(ctx: BtfTracePointContext) -> i32 {
    let ids = current_ids();
    let Some(flags) = target(ids.tgid) else { return 0 };
    TARGETS.insert(ids.tgid, TargetFlags { image: flags.image + 1, ..flags }, 0).ok();
    let old_tid: i32 = ctx.arg(1);
    // A thread other than the first has the first one's id from now on, and its own never ends.
    if old_tid as u32 != ids.tid {
        if let Some(thread) = threads::get(old_tid as u32) {
            tell_tally(thread, old_tid as u32);
        }
        threads::forget(old_tid as u32);
    }
    if let Some(thread) = threads::get(ids.tid) {
        thread.forget_stack();
        thread.request.forget();
        thread.last_free = NO_FREE;
    }
    debug!(&ctx, "exec: {}", ids.tgid);
    emit(&life(Kind::EXEC, ids, [old_tid as u64, 0, 0, 0, 0]), Wake::Now);
    0
}

/// `sched_process_exit(task)`: a thread ends, perhaps the process with it.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn process_exit(_ctx: BtfTracePointContext) -> i32 {
    let ids = current_ids();
    if let Some(thread) = threads::get(ids.tid) {
        tell_last_tally(thread, ids.tid);
    }
    // Before anything else: of threads that end at once, the first may have taken the process out of the table.
    threads::forget(ids.tid);
    if target(ids.tgid).is_none() {
        return 0;
    }
    let kernel = KERNEL.load();
    let task = current_task();
    let signal: u64 = field(task, kernel.task_signal);
    // The kernel has counted the thread out before it gets here.
    let n_live: u32 = field(signal, kernel.signal_live);
    let flags: u32 = field(signal, kernel.signal_flags);
    let is_group = flags & SIGNAL_GROUP_EXIT != 0;
    let code: u32 = field(task, kernel.task_exit_code);
    let ended = n_live == 0;
    if ended {
        TARGETS.remove(ids.tgid).ok();
    }
    let wake = if ended { Wake::Now } else { Wake::Later };
    emit(&life(Kind::EXIT, ids, [ended as u64, code as u64, is_group as u64, 0, 0]), wake);
    0
}

/// `task_rename(task, comm)`: a thread has a new name.
#[btf_tracepoint(function = "task_rename")]
pub fn rename(ctx: BtfTracePointContext) -> i32 {
    let task: u64 = ctx.arg(0);
    let comm: *const u8 = ctx.arg(1);
    let kernel = KERNEL.load();
    let tgid: u32 = field(task, kernel.task_tgid);
    if target(tgid).is_none() {
        return 0;
    }
    let tid: u32 = field(task, kernel.task_pid);
    let mut name = [0u64; 2];
    // SAFETY: the array is 16 bytes; the helper checks the source and ends with a zero.
    let bytes = unsafe { core::slice::from_raw_parts_mut(name.as_mut_ptr().cast::<u8>(), 16) };
    // SAFETY: as above.
    if unsafe { bpf_probe_read_kernel_str_bytes(comm, bytes) }.is_err() {
        return 0;
    }
    let ids = Ids { tgid, tid };
    // A JVM names a thread when it begins; whoever wants to know more of it must not come too late.
    emit(&life(Kind::RENAME, ids, [name[0], name[1], tid as u64, 0, 0]), Wake::Now);
    0
}

#[inline(always)]
fn life(kind: Kind, ids: Ids, args: [u64; 5]) -> What {
    // SAFETY: the helper has no preconditions.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    What {
        kind,
        ids,
        enter_ns: now_ns,
        exit_ns: now_ns,
        args,
        result: 0,
        regs: Regs::default(),
        own_mend: Mend::default(),
    }
}
