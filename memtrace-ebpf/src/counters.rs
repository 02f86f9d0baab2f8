//! Counting.

use core::arch::asm;

use memtrace_common::{Counter, Kind};

use crate::maps::COUNTERS;

/// Counts one.
#[inline(always)]
pub(crate) fn count(counter: Counter) {
    if let Some(cell) = COUNTERS.get_ptr_mut(counter.0) {
        // `core`'s atomics lack this for the target.
        // SAFETY: the map's element is 8 bytes, aligned, and lives as long as the map; all writers are atomic.
        unsafe {
            asm!("lock *(u64 *)({cell} + 0) += {one}", cell = in(reg) cell, one = in(reg) 1u64)
        };
    }
}

/// Counts an event of `kind` that was handed to user space.
#[inline(always)]
pub(crate) fn count_sent(kind: Kind) {
    count(Counter(Counter::SENT + kind.0));
}

/// Counts a call of `kind` that failed.
#[inline(always)]
pub(crate) fn count_failed(kind: Kind) {
    count(Counter(Counter::FAILED + kind.0));
}
