//! What the kernel knows of the current thread.

use aya_ebpf::{
    bindings::pt_regs,
    helpers::{
        bpf_get_current_pid_tgid, bpf_probe_read_kernel,
        generated::{bpf_get_current_task, bpf_get_current_task_btf, bpf_task_pt_regs},
    },
};
use memtrace_common::Regs;

use crate::maps::KERNEL;

/// A process and one of its threads, in the initial pid namespace.
#[derive(Clone, Copy)]
pub(crate) struct Ids {
    pub(crate) tgid: u32,
    pub(crate) tid: u32,
}

/// The current process and thread.
#[inline(always)]
pub(crate) fn current_ids() -> Ids {
    let both = bpf_get_current_pid_tgid();
    Ids { tgid: (both >> 32) as u32, tid: both as u32 }
}

/// Reads a kernel field; 0 where it can't be read, which the kernel does not let happen for the current task.
#[inline(always)]
pub(crate) fn field<T: Default>(base: u64, offset: u64) -> T {
    // SAFETY: the helper checks the address and fails instead of faulting.
    unsafe { bpf_probe_read_kernel((base + offset) as *const T) }.unwrap_or_default()
}

/// The current `task_struct`'s address.
#[inline(always)]
pub(crate) fn current_task() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_current_task() }
}

/// The fs base of the current thread: pthreads keep their thread block there, just above their stack.
#[inline(always)]
pub(crate) fn fs_base() -> u64 {
    field(current_task(), KERNEL.load().task_fs_base)
}

/// Where the first thread's stack begins.
#[inline(always)]
pub(crate) fn start_stack() -> u64 {
    let kernel = KERNEL.load();
    let mm: u64 = field(current_task(), kernel.task_mm);
    if mm == 0 { 0 } else { field(mm, kernel.mm_start_stack) }
}

/// The user registers of the current thread, which is in the kernel, whatever for.
#[inline(always)]
pub(crate) fn user_regs() -> *const pt_regs {
    // SAFETY: the helpers have no preconditions; the verifier knows the result for a pointer to the registers.
    (unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) }) as *const pt_regs
}

/// The first five arguments of a system call: the kernel leaves their registers alone until it returns (System V ABI,
/// appendix A, "Linux conventions").
#[inline(always)]
pub(crate) fn syscall_args(regs: *const pt_regs) -> [u64; 5] {
    // SAFETY: as in `regs_of`.
    unsafe { [(*regs).rdi, (*regs).rsi, (*regs).rdx, (*regs).r10, (*regs).r8] }
}

/// The registers that unwinding needs.
#[inline(always)]
pub(crate) fn regs_of(regs: *const pt_regs) -> Regs {
    // SAFETY: `regs` is the kernel's own, of a probe's context or of a task; the verifier checks each load.
    unsafe {
        Regs {
            ip: (*regs).rip,
            sp: (*regs).rsp,
            bp: (*regs).rbp,
            bx: (*regs).rbx,
            r12: (*regs).r12,
            r13: (*regs).r13,
            r14: (*regs).r14,
            r15: (*regs).r15,
        }
    }
}
