//! Programs that do nothing, in place of those on an allocator's functions: what the traps alone cost. For benchmarks.

use aya_ebpf::{
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};

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
