//! Blocks that malloc gave a mapping of their own.
//!
//! Each begins with the header of a chunk that ends with a page, with no flag but that one. The kernel makes
//! one mapping of those that touch, so they are followed from the start of each mapping; one behind someone else's
//! memory is not found, and what is missing malloc itself tells.

use std::ops::Range;

use super::{
    layout::{FLAGS, IS_MMAPPED},
    space::{PAGE_BYTES, Space, is_malloc_like},
};
use crate::target::maps::Mapping;

/// Blocks of a process: the kernel has room for 65,530 mappings by default, but they may have been merged.
const MAX_BLOCKS: usize = 1 << 20;

/// Where the chunk of a block with an alignment of its own is looked for.
const MAX_ALIGN_BYTES: u64 = 1 << 30;
const MAX_PAGES: usize = 4;

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
