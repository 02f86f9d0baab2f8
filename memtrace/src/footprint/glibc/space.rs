//! The process's memory, as far as it may be looked at: what is mapped, and resident.

use std::{
    cell::Cell,
    ops::Range,
    time::{Duration, Instant},
};

use crate::{
    footprint::resident::{Kind, PageTables, Resident},
    jvm::Memory,
    target::maps::{self, Mapping},
};

/// What is resident at this moment: a snapshot grows old while a process runs.
pub trait Pages {
    /// What is resident of `range` now; `None` where that can't be told any more.
    fn now(&self, range: Range<u64>) -> Option<Resident>;

    /// Where the heap that `brk` made ends now; `None` where it is as the map has it.
    fn heap_end(&self) -> Option<u64> {
        None
    }
}

impl Pages for PageTables {
    fn now(&self, range: Range<u64>) -> Option<Resident> {
        self.read(std::slice::from_ref(&range)).ok()
    }

    fn heap_end(&self) -> Option<u64> {
        let maps = maps::read(self.pid()).ok()?;
        maps.iter().rfind(|mapping| mapping.path == b"[heap]").map(|mapping| mapping.end)
    }
}

/// A recorded process stays as it is.
impl Pages for Resident {
    fn now(&self, range: Range<u64>) -> Option<Resident> {
        let runs: Vec<_> = self.runs_in(range).collect();
        Some(Resident::of_runs(&runs))
    }
}

/// The memory of one process.
pub(super) struct Space<'a> {
    pub(super) memory: &'a dyn Memory,
    /// By address.
    pub(super) maps: &'a [Mapping],
    /// What was resident when looking began; everything is counted by it.
    pub(super) resident: &'a Resident,
    pub(super) pages: &'a dyn Pages,
    /// What was readable at the last look, and what malloc may have: the next look is mostly near.
    readable: Cell<(u64, u64)>,
    malloc_like: Cell<(u64, u64)>,
    /// When looking is to end, whatever the process makes of its memory.
    pub(super) deadline: Instant,
}

impl<'a> Space<'a> {
    pub(super) fn new(
        memory: &'a dyn Memory,
        maps: &'a [Mapping],
        resident: &'a Resident,
        pages: &'a dyn Pages,
        max_time: Duration,
    ) -> Self {
        Self {
            memory,
            maps,
            resident,
            pages,
            readable: Cell::default(),
            malloc_like: Cell::default(),
            deadline: Instant::now() + max_time,
        }
    }

    /// Whether looking is to end now.
    pub(super) fn is_late(&self) -> bool {
        Instant::now() > self.deadline
    }

    /// The mapping that `address` lies in.
    pub(super) fn mapping_at(&self, address: u64) -> Option<&'a Mapping> {
        let next = self.maps.partition_point(|mapping| mapping.start <= address);
        self.maps[..next].last().filter(|mapping| address < mapping.end)
    }

    /// Whether `address` may be that of a chunk: aligned, and in memory that malloc may have.
    pub(super) fn is_chunk_place(&self, address: u64) -> bool {
        let (start, end) = self.malloc_like.get();
        if !address.is_multiple_of(16) {
            return false;
        }
        if (start..end).contains(&address) {
            return true;
        }
        let mapping = self.mapping_at(address).filter(|mapping| is_malloc_like(mapping));
        mapping.inspect(|mapping| self.malloc_like.set((mapping.start, mapping.end))).is_some()
    }

    /// The word at `address`, if its page is resident. What is not is not read: that would make it resident.
    pub(super) fn word(&self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes).then(|| u64::from_le_bytes(bytes))
    }

    /// Fills `bytes` from `address` on, if all of it is resident.
    pub(super) fn read(&self, address: u64, bytes: &mut [u8]) -> bool {
        let Some(end) = address.checked_add(bytes.len() as u64) else { return false };
        let is_near = self.readable.get().0 <= address && end <= self.readable.get().1;
        (is_near || self.is_readable(address..end)) && self.memory.read(address, bytes).is_ok()
    }

    fn is_readable(&self, range: Range<u64>) -> bool {
        let Some(mapping) = self.mapping_at(range.start).filter(|mapping| mapping.access) else {
            return false;
        };
        if range.end > mapping.end {
            return false;
        }
        let run = self.resident.runs_in(range.start..mapping.end).next();
        if let Some(run) = run.filter(|run| run.start == range.start && range.end <= run.end)
            && run.kind != Kind::Swapped
        {
            self.readable.set((run.start & !(PAGE_BYTES - 1), run.end));
            return true;
        }
        let is_present = |resident: &Resident| resident.is_present(range.clone());
        is_present(self.resident)
            || self.pages.now(range.clone()).is_some_and(|now| is_present(&now))
    }

    /// The words of the pages in `range` that were written, a page at a time; the caller has bounded it.
    pub(super) fn pages_of(&self, range: Range<u64>) -> Vec<(u64, Vec<u64>)> {
        let mut pages = Vec::new();
        for run in self.resident.runs_in(range).filter(|run| run.kind == Kind::Anonymous) {
            let mut bytes = [0; PAGE_BYTES as usize];
            for page in (run.start..run.end).step_by(PAGE_BYTES as usize) {
                if self.read(page, &mut bytes) {
                    pages.push((page, words_of(&bytes)));
                }
            }
        }
        pages
    }
}

pub(super) const PAGE_BYTES: u64 = 4096;

fn words_of(bytes: &[u8]) -> Vec<u64> {
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
    bytes.chunks_exact(8).map(word).collect()
}

/// Whether a mapping may be malloc's: memory without a file, the heap, or pages of the pool of huge ones.
pub(super) fn is_malloc_like(mapping: &Mapping) -> bool {
    let is_named_like = match &mapping.path[..] {
        b"" | b"[heap]" => true,
        path => path.starts_with(b"[anon:") || path.starts_with(b"/anon_hugepage"),
    };
    mapping.access && !mapping.exec && is_named_like
}
