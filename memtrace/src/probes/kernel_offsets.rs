//! Where the running kernel keeps what the kernel side reads, from the kernel's own type information.

use std::fs;

use anyhow::{Context, Result};
use memtrace_common::KernelOffsets;

use super::btf::Types;

const VMLINUX_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Reads the offsets of the running kernel.
pub(super) fn read() -> Result<KernelOffsets> {
    let bytes = fs::read(VMLINUX_BTF).with_context(|| format!("failed to read {VMLINUX_BTF}"))?;
    let types = Types::parse(&bytes).with_context(|| format!("failed to parse {VMLINUX_BTF}"))?;
    let structs = types.structs(&["task_struct", "thread_struct", "mm_struct", "signal_struct"]);
    let offset = |structure: &str, member: &str| {
        let at = structs.get(structure).and_then(|&at| types.member_offset(at, member));
        at.with_context(|| format!("the kernel's type information has no {structure}.{member}"))
    };
    Ok(KernelOffsets {
        task_pid: offset("task_struct", "pid")?,
        task_tgid: offset("task_struct", "tgid")?,
        task_mm: offset("task_struct", "mm")?,
        task_exit_code: offset("task_struct", "exit_code")?,
        task_signal: offset("task_struct", "signal")?,
        task_fs_base: offset("task_struct", "thread")? + offset("thread_struct", "fsbase")?,
        mm_start_stack: offset("mm_struct", "start_stack")?,
        signal_live: offset("signal_struct", "live")?,
        signal_flags: offset("signal_struct", "flags")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The offsets of the kernel that runs the test are in the order that kernels since 5.15 have them in.
    #[test]
    fn offsets_of_this_kernel() {
        let offsets = read().unwrap();
        assert_eq!(offsets.task_tgid, offsets.task_pid + 4, "{offsets:?}");
        assert!(
            offsets.task_mm < offsets.task_pid && offsets.task_pid < offsets.task_fs_base,
            "{offsets:?}"
        );
    }
}
