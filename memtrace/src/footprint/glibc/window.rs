//! A part of the process's memory, copied: the resident pages of 256 KiB.
//!
//! One system call for each word would take twenty times as long as the walk.

use super::space::{PAGE_BYTES, Space};
use crate::footprint::resident::{Kind, Run};

/// Bytes of a window: 64 pages, a bit for each.
const WINDOW_BYTES: u64 = 256 << 10;
const N_PAGES: u64 = WINDOW_BYTES / PAGE_BYTES;
/// From here on one piece is read by itself.
const LARGE_BYTES: u64 = 32 << 10;

pub(super) struct Window<'a> {
    space: &'a Space<'a>,
    /// First address; a multiple of its size, or none's.
    start: u64,
    bytes: Vec<u8>,
    /// A bit for each page that was read.
    present: u64,
    pieces: Vec<u8>,
    /// How often it was moved or copied anew.
    pub(super) n_loads: u64,
}

impl<'a> Window<'a> {
    pub(super) fn new(space: &'a Space<'a>) -> Self {
        let bytes = vec![0; WINDOW_BYTES as usize];
        Self { space, start: u64::MAX, bytes, present: 0, pieces: Vec::new(), n_loads: 0 }
    }

    /// Forgets what was copied: the process has run on.
    pub(super) fn drop_copy(&mut self) {
        self.start = u64::MAX;
        self.present = 0;
    }

    /// The word at `address`, a multiple of 8; `None` if its page is not resident.
    #[inline]
    pub(super) fn word(&mut self, address: u64) -> Option<u64> {
        self.copied(address).or_else(|| self.loaded(address))
    }

    #[inline]
    pub(super) fn copied(&self, address: u64) -> Option<u64> {
        let offset = address.wrapping_sub(self.start);
        if offset >= WINDOW_BYTES || self.present >> (offset / PAGE_BYTES) & 1 == 0 {
            return None;
        }
        let word = self.bytes.get(offset as usize..)?.first_chunk::<8>()?;
        Some(u64::from_le_bytes(*word))
    }

    #[cold]
    fn loaded(&mut self, address: u64) -> Option<u64> {
        if address.wrapping_sub(self.start) < WINDOW_BYTES {
            return None;
        }
        self.load(address & !(WINDOW_BYTES - 1));
        self.copied(address)
    }

    fn load(&mut self, start: u64) {
        self.drop_copy();
        self.n_loads += 1;
        let range = start..start.saturating_add(WINDOW_BYTES);
        // What became resident since the snapshot holds chunks, too.
        let runs: Vec<Run> = match self.space.pages.now(range.clone()) {
            Some(now) => now.runs_in(range).collect(),
            None => self.space.resident.runs_in(range).collect(),
        };
        self.start = start;
        let mut pages = Vec::new();
        for run in runs.iter().filter(|run| run.kind != Kind::Swapped) {
            if run.end - run.start < LARGE_BYTES || !self.copy_large(run) {
                pages.extend((run.start..run.end).step_by(PAGE_BYTES as usize));
            }
        }
        self.copy_pages(&pages);
    }

    fn copy_large(&mut self, run: &Run) -> bool {
        let (from, to) = ((run.start - self.start) as usize, (run.end - self.start) as usize);
        let is_read = self.space.memory.read(run.start, &mut self.bytes[from..to]).is_ok();
        if is_read {
            (run.start..run.end).step_by(PAGE_BYTES as usize).for_each(|page| self.mark(page));
        }
        is_read
    }

    fn copy_pages(&mut self, pages: &[u64]) {
        if pages.is_empty() {
            return;
        }
        let memory = self.space.memory;
        let was_read = memory.read_each(pages, PAGE_BYTES as usize, &mut self.pieces);
        let pieces = std::mem::take(&mut self.pieces);
        let contents = pieces.chunks_exact(PAGE_BYTES as usize);
        for ((&page, content), _) in
            pages.iter().zip(contents).zip(was_read).filter(|(_, was_read)| *was_read)
        {
            let at = (page - self.start) as usize;
            self.bytes[at..at + content.len()].copy_from_slice(content);
            self.mark(page);
        }
        self.pieces = pieces;
    }

    fn mark(&mut self, page: u64) {
        self.present |= 1 << ((page - self.start) / PAGE_BYTES % N_PAGES);
    }
}
