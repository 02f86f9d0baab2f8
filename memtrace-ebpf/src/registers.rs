//! The user registers of threads that are asked for, whatever they do at that moment: none of them is stopped.

use core::{ffi::c_void, mem::size_of};

use aya_ebpf::{
    bindings::{pt_regs, seq_file, task_struct},
    helpers::generated::{bpf_seq_write, bpf_task_pt_regs},
};
use memtrace_common::ThreadRegisters;

use crate::{
    maps::{KERNEL, target},
    task::{field, regs_of},
};

/// `struct bpf_iter__task`: what the kernel hands to the program for each thread, and once more at the end
/// (Linux, kernel/bpf/task_iter.c).
#[repr(C)]
pub struct TaskIteration {
    /// `struct bpf_iter_meta`, which begins with the file that is read.
    meta: *const *mut seq_file,
    task: *mut task_struct,
}

/// Writes the registers of each thread of the processes that are asked for to the file that user space reads.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub extern "C" fn thread_registers(ctx: *const TaskIteration) -> i32 {
    // SAFETY: the kernel hands over a valid context; the verifier checks each load.
    let (meta, task) = unsafe { ((*ctx).meta, (*ctx).task) };
    if task.is_null() {
        return 0;
    }
    let kernel = KERNEL.load();
    if target(field(task as u64, kernel.task_tgid)).is_none() {
        return 0;
    }
    // SAFETY: the verifier knows the pointer for a task, and the result for its registers.
    let regs = unsafe { bpf_task_pt_regs(task) } as *const pt_regs;
    let record = ThreadRegisters {
        regs: regs_of(regs),
        fs_base: field(task as u64, kernel.task_fs_base),
        tid: field(task as u64, kernel.task_pid),
        reserved: 0,
    };
    let data = (&raw const record).cast_mut().cast::<c_void>();
    // SAFETY: `meta` begins with the file; `record` outlives the call and has no padding.
    unsafe { bpf_seq_write(*meta, data, size_of::<ThreadRegisters>() as u32) };
    0
}
