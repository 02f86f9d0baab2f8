//! Finding the main arena without symbols, and the ring of the others.
//!
//! An arena holds 127 pairs of links. Those of an empty bin lead to themselves, the others to chunks that lead back.
//! No other data of a libc looks like that, and what lies around them tells the layout.

use std::ops::Range;

use super::{
    layout::{HEAP_INFOS, LAYOUTS, Layout, N_BINS},
    space::{PAGE_BYTES, Space},
};
use crate::target::maps::Mapping;

/// Data of a libc, or of a program that has one in it, that is looked through.
const MAX_DATA_BYTES: u64 = 16 << 20;
/// Bins that may not lead back: the process goes on while it is looked at.
const MAX_MISSES: usize = 3;
/// Arenas of a ring; glibc makes 8 for each processor at most.
const MAX_ARENAS: usize = 4096;

/// The main arena, and what it leads to.
#[derive(Clone, Debug)]
pub(super) struct MainArena {
    pub(super) address: u64,
    pub(super) layout: Layout,
    /// All arenas that its ring leads to, itself first.
    pub(super) ring: Vec<u64>,
    /// Whether the ring leads back to it.
    pub(super) is_closed: bool,
}

/// Arenas of a ring between two looks at the clock.
const LOOK_AT_CLOCK_EVERY: usize = 64;

/// Files whose data may hold the main arena: each libc, else the program, which may have one in it.
pub(super) fn data_of_libc(maps: &[Mapping]) -> Vec<Range<u64>> {
    let is_libc = |mapping: &&Mapping| {
        let name = mapping.file_name();
        name.starts_with("libc.so.6") || (name.starts_with("libc-2.") && name.contains(".so"))
    };
    let mut files: Vec<&[u8]> =
        maps.iter().filter(is_libc).map(|mapping| &mapping.path[..]).collect();
    files.dedup();
    if files.is_empty() {
        files.extend(
            maps.iter().find(|mapping| mapping.inode != 0).map(|mapping| &mapping.path[..]),
        );
    }
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for pair in maps.windows(2) {
        let is_data = |mapping: &Mapping| {
            mapping.access && !mapping.exec && files.contains(&&mapping.path[..])
        };
        if is_data(&pair[0]) {
            ranges.push(pair[0].start..pair[0].end);
            // What follows the last is its bss.
            let is_bss = pair[1].access && pair[1].inode == 0 && pair[1].path.is_empty();
            if is_bss && pair[1].start == pair[0].end {
                ranges.push(pair[1].start..pair[1].end);
            }
        }
    }
    bounded(ranges)
}

/// Adjacent ranges as one, none larger than what is looked through.
fn bounded(ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if last.end >= range.start => last.end = range.end,
            _ => joined.push(range),
        }
    }
    joined.iter_mut().for_each(|range| range.end = range.end.min(range.start + MAX_DATA_BYTES));
    joined
}

/// The main arenas in `data`: one for each libc that was ever asked for memory.
pub(super) fn find(space: &Space, data: &[Range<u64>]) -> Vec<MainArena> {
    let mut found = Vec::new();
    for range in data {
        for (start, words) in joined_pages(space, range) {
            for at in runs_of_pairs(space, start, &words) {
                found.extend(best_in(space, at));
            }
        }
    }
    found
}

/// The words of `range`, pages that follow each other as one piece.
fn joined_pages(space: &Space, range: &Range<u64>) -> Vec<(u64, Vec<u64>)> {
    let mut pieces: Vec<(u64, Vec<u64>)> = Vec::new();
    for (page, words) in space.pages_of(range.clone()) {
        match pieces.last_mut() {
            Some((start, piece)) if *start + piece.len() as u64 * 8 == page => piece.extend(words),
            _ => pieces.push((page, words)),
        }
    }
    pieces
}

/// Where 127 or more pairs of links follow each other: first and last place where the bins may begin.
fn runs_of_pairs(space: &Space, start: u64, words: &[u64]) -> Vec<Range<u64>> {
    let mut runs = Vec::new();
    for parity in 0..2 {
        let mut n_pairs = 0;
        let n_all = words.len().saturating_sub(parity) / 2;
        for n in 0..=n_all {
            let index = parity + 2 * n;
            let at = start + index as u64 * 8;
            let is_pair = n < n_all && is_pair(space, at, words[index], words[index + 1]);
            if is_pair {
                n_pairs += 1;
                continue;
            }
            if n_pairs >= N_BINS {
                runs.push(at - n_pairs * 16..at - (N_BINS - 1) * 16);
            }
            n_pairs = 0;
        }
    }
    runs
}

fn is_pair(space: &Space, at: u64, fd: u64, bk: u64) -> bool {
    let is_empty = fd == at - 16 && bk == fd;
    is_empty || (fd != 0 && bk != 0 && space.is_chunk_place(fd) && space.is_chunk_place(bk))
}

/// How many of the bins at `bins` lead elsewhere and not back.
fn n_misses(space: &Space, bins: u64) -> usize {
    let leads_back = |n: &u64| {
        let bin = bins + n * 16 - 16;
        let (Some(fd), Some(bk)) = (space.word(bin + 16), space.word(bin + 24)) else {
            return false;
        };
        let is_empty = fd == bin && bk == bin;
        is_empty || (space.word(fd + 24) == Some(bin) && space.word(bk + 16) == Some(bin))
    };
    (0..N_BINS).filter(|n| !leads_back(n)).count()
}

/// The main arena whose bins begin somewhere in `places`.
fn best_in(space: &Space, places: Range<u64>) -> Option<MainArena> {
    let last_place = places.end.min(places.start + PAGE_BYTES);
    let mut best: Option<(usize, MainArena)> = None;
    for bins in (places.start..last_place).step_by(16) {
        if space.is_late() {
            break;
        }
        if n_misses(space, bins) > MAX_MISSES {
            continue;
        }
        for layout in LAYOUTS {
            let Some((score, arena)) = judge(space, bins.wrapping_sub(layout.bins), layout) else {
                continue;
            };
            if best.as_ref().is_none_or(|(other, _)| score > *other) {
                best = Some((score, arena));
            }
        }
    }
    best.map(|(_, arena)| arena)
}

/// How well `layout` fits an arena at `address`, if at all.
fn judge(space: &Space, address: u64, layout: Layout) -> Option<(usize, MainArena)> {
    let word = |offset: u64| space.word(address.wrapping_add(offset));
    let top = word(layout.top)?;
    let (system, max) = (word(layout.system_mem)?, word(layout.max_system_mem)?);
    let is_top_sane = space.is_chunk_place(top);
    let is_size_sane = system > 0 && system <= max && system.is_multiple_of(PAGE_BYTES);
    let is_attached_sane = layout.attached.is_none_or(|at| word(at).is_some_and(|n| n < 1 << 22));
    let (ring, is_closed) = ring(space, address, &layout);
    let score = usize::from(is_top_sane)
        + usize::from(is_size_sane)
        + usize::from(is_attached_sane && layout.attached.is_some())
        + 2 * usize::from(is_closed);
    let is_accepted = is_attached_sane && score >= 3;
    is_accepted.then_some((score, MainArena { address, layout, ring, is_closed }))
}

/// The arenas that `next` leads to from `address` on, and whether it comes back.
pub(super) fn ring(space: &Space, address: u64, layout: &Layout) -> (Vec<u64>, bool) {
    let mut ring = vec![address];
    while ring.len() < MAX_ARENAS {
        let Some(next) = space.word(ring[ring.len() - 1].wrapping_add(layout.next)) else { break };
        if next == address {
            return (ring, true);
        }
        let is_late = ring.len() % LOOK_AT_CLOCK_EVERY == 0 && space.is_late();
        if is_late || !is_other_arena(space, next) || ring.contains(&next) {
            break;
        }
        ring.push(next);
    }
    (ring, false)
}

/// Whether an arena other than the main one is at `address`: right behind the header of its first heap, which names it.
pub(super) fn is_other_arena(space: &Space, address: u64) -> bool {
    space.is_chunk_place(address)
        && HEAP_INFOS.iter().any(|info| {
            let heap = address.wrapping_sub(*info);
            heap.is_multiple_of(1 << 20) && space.word(heap) == Some(address)
        })
}
