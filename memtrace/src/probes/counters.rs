//! The kernel side's counters, read without a system call.
//!
//! Looking a map's element up by a system call disables tracing on that processor meanwhile, and the target's events
//! there would be missed. The map is mapped into memory instead.

use std::{io, os::fd::BorrowedFd, sync::atomic::AtomicU64, sync::atomic::Ordering};

use anyhow::{Context, Result};
use memmap2::{Mmap, MmapOptions};
use memtrace_common::{Counter, Kind, N_COUNTERS};

/// A view of the kernel side's counters.
#[derive(Debug)]
pub struct Counters {
    map: Mmap,
}

impl Counters {
    pub(super) fn of_map(fd: BorrowedFd<'_>) -> Result<Self> {
        let options = {
            let mut options = MmapOptions::new();
            options.len(N_COUNTERS * size_of::<u64>());
            options
        };
        // SAFETY: the memory is the kernel's array of counters: it is never truncated, and it is read atomically.
        let map = unsafe { map_shared(&options, fd) }
            .context("failed to map the kernel side's counters")?;
        Ok(Self { map })
    }

    /// The value of `counter`.
    pub fn get(&self, counter: Counter) -> u64 {
        let cell = &raw const self.map[counter.0 as usize * size_of::<u64>()];
        // SAFETY: the index was checked, the map is page-aligned and so its cells are aligned; all writers are atomic.
        unsafe { AtomicU64::from_ptr(cell.cast_mut().cast()) }.load(Ordering::Relaxed)
    }

    /// How many events of `kind` were handed to user space.
    pub fn sent(&self, kind: Kind) -> u64 {
        self.get(Counter(Counter::SENT + kind.0))
    }

    /// How many calls of `kind` failed.
    pub fn failed(&self, kind: Kind) -> u64 {
        self.get(Counter(Counter::FAILED + kind.0))
    }
}

/// # Safety
///
/// As [`MmapOptions::map`].
unsafe fn map_shared(options: &MmapOptions, fd: BorrowedFd<'_>) -> io::Result<Mmap> {
    use std::os::fd::AsRawFd;
    // SAFETY: by the caller.
    unsafe { options.map(fd.as_raw_fd()) }
}
