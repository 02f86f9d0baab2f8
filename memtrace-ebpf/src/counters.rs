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

/// Counts a call of `kind` that failed.
#[inline(always)]
pub(crate) fn count_failed(kind: Kind) {
    count(Counter(Counter::FAILED + kind.0));
}

/// Whether calls are to be taken note of.
#[inline(always)]
pub(crate) fn is_on() -> bool {
    is_set(Counter::ON)
}

/// Whether user space is behind.
#[inline(always)]
pub(crate) fn is_behind() -> bool {
    is_set(Counter::BEHIND)
}

/// Takes note of whether user space is behind.
#[inline(always)]
pub(crate) fn set_behind(is_behind: bool) {
    if let Some(cell) = COUNTERS.get_ptr_mut(Counter::BEHIND.0) {
        // SAFETY: as in `count`; whoever is last is right.
        unsafe { cell.write_volatile(is_behind as u64) };
    }
}

#[inline(always)]
fn is_set(counter: Counter) -> bool {
    // SAFETY: as in `count`; whoever writes the cell writes it at once.
    COUNTERS.get_ptr(counter.0).is_some_and(|cell| unsafe { cell.read_volatile() } != 0)
}
