//! The heap of glibc's malloc, read from another process: what is in use, what is free, and what a trim would give back.
//!
//! In: memory, map and page tables of a process. Out: arenas with their heaps, threads and sums, the blocks with mappings
//! of their own, and for each range that is malloc's what of its resident pages is what. No symbols are needed, and no
//! version is believed: every structure is recognised by what must hold for it. The process goes on meanwhile and is
//! never written to; what did not fit, was read again or could not be read is counted.
//!
//! A chunk in a thread's cache is free here. `mallinfo2` counts it as in use: its `uordblks` is
//! [`Arena::in_use_as_mallinfo`] and its `fordblks` is [`Arena::free_as_mallinfo`], summed over all arenas.

mod again;
mod chunk_set;
mod free_pages;
mod heaps;
mod layout;
mod libc_file;
mod lists;
mod main_arena;
mod mmapped;
mod reading;
mod settings;
mod space;
mod tally;
mod threads;
mod walk;
mod window;

use std::{ops::Range, time::Duration};

use thiserror::Error;

pub use libc_file::{LibcFile, ThreadDb, libc_file};
pub use settings::Settings;
pub use space::Pages;
pub use tally::{Chunks, Pin, Split};

use super::resident::{PageTables, Resident};
use crate::{
    jvm::{LiveMemory, Memory},
    target::{self, maps::Mapping},
};

/// How long a process is looked at, however large it is.
const MAX_TIME: Duration = Duration::from_secs(20);

/// Why there is no heap of glibc's.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum NoMalloc {
    /// Nothing was ever allocated from glibc's malloc.
    #[error("glibc's malloc is not in use{}", of(.0))]
    NotInUse(Option<String>),
}

fn of(allocator: &Option<String>) -> String {
    allocator.as_ref().map(|name| format!("; the allocator is {name}")).unwrap_or_default()
}

/// A process, as far as it is needed.
pub struct Process<'a> {
    /// Its memory.
    pub memory: &'a dyn Memory,
    /// Its map, by address.
    pub maps: &'a [Mapping],
    /// What is resident of all of that: everything is counted by this snapshot.
    pub resident: &'a Resident,
    /// What is resident at any moment.
    pub pages: &'a dyn Pages,
    /// Its threads: the id that is reported, and the one that the process itself has for it (another in a pid namespace).
    pub tids: &'a [(u32, u32)],
    /// Where the heap that `brk` makes begins.
    pub start_brk: Option<u64>,
    /// What the file of its libc says.
    pub libc: &'a LibcFile,
    /// Its allocator, as its files tell.
    pub allocator: Option<String>,
    /// How long to look at most.
    pub max_time: Duration,
}

/// Everything that glibc's malloc has of a process.
#[derive(Clone, Debug, Default)]
pub struct Malloc {
    /// The version, as libc says it: `2.36`.
    pub version: Option<String>,
    /// The versions that have the layout that was found.
    pub layout: &'static str,
    /// The main arena first.
    pub arenas: Vec<Arena>,
    /// Blocks that have mappings of their own.
    pub mmapped: Vec<Block>,
    /// Whole pages of free chunks, resident or not, by address; a part of them where there are very many.
    pub free_pages: Vec<Range<u64>>,
    /// Thread blocks of the threads that were found: each lies in its thread's stack, at the end, but the first thread's.
    pub thread_blocks: Vec<u64>,
    /// What malloc was told; `None` where that was not found.
    pub settings: Option<Settings>,
    /// What went wrong.
    pub losses: Losses,
}

/// One arena.
#[derive(Clone, Debug, Default)]
pub struct Arena {
    /// Its `malloc_state`.
    pub address: u64,
    /// Whether it is the one that grows by `brk`.
    pub is_main: bool,
    /// Its memory, by address. The main arena has one heap for each mapping.
    pub heaps: Vec<Heap>,
    /// Threads that allocate from it.
    pub threads: Vec<u32>,
    /// How many it counts itself (since 2.23).
    pub attached_threads: Option<u64>,
    /// Bytes that it has from the kernel, as it counts itself.
    pub system_bytes: u64,
    /// Its top chunk.
    pub top: u64,
    /// Sums of its chunks.
    pub chunks: Chunks,
    /// Its resident bytes.
    pub resident: Split,
    /// Swapped bytes that `malloc_trim(0)` gives back beside the resident ones.
    pub returnable_swapped_bytes: u64,
}

impl Arena {
    /// What `mallinfo2` calls `fordblks`: bins, fastbins and the top.
    #[must_use]
    pub fn free_as_mallinfo(&self) -> u64 {
        self.chunks.free_bytes + self.chunks.fastbin_bytes + self.chunks.top_bytes
    }

    /// What `mallinfo2` calls `uordblks`: all the rest, threads' caches and headers too.
    #[must_use]
    pub fn in_use_as_mallinfo(&self) -> u64 {
        self.system_bytes.saturating_sub(self.free_as_mallinfo())
    }
}

/// Memory of an arena.
#[derive(Clone, Debug, Default)]
pub struct Heap {
    /// All of it that is accessible.
    pub range: Range<u64>,
    /// The top of its arena, if it is in this one.
    pub top: Option<u64>,
    /// The highest block in use.
    pub pinned_by: Option<Pin>,
    /// Sums of its chunks.
    pub chunks: Chunks,
    /// Its resident bytes.
    pub resident: Split,
    /// Its swapped bytes, which are not read.
    pub swapped_bytes: u64,
}

/// A block that has a mapping of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its pages.
    pub range: Range<u64>,
    /// Those that are resident.
    pub resident_bytes: u64,
    /// Those that are swapped.
    pub swapped_bytes: u64,
}

/// What went wrong, and what was done about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Times that the process had moved on and was read again.
    pub n_resyncs: u64,
    /// Places that did not fit even so, and were passed over.
    pub n_skips: u64,
    /// Bytes between such a place and the next chunks.
    pub unknown_bytes: u64,
    /// Swapped bytes of heaps, which were not read.
    pub swapped_unread_bytes: u64,
    /// Lists of fastbins and caches that lead to something else.
    pub n_lists_cut: u64,
    /// Heaps that say of their own size what can't be.
    pub n_lying_heaps: u64,
    /// Whether the ring of arenas does not lead back to the main one.
    pub is_ring_broken: bool,
    /// Bytes with mappings of their own that malloc counts and that were not found; negative if more were found.
    pub mmapped_missing_bytes: i64,
    /// Other main arenas, of further copies of libc (`dlmopen`), which were not read.
    pub n_other_libcs: u64,
    /// Whether it took too long, and the rest was left.
    pub is_late: bool,
}

/// A range that is malloc's, and what its resident bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The range.
    pub range: Range<u64>,
    /// They add up to what is resident of it.
    pub resident: Split,
}

impl Malloc {
    /// Reads process `pid`, of which `maps` and `resident` were taken just before.
    pub fn of(
        pid: u32,
        maps: &[Mapping],
        resident: &Resident,
        pages: &PageTables,
    ) -> Result<Self, NoMalloc> {
        let memory = LiveMemory::new(pid);
        // In a pid namespace threads have other ids for themselves; then each is asked for.
        let is_same = target::namespace_tid(pid, pid).is_none_or(|own| own == pid);
        let own = |tid| if is_same { Some(tid) } else { target::namespace_tid(pid, tid) };
        let tids: Vec<(u32, u32)> =
            target::threads(pid).into_iter().filter_map(|tid| Some((tid, own(tid)?))).collect();
        reading::read(&Process {
            memory: &memory,
            maps,
            resident,
            pages,
            tids: &tids,
            start_brk: target::start_brk(pid),
            libc: &libc_file(pid, maps),
            allocator: target::allocator(pid),
            max_time: MAX_TIME,
        })
    }

    /// Reads a process from wherever it is.
    pub fn read(process: &Process<'_>) -> Result<Self, NoMalloc> {
        reading::read(process)
    }

    /// The ranges that are malloc's, by address, and disjoint.
    #[must_use]
    pub fn parts(&self) -> Vec<Part> {
        let heaps = self.arenas.iter().flat_map(|arena| &arena.heaps);
        let heaps = heaps.map(|heap| Part { range: heap.range.clone(), resident: heap.resident });
        let blocks = self.mmapped.iter().map(|block| Part {
            range: block.range.clone(),
            resident: Split { live: block.resident_bytes, ..Split::default() },
        });
        let mut parts: Vec<Part> = heaps.chain(blocks).collect();
        parts.sort_by_key(|part| part.range.start);
        parts
    }

    /// Chunks of all arenas.
    #[must_use]
    pub fn chunks(&self) -> Chunks {
        let mut sum = Chunks::default();
        self.arenas.iter().for_each(|arena| sum.add(&arena.chunks));
        sum
    }

    /// Resident bytes of all arenas and blocks.
    #[must_use]
    pub fn resident(&self) -> Split {
        let mut sum = Split::default();
        self.arenas.iter().for_each(|arena| sum.add(&arena.resident));
        sum.live += self.mmapped.iter().map(|block| block.resident_bytes).sum::<u64>();
        sum
    }

    /// Bytes in use: chunks that are neither free nor cached, and blocks with mappings of their own.
    #[must_use]
    pub fn live_bytes(&self) -> u64 {
        self.chunks().live_bytes + self.mmapped_bytes()
    }

    /// Bytes that malloc holds and that are free, resident or not; threads' caches included.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        let chunks = self.chunks();
        chunks.free_bytes + chunks.fastbin_bytes + chunks.top_bytes + chunks.tcache_bytes
    }

    /// Bytes of blocks with mappings of their own.
    #[must_use]
    pub fn mmapped_bytes(&self) -> u64 {
        self.mmapped.iter().map(|block| block.range.end - block.range.start).sum()
    }

    /// By how much RSS would fall with `malloc_trim(0)`.
    #[must_use]
    pub fn trim_returns_bytes(&self) -> u64 {
        self.arenas.iter().map(|arena| arena.resident.returnable).sum()
    }
}

#[cfg(test)]
mod tests;
