//! The kernel side's counters, read without a system call.
//!
//! Looking a map's element up by a system call disables tracing on that processor meanwhile, and the target's events
//! there would be missed. The map is mapped into memory instead.

use std::{
    os::fd::{AsRawFd, BorrowedFd},
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Result};
use memmap2::{MmapOptions, MmapRaw};
use memtrace_common::{Counter, Kind, N_COUNTERS};

/// A view of the kernel side's counters.
#[derive(Debug)]
pub struct Counters {
    map: MmapRaw,
}

impl Counters {
    pub(super) fn of_map(fd: BorrowedFd<'_>) -> Result<Self> {
        let bytes = N_COUNTERS * size_of::<u64>();
        let map = MmapOptions::new().len(bytes).map_raw(fd.as_raw_fd());
        Ok(Self { map: map.context("failed to map the kernel side's counters")? })
    }

    /// The value of `counter`.
    pub fn get(&self, counter: Counter) -> u64 {
        self.cell(counter).map_or(0, |cell| cell.load(Ordering::Relaxed))
    }

    /// Sets one that is a switch.
    pub(super) fn set(&self, counter: Counter, on: bool) {
        if let Some(cell) = self.cell(counter) {
            cell.store(on.into(), Ordering::Relaxed);
        }
    }

    fn cell(&self, counter: Counter) -> Option<&AtomicU64> {
        let index = counter.0 as usize;
        // SAFETY: the index is within the map, which is page-aligned and so has aligned cells; all access is atomic.
        (index < N_COUNTERS)
            .then(|| unsafe { AtomicU64::from_ptr(self.map.as_mut_ptr().cast::<u64>().add(index)) })
    }

    /// How many calls of `kind` failed.
    pub fn failed(&self, kind: Kind) -> u64 {
        self.get(Counter(Counter::FAILED + kind.0))
    }
}
