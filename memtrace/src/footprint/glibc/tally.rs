//! What the chunks of one piece of memory add up to, and which of its resident pages are what.
//!
//! Chunks come in ascending order and without gaps. Of a page all of whose chunks are free a trim gives back what glibc's
//! own rule says; every other page is divided by its bytes. What is resident is told by the snapshot alone, so that the
//! parts add up to what it has.

use std::ops::Range;

use super::{
    layout::{CHUNK_STRUCT, TOP_REST},
    space::PAGE_BYTES,
};
use crate::footprint::resident::Resident;

/// Bytes that are resident, by what would become of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// Chunks in use, and malloc's own structures.
    pub live: u64,
    /// Whole pages of free chunks that `malloc_trim(0)` gives back.
    pub returnable: u64,
    /// Whole pages of free chunks that it does not: tops of arenas other than the main one, threads' caches.
    pub kept: u64,
    /// Free bytes on pages that are in use, too.
    pub fragments: u64,
    /// What someone else has in the heap (`sbrk`).
    pub foreign: u64,
    /// What could not be made sense of.
    pub unknown: u64,
}

impl Split {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.live + self.returnable + self.kept + self.fragments + self.foreign + self.unknown
    }

    /// Adds what another has.
    pub fn add(&mut self, other: &Split) {
        self.live += other.live;
        self.returnable += other.returnable;
        self.kept += other.kept;
        self.fragments += other.fragments;
        self.foreign += other.foreign;
        self.unknown += other.unknown;
    }
}

/// Bytes of chunks as malloc counts them, resident or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chunks {
    /// Chunks in use, without those that threads' caches hold.
    pub live_bytes: u64,
    /// How many.
    pub n_live: u64,
    /// Chunks in bins.
    pub free_bytes: u64,
    /// How many.
    pub n_free: u64,
    /// Chunks in fastbins.
    pub fastbin_bytes: u64,
    /// Chunks in threads' caches.
    pub tcache_bytes: u64,
    /// How many.
    pub n_tcache: u64,
    /// The top.
    pub top_bytes: u64,
    /// Headers of heaps and arenas, and the marks at the ends of heaps.
    pub overhead_bytes: u64,
    /// What someone else has in the heap (`sbrk`).
    pub foreign_bytes: u64,
    /// What could not be made sense of.
    pub unknown_bytes: u64,
}

impl Chunks {
    /// Adds what another has.
    pub fn add(&mut self, other: &Chunks) {
        self.live_bytes += other.live_bytes;
        self.n_live += other.n_live;
        self.free_bytes += other.free_bytes;
        self.n_free += other.n_free;
        self.fastbin_bytes += other.fastbin_bytes;
        self.tcache_bytes += other.tcache_bytes;
        self.n_tcache += other.n_tcache;
        self.top_bytes += other.top_bytes;
        self.overhead_bytes += other.overhead_bytes;
        self.foreign_bytes += other.foreign_bytes;
        self.unknown_bytes += other.unknown_bytes;
    }

    /// Everything.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.live_bytes
            + self.free_bytes
            + self.fastbin_bytes
            + self.tcache_bytes
            + self.top_bytes
            + self.overhead_bytes
            + self.foreign_bytes
            + self.unknown_bytes
    }
}

/// What a chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Live,
    Free,
    Fastbin,
    Tcache,
    Overhead,
    Foreign,
    Unknown,
}

/// The highest chunk in use of a heap: what keeps the heap from shrinking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Its block, as the program has it.
    pub address: u64,
    /// Size of its chunk.
    pub chunk_bytes: u64,
}

/// What was counted so far. It is small, so that a walk can go back to an earlier one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) chunks: Chunks,
    pub(super) split: Split,
    /// Swapped bytes that a trim gives back.
    pub(super) returnable_swapped: u64,
    pub(super) pin: Option<Pin>,
    /// Where the chunks began that are all free, if the last one is.
    free_since: Option<u64>,
    /// Where those of them began that a trim merges.
    trim_since: Option<u64>,
    /// What of the free pages since `free_since` a trim gives back.
    returnable_here: u64,
    /// The whole pages among the free chunks that were closed last, if nobody took them yet.
    free_pages: Option<(u64, u64)>,
    /// Where to look for the next free chunk and for the next trimmed one.
    place: usize,
    trim_place: usize,
}

/// Pages of the top of the main arena that a trim gives back.
#[derive(Clone, Copy, Debug)]
pub(super) struct TopTrim {
    /// It gives back multiples of this.
    pub(super) page_bytes: u64,
}

impl Tally {
    pub(super) fn beginning_at(resident: &Resident, address: u64) -> Self {
        let place = resident.place_of(address);
        Self { place, trim_place: place, ..Self::default() }
    }

    /// Counts a chunk, or something else, that lies behind all before.
    #[inline]
    pub(super) fn add(&mut self, resident: &Resident, range: Range<u64>, class: Class) {
        let bytes = range.end - range.start;
        match class {
            Class::Live => {
                self.close(resident, range.start);
                self.chunks.live_bytes += bytes;
                self.chunks.n_live += 1;
                self.pin = Some(Pin { address: range.start + 16, chunk_bytes: bytes });
            }
            Class::Free | Class::Fastbin => {
                self.free_since.get_or_insert(range.start);
                self.trim_since.get_or_insert(range.start);
                if class == Class::Free {
                    self.chunks.free_bytes += bytes;
                    self.chunks.n_free += 1;
                } else {
                    self.chunks.fastbin_bytes += bytes;
                }
            }
            Class::Tcache => {
                self.close_trim(resident, range.start);
                self.free_since.get_or_insert(range.start);
                self.chunks.tcache_bytes += bytes;
                self.chunks.n_tcache += 1;
            }
            Class::Overhead => {
                self.close(resident, range.start);
                self.chunks.overhead_bytes += bytes;
            }
            Class::Foreign | Class::Unknown => self.add_other(resident, range, class),
        }
    }

    fn add_other(&mut self, resident: &Resident, range: Range<u64>, class: Class) {
        self.close(resident, range.start);
        let bytes = range.end - range.start;
        let there = resident.bytes_after(&mut self.place, range).resident();
        if class == Class::Foreign {
            self.chunks.foreign_bytes += bytes;
            self.split.foreign += there;
        } else {
            self.chunks.unknown_bytes += bytes;
            self.split.unknown += there;
        }
    }

    /// Counts the top, and the free chunks before it that a trim makes a part of it. `trim` says whether the kernel gets
    /// its pages. It ended at `was_end` when the snapshot was taken.
    pub(super) fn add_top(
        &mut self,
        resident: &Resident,
        top: Range<u64>,
        was_end: u64,
        trim: Option<TopTrim>,
    ) {
        self.chunks.top_bytes += top.end - top.start;
        let merged = self.trim_since.take().unwrap_or(top.start);
        self.free_since.get_or_insert(top.start);
        if let Some(trim) = trim {
            let bytes = top.end - merged;
            let extra = bytes.saturating_sub(TOP_REST) / trim.page_bytes * trim.page_bytes;
            let start = (top.end - extra).next_multiple_of(PAGE_BYTES);
            self.give_back(resident, start..was_end & !(PAGE_BYTES - 1));
        }
        self.close(resident, was_end);
    }

    /// All chunks from here to `end` are free and stay where they are.
    pub(super) fn add_kept(&mut self, resident: &Resident, range: Range<u64>) {
        self.close(resident, range.start);
        self.split.kept += resident.bytes_after(&mut self.place, range).resident();
    }

    /// A chunk in use, or the end, begins at `end`.
    #[inline]
    pub(super) fn close(&mut self, resident: &Resident, end: u64) {
        if self.free_since.is_some() {
            self.close_free(resident, end);
        }
    }

    fn close_free(&mut self, resident: &Resident, end: u64) {
        self.close_trim(resident, end);
        let Some(start) = self.free_since.take() else { return };
        let whole = start.next_multiple_of(PAGE_BYTES)..end & !(PAGE_BYTES - 1);
        let mut bytes = |range: Range<u64>| resident.bytes_after(&mut self.place, range).resident();
        if whole.start >= whole.end {
            self.split.fragments += bytes(start..end);
            return;
        }
        let head = bytes(start..whole.start);
        let there = bytes(whole.clone());
        self.free_pages = Some((whole.start, whole.end));
        let tail = bytes(whole.end..end);
        self.split.fragments += head + tail;
        self.split.returnable += self.returnable_here;
        self.split.kept += there.saturating_sub(self.returnable_here);
        self.returnable_here = 0;
    }

    /// The chunks before `end` are merged by a trim, which then gives back whole pages: not the first 48 bytes.
    fn close_trim(&mut self, resident: &Resident, end: u64) {
        let Some(start) = self.trim_since.take() else { return };
        let first = (start + CHUNK_STRUCT).next_multiple_of(PAGE_BYTES);
        if first < end {
            self.give_back(resident, first..end & !(PAGE_BYTES - 1));
        }
    }

    /// The whole pages of free chunks that a chunk in use has followed since this was called last.
    #[inline]
    pub(super) fn take_free_pages(&mut self) -> Option<Range<u64>> {
        self.free_pages.take().map(|(start, end)| start..end)
    }

    fn give_back(&mut self, resident: &Resident, range: Range<u64>) {
        if range.start < range.end {
            let bytes = resident.bytes_after(&mut self.trim_place, range);
            self.returnable_here += bytes.resident();
            self.returnable_swapped += bytes.swapped;
        }
    }

    /// Everything that is resident in `range` and was not told apart is in use.
    pub(super) fn finish(mut self, resident: &Resident, range: Range<u64>) -> Self {
        self.close(resident, range.end);
        let there = resident.bytes_in(range).resident();
        self.split.live = there.saturating_sub(self.split.total() - self.split.live);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::footprint::resident::{Kind, Run};

    fn all_resident(end: u64) -> Resident {
        Resident::of_runs(&[Run { start: 0, end, kind: Kind::Anonymous }])
    }

    /// Which pages a trim gives back, of one kind of chunks from one address to another, between chunks in use.
    #[test]
    fn what_a_trim_gives_back() {
        // (from, to, class, returnable, kept, fragments)
        let cases = [
            (0x1000, 0x2000, Class::Free, 0, 0x1000, 0),
            (0x0fd0, 0x2000, Class::Free, 0x1000, 0, 0x30),
            (0x0fe0, 0x2000, Class::Free, 0, 0x1000, 0x20),
            (0x0800, 0x4800, Class::Free, 0x3000, 0, 0x1000),
            (0x0800, 0x4800, Class::Fastbin, 0x3000, 0, 0x1000),
            (0x0800, 0x4800, Class::Tcache, 0, 0x3000, 0x1000),
            (0x1010, 0x1ff0, Class::Free, 0, 0, 0xfe0),
            (0x1ff0, 0x2010, Class::Free, 0, 0, 0x20),
        ];
        let resident = all_resident(0x10000);
        for (from, to, class, returnable, kept, fragments) in cases {
            let mut tally = Tally::beginning_at(&resident, 0);
            tally.add(&resident, 0..from, Class::Live);
            tally.add(&resident, from..to, class);
            tally.add(&resident, to..0x10000, Class::Live);
            let split = tally.finish(&resident, 0..0x10000).split;
            let live = 0x10000 - returnable - kept - fragments;
            let want = Split { live, returnable, kept, fragments, ..Split::default() };
            assert_eq!(split, want, "{from:x} {to:x} {class:?}");
        }
    }

    /// Of the main arena's top all but its last bytes goes back, with what is free right before it; of others nothing.
    #[test]
    fn tops() {
        let page_bytes = PAGE_BYTES;
        // (class of the chunk before, trim, returnable, kept)
        let cases = [
            (Class::Live, Some(TopTrim { page_bytes }), 0x3000, 0),
            (Class::Fastbin, Some(TopTrim { page_bytes }), 0x6000, 0),
            (Class::Tcache, Some(TopTrim { page_bytes }), 0x3000, 0x3000),
            (Class::Live, Some(TopTrim { page_bytes: 0x2000 }), 0x2000, 0x1000),
            (Class::Fastbin, None, 0, 0x6000),
            (Class::Live, None, 0, 0x3000),
        ];
        let resident = all_resident(0x8000);
        for (class, trim, returnable, kept) in cases {
            let mut tally = Tally::beginning_at(&resident, 0);
            tally.add(&resident, 0..0x1800, Class::Live);
            tally.add(&resident, 0x1800..0x4800, class);
            tally.add_top(&resident, 0x4800..0x8000, 0x8000, trim);
            let tally = tally.finish(&resident, 0..0x8000);
            assert_eq!((tally.split.returnable, tally.split.kept), (returnable, kept), "{class:?}");
            assert_eq!(tally.split.total(), 0x8000);
            assert_eq!(tally.chunks.total_bytes(), 0x8000);
        }
    }

    /// Only what is resident counts, and swapped pages that go back are told apart.
    #[test]
    fn what_is_not_there() {
        let run = |start, end, kind| Run { start, end, kind };
        let resident = Resident::of_runs(&[
            run(0, 0x1000, Kind::Anonymous),
            run(0x3000, 0x5000, Kind::Swapped),
            run(0x5000, 0x6000, Kind::Anonymous),
            run(0x7000, 0x8000, Kind::Anonymous),
        ]);
        let mut tally = Tally::beginning_at(&resident, 0);
        tally.add(&resident, 0..0x100, Class::Live);
        tally.add(&resident, 0x100..0x7f00, Class::Free);
        tally.add(&resident, 0x7f00..0x8000, Class::Foreign);
        let tally = tally.finish(&resident, 0..0x8000);
        let want = Split {
            live: 0x100,
            returnable: 0x1000,
            fragments: 0xf00 + 0xf00,
            foreign: 0x100,
            ..Split::default()
        };
        assert_eq!((tally.split, tally.returnable_swapped), (want, 0x2000));
    }
}
