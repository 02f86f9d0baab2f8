//! Programs that do nothing, in place of those on an allocator's functions: what the traps alone cost. For benchmarks.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::generated::bpf_get_attach_cookie,
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use memtrace_common::Kind;

/// The trap at a function's entry.
#[uprobe]
pub fn trap(_ctx: ProbeContext) -> u32 {
    0
}

/// The trap at its return.
#[uretprobe]
pub fn trap_at_return(_ctx: RetProbeContext) -> u32 {
    0
}

/// Both, where one program sees both.
#[unsafe(no_mangle)]
#[unsafe(link_section = "uprobe")]
pub extern "C" fn trap_session(ctx: *mut c_void) -> i32 {
    // SAFETY: the context is a probe's.
    let cookie = unsafe { bpf_get_attach_cookie(ctx) };
    i32::from(cookie as u32 == Kind::FREE.0)
}
