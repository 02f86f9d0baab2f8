//! The maps that both sides use, and what user space sets before loading.

use aya_ebpf::{
    Global,
    macros::map,
    maps::{Array, HashMap, RingBuf},
};
use memtrace_common::{KernelOffsets, N_COUNTERS, TargetFlags};

/// `BPF_F_MMAPABLE`: user space reads the counters without a system call. One such call disables tracing on its
/// processor while it looks the element up, and events there would be missed.
const MMAPABLE: u32 = 1 << 10;

/// Events on their way to user space.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(32 << 20, 0);

/// Indexed by [`memtrace_common::Counter`].
#[map]
pub(crate) static COUNTERS: Array<u64> = Array::with_max_entries(N_COUNTERS as u32, MMAPABLE);

/// The traced processes.
#[map]
pub(crate) static TARGETS: HashMap<u32, TargetFlags> = HashMap::with_max_entries(4096, 0);

/// Where this kernel keeps things.
#[unsafe(no_mangle)]
pub(crate) static KERNEL: Global<KernelOffsets> = Global::new(KernelOffsets {
    task_pid: 0,
    task_tgid: 0,
    task_mm: 0,
    task_exit_code: 0,
    task_signal: 0,
    task_fs_base: 0,
    mm_start_stack: 0,
    signal_live: 0,
    signal_flags: 0,
});

/// How full the ring buffer may get before user space is woken, in bytes.
#[unsafe(no_mangle)]
pub(crate) static WAKE_AT_BYTES: Global<u64> = Global::new(2 << 20);

/// The mean number of bytes between two blocks that are told of; 0 if all are.
#[unsafe(no_mangle)]
pub(crate) static MALLOC_RATE_BYTES: Global<u64> = Global::new(0);

/// Blocks of fewer bytes are added up by thread, and not told of; 0 if all are.
#[unsafe(no_mangle)]
pub(crate) static MIN_BLOCK_BYTES: Global<u64> = Global::new(0);

/// Whether `tgid` is traced.
#[inline(always)]
pub(crate) fn target(tgid: u32) -> Option<TargetFlags> {
    // SAFETY: an element is written once, before its process can be seen here, and a copy is taken at once.
    unsafe { TARGETS.get(tgid).copied() }
}
