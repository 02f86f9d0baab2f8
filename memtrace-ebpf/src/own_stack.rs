//! Programs on functions must have the stack of the thread that they run for.
//!
//! Since Linux 6.13 a program of this type with 64 bytes of stack or more gets one by processor instead (`bpf_enable_priv_stack`,
//! kernel/bpf/verifier.c), for it is taken not to be entered again before it has ended. On functions it is, by the next thread,
//! where the kernel may be preempted (`uprobe_prog_run`, kernel/trace/bpf_trace.c): seen on 6.18 and 7.3 with lazy preemption,
//! as events with another thread's values, and as an oops in the traced process. A program that calls on to others has no
//! such stack (`check_max_stack_depth`); here it calls on to none.

use core::ffi::c_void;

use aya_ebpf::{helpers::generated::bpf_tail_call, macros::map, maps::ProgramArray};

/// Always empty. The kernel wants the programs that share one to be of the same kind: sessions have their own.
#[map]
static NOWHERE: ProgramArray = ProgramArray::with_max_entries(1, 0);
#[map]
static NOWHERE_OF_SESSIONS: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Keeps a program off the processor's stack; does nothing when it runs.
#[inline(always)]
pub(crate) fn keep(ctx: *mut c_void) {
    // SAFETY: the context is the program's, and the map is one of programs.
    unsafe { bpf_tail_call(ctx, (&raw const NOWHERE).cast_mut().cast(), 0) };
}

/// The same for one for sessions.
#[inline(always)]
pub(crate) fn keep_in_session(ctx: *mut c_void) {
    // SAFETY: as in `keep`.
    unsafe { bpf_tail_call(ctx, (&raw const NOWHERE_OF_SESSIONS).cast_mut().cast(), 0) };
}
