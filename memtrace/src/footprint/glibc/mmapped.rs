//! Blocks that malloc gave a mapping of their own.
//!
//! Each begins with the header of a chunk whose size is a multiple of pages, with no flag but that one. The kernel makes
//! one mapping of those that touch, so they are followed from the start of each mapping; one behind someone else's
//! memory is not found, and what is missing malloc itself tells.

use std::ops::Range;

use super::{
    layout::{FLAGS, IS_MMAPPED},
    space::{PAGE_BYTES, Space, is_malloc_like},
};

/// Blocks of a process: the kernel has room for 65,530 mappings by default, but they may have been merged.
const MAX_BLOCKS: usize = 1 << 20;

/// The blocks, by address. `taken` are ranges, by address, that are known to be something else.
pub(super) fn find(space: &Space, taken: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut blocks = Vec::new();
    let candidates = space.maps.iter().filter(|mapping| {
        is_malloc_like(mapping)
            && mapping.path != b"[heap]"
            && !overlaps(taken, mapping.start, mapping.end)
    });
    for mapping in candidates {
        let mut at = mapping.start;
        while at < mapping.end && blocks.len() < MAX_BLOCKS {
            let Some(bytes) = block_at(space, at).filter(|&bytes| bytes <= mapping.end - at) else {
                break;
            };
            blocks.push(at..at + bytes);
            at += bytes;
        }
    }
    blocks
}

fn overlaps(taken: &[Range<u64>], start: u64, end: u64) -> bool {
    let next = taken.partition_point(|range| range.end <= start);
    taken.get(next).is_some_and(|range| range.start < end)
}

fn block_at(space: &Space, at: u64) -> Option<u64> {
    let (before, head) = (space.word(at)?, space.word(at + 8)?);
    let bytes = head & !FLAGS;
    let is_block = before == 0
        && head & FLAGS == IS_MMAPPED
        && bytes.is_multiple_of(PAGE_BYTES)
        && (PAGE_BYTES..1 << 47).contains(&bytes);
    is_block.then_some(bytes)
}
