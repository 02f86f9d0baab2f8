//! Blocks that malloc gave a mapping of their own.
//!
//! Each begins with the header of a chunk that ends with a page, with no flag but that one. The kernel makes
//! one mapping of those that touch, so they are followed from the start of each mapping. Of those behind someone else's
//! memory malloc itself tells that they are missing: then headers are looked for at each page, and believed if there are
//! as many, of as many bytes, as are missing.

use std::ops::Range;

use super::{
    layout::{FLAGS, IS_MMAPPED},
    space::{PAGE_BYTES, Space, is_malloc_like},
};
use crate::{footprint::Kind, target::maps::Mapping};

/// Blocks of a process: the kernel has room for 65,530 mappings by default, but they may have been merged.
const MAX_BLOCKS: usize = 1 << 20;

/// Where the chunk of a block with an alignment of its own is looked for.
const MAX_ALIGN_BYTES: u64 = 1 << 30;
const MAX_PAGES: usize = 4;
/// Pages that are searched for blocks behind someone else's memory, those of small mappings first.
const MAX_SEARCHED: usize = 1 << 16;
/// Headers that may be believed there.
const MAX_HIDDEN: usize = 64;
/// Steps of the search for those that add up.
const MAX_STEPS: u32 = 100_000;

/// The blocks, by address. `taken` are ranges, by address, that are known to be something else.
pub(super) fn find(space: &Space, taken: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut blocks = Vec::new();
    let is_candidate = |mapping: &&Mapping| is_malloc_like(mapping) && mapping.path != b"[heap]";
    for mapping in space.maps.iter().filter(is_candidate) {
        for piece in gaps(mapping.start..mapping.end, taken) {
            let mut at = piece.start;
            while at < piece.end && blocks.len() < MAX_BLOCKS {
                let Some(end) = block_at(space, at).filter(|&end| end <= piece.end) else { break };
                blocks.push(at..end);
                at = end;
            }
        }
    }
    blocks
}

/// Blocks that are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) n: u64,
    pub(super) bytes: u64,
}

/// The blocks that are missing, by address, if they lie behind someone else's memory. `taken` is as for [`find`], with the
/// blocks that were found.
pub(super) fn find_hidden(
    space: &Space,
    taken: &[Range<u64>],
    missing: Missing,
) -> Vec<Range<u64>> {
    let is_candidate = |mapping: &&Mapping| is_malloc_like(mapping) && mapping.path != b"[heap]";
    let mut mappings: Vec<&Mapping> = space.maps.iter().filter(is_candidate).collect();
    mappings.sort_by_key(|mapping| mapping.size_bytes());
    let (mut found, mut left) = (Vec::new(), MAX_SEARCHED);
    for mapping in mappings {
        for piece in gaps(mapping.start..mapping.end, taken) {
            hidden_in(space, &piece, missing.bytes, &mut left, &mut found);
        }
    }
    let mut ranges = the_missing(&found, missing).unwrap_or_default();
    ranges.sort_unstable_by_key(|range| range.start);
    ranges
}

/// Those of `found` that are as many, of as many bytes, as are missing; `None` if none are, or it may be these or those.
fn the_missing(found: &[Range<u64>], missing: Missing) -> Option<Vec<Range<u64>>> {
    let mut found = found.to_vec();
    // What looks like a header by chance is mostly one of a small block.
    found.sort_by_key(|range| range.start.wrapping_sub(range.end));
    let mut choice =
        Choice { found: &found, chosen: Vec::new(), solution: None, n: 0, steps_left: MAX_STEPS };
    choice.go_on(0, missing);
    (choice.n == 1 && choice.steps_left > 0).then_some(choice.solution)?
}

/// A search for blocks that add up.
struct Choice<'a> {
    found: &'a [Range<u64>],
    chosen: Vec<Range<u64>>,
    solution: Option<Vec<Range<u64>>>,
    n: usize,
    steps_left: u32,
}

impl Choice<'_> {
    /// Chooses among those from `first` on.
    fn go_on(&mut self, first: usize, left: Missing) {
        if left.n == 0 || self.n > 1 {
            if left.n == 0 && left.bytes == 0 {
                self.n += 1;
                self.solution = Some(self.chosen.clone());
            }
            return;
        }
        for (at, range) in self.found.iter().enumerate().skip(first) {
            let bytes = range.end - range.start;
            // The largest come first: no more of them can be enough.
            let is_too_little = bytes.saturating_mul(left.n) < left.bytes;
            if self.steps_left == 0 || is_too_little {
                return;
            }
            self.steps_left -= 1;
            if let Some(rest) = left.bytes.checked_sub(bytes) {
                self.chosen.push(range.clone());
                self.go_on(at + 1, Missing { n: left.n - 1, bytes: rest });
                self.chosen.pop();
            }
        }
    }
}

fn hidden_in(
    space: &Space,
    piece: &Range<u64>,
    most_bytes: u64,
    left: &mut usize,
    found: &mut Vec<Range<u64>>,
) {
    let mut end = piece.start;
    for run in space.resident.runs_in(piece.clone()).filter(|run| run.kind == Kind::Anonymous) {
        for at in (run.start..run.end).step_by(PAGE_BYTES as usize).filter(|&at| at > piece.start) {
            if at < end {
                continue;
            }
            if *left == 0 || found.len() >= MAX_HIDDEN {
                return;
            }
            *left -= 1;
            let block = end_at(space, at, at).filter(|&end| end <= piece.end);
            if let Some(block_end) = block.filter(|end| end - at <= most_bytes) {
                found.push(at..block_end);
                end = block_end;
            }
        }
    }
}

/// What of `range` none of `taken` has.
pub(super) fn gaps(range: Range<u64>, taken: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut gaps = Vec::new();
    let mut at = range.start;
    let first = taken.partition_point(|other| other.end <= range.start);
    for other in taken[first..].iter().take_while(|other| other.start < range.end) {
        gaps.push(at..other.start.max(at));
        at = at.max(other.end);
    }
    gaps.push(at..range.end.max(at));
    gaps.retain(|gap| gap.start < gap.end);
    gaps
}

/// The end of the block whose pages begin at `at`.
fn block_at(space: &Space, at: u64) -> Option<u64> {
    end_at(space, at, at).or_else(|| {
        // Of one with an alignment of its own, the chunk may begin later: right before a page (since 2.43).
        let runs = space.resident.runs_in(at..at.saturating_add(MAX_ALIGN_BYTES));
        let pages = runs.flat_map(|run| (run.start..run.end).step_by(PAGE_BYTES as usize));
        pages.take(MAX_PAGES).find_map(|page| end_at(space, at, page + PAGE_BYTES - 16))
    })
}

/// The end of the block at `at` whose chunk is at `chunk`. Up to 2.42 its size counts all of it, then all but 16 bytes.
fn end_at(space: &Space, at: u64, chunk: u64) -> Option<u64> {
    let (before, head) = (space.word(chunk)?, space.word(chunk + 8)?);
    let bytes = head & !FLAGS;
    if before & !1 != chunk - at || head & FLAGS != IS_MMAPPED || !(2048..1 << 47).contains(&bytes)
    {
        return None;
    }
    let end = chunk + bytes;
    [end, end + 16].into_iter().find(|end| end.is_multiple_of(PAGE_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of what looks like blocks those are taken that add up, if there is one way only.
    #[test]
    fn what_is_missing() {
        let block = |n: u64, pages: u64| n << 20..(n << 20) + (pages << 12);
        let found = [block(1, 1), block(2, 257), block(3, 257), block(4, 3), block(5, 50)];
        // (how many are missing, pages of them, which they are)
        let cases: [(u64, u64, Option<&[u64]>); 7] = [
            (2, 514, Some(&[2, 3])),
            (1, 50, Some(&[5])),
            (2, 4, Some(&[4, 1])),
            (5, 568, Some(&[2, 3, 5, 4, 1])),
            (1, 257, None), // this one or that one
            (2, 515, None),
            (3, 514, None),
        ];
        for (n, pages, want) in cases {
            let ranges = the_missing(&found, Missing { n, bytes: pages << 12 });
            let ranges = ranges.map(|ranges| ranges.iter().map(|it| it.start >> 20).collect());
            assert_eq!(ranges, want.map(<[u64]>::to_vec), "{n} of {pages} pages");
        }
        let many: Vec<_> = (0..64).map(|n| block(n, 100 + n)).collect();
        assert_eq!(the_missing(&many, Missing { n: 32, bytes: 4000 << 12 }), None);
    }

    /// What is left of a range when others have taken theirs.
    #[test]
    fn what_is_left() {
        let taken = [1..2, 4..6, 6..8];
        let cases = [
            (0..10, vec![0..1, 2..4, 8..10]),
            (2..4, vec![2..4; 1]),
            (5..7, vec![]),
            (1..5, vec![2..4; 1]),
            (8..9, vec![8..9; 1]),
        ];
        for (range, want) in cases {
            assert_eq!(gaps(range.clone(), &taken), want, "{range:?}");
        }
    }
}
