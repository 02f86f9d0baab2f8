//! Page faults, one for each so many on a processor: who made memory resident.
//!
//! The kernel counts them on each processor, whoever's they are, and calls the program for one in so many: a count of
//! each thread's own would begin anew with each thread, and short ones would never be told of.

use aya_ebpf::{
    EbpfContext,
    bindings::{bpf_perf_event_data, pt_regs},
    helpers::bpf_ktime_get_ns,
    macros::perf_event,
    programs::PerfEventContext,
};
use memtrace_common::{Kind, Mend};

use crate::{
    emit::{Wake, What, emit_with_stack},
    task::{current_ids, regs_of, user_regs},
    threads,
};

/// Emits the fault that is counted.
#[perf_event]
pub fn page_fault(ctx: PerfEventContext) -> u32 {
    let ids = current_ids();
    let known = threads::get(ids.tid);
    if !threads::is_wanted(known.as_deref(), ids.tgid) {
        return 0;
    }
    let Some(thread) = known.or_else(|| threads::get_or_add(ids.tid)) else { return 0 };
    let user = user_regs();
    if is_in_exec(user) {
        return 0;
    }
    // SAFETY: the context of such a program; the verifier checks the load.
    let addr = unsafe { (*ctx.as_ptr().cast::<bpf_perf_event_data>()).addr };
    // SAFETY: the helper has no preconditions.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let what = What {
        kind: Kind::PAGE_FAULT,
        ids,
        enter_ns: now_ns,
        exit_ns: now_ns,
        args: [addr, 0, 0, 0, 0],
        result: 0,
        // The user's, also where the kernel itself ran into the page on the program's behalf.
        regs: regs_of(user),
        own_mend: Mend { slot: 0, return_address: 0 },
    };
    emit_with_stack(&what, Some(thread), Wake::Later);
    0
}

/// The system calls that give a process a new image (Linux, arch/x86/entry/syscalls/syscall_64.tbl).
const EXECVE: u64 = 59;
const EXECVEAT: u64 = 322;

/// Whether the thread is getting a new image: its registers are still the old one's while its memory is the new one's,
/// so they tell of no stack. No malloc has any page then.
///
/// A fault of the program's own has no system call in its registers (arch/x86/include/asm/idtentry.h sets -1).
#[inline(always)]
fn is_in_exec(user: *const pt_regs) -> bool {
    // SAFETY: as in `regs_of`.
    let system_call = unsafe { (*user).orig_rax };
    matches!(system_call, EXECVE | EXECVEAT)
}
