//! Where glibc's allocator has its memory, by the headers that it puts there.
//!
//! In: the map, and what has no label yet. Out: ranges. An arena's heaps begin at multiples of 64 MiB with a header
//! (`heap_info` in malloc/arena.c, glibc 2.17 to 2.42); a block that was mapped on its own begins with its size and the
//! flag `IS_MMAPPED` (malloc/malloc.c).

use std::ops::Range;

use crate::{jvm::Memory, target::maps::Mapping};

const HEAP_BYTES: u64 = 64 << 20;
const PAGE_BYTES: u64 = 4096;
const IS_MMAPPED: u64 = 2;
const FLAGS: u64 = 15;

/// The heaps of arenas.
pub(super) fn heaps(memory: &dyn Memory, maps: &[Mapping]) -> Vec<Range<u64>> {
    let own = maps.iter().filter(|mapping| mapping.is_anonymous() && mapping.access);
    let mut found = Vec::new();
    for mapping in own {
        let first = mapping.start.next_multiple_of(HEAP_BYTES);
        let starts = (first..mapping.end).step_by(HEAP_BYTES as usize);
        found.extend(starts.filter_map(|start| heap(memory, maps, start, mapping.end)));
    }
    found
}

/// `{ ar_ptr, prev, size, mprotect_size }`.
fn heap(memory: &dyn Memory, maps: &[Mapping], start: u64, end: u64) -> Option<Range<u64>> {
    let word = |n: u64| memory.u64(start + 8 * n).ok();
    let (arena, before, size, touchable) = (word(0)?, word(1)?, word(2)?, word(3)?);
    let is_size =
        |bytes: u64| bytes.is_multiple_of(PAGE_BYTES) && (PAGE_BYTES..=HEAP_BYTES).contains(&bytes);
    let is_own = |address: u64| {
        let after = maps.partition_point(|mapping| mapping.start <= address);
        after.checked_sub(1).is_some_and(|index| address < maps[index].end)
    };
    let is_sound = is_size(size)
        && is_size(touchable)
        && size <= touchable
        && arena % 8 == 0
        && is_own(arena)
        && before % HEAP_BYTES == 0
        && (before == 0 || is_own(before));
    // The arena of an only heap lies in it, behind its header.
    let is_first = before != 0 || (start..start + PAGE_BYTES).contains(&arena);
    (is_sound && is_first).then(|| start..(start + touchable).min(end))
}

/// Blocks that were mapped on their own, one behind the other in `free`, a stretch that nobody knows.
pub(super) fn blocks(memory: &dyn Memory, free: Range<u64>) -> Range<u64> {
    let mut end = free.start;
    while end < free.end
        && let Some(size) = block(memory, end)
        && size <= free.end - end
    {
        end += size;
    }
    free.start..end
}

/// The size of a block that was mapped on its own; what is aligned has a gap before it, which `prev_size` tells.
fn block(memory: &dyn Memory, start: u64) -> Option<u64> {
    let (gap, size) = (memory.u64(start).ok()?, memory.u64(start + 8).ok()?);
    let is_block = size & FLAGS == IS_MMAPPED && (size & !FLAGS).is_multiple_of(PAGE_BYTES);
    (is_block && gap == 0 && size > PAGE_BYTES).then_some(size & !FLAGS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{jvm::Capture, target::maps::parse};

    fn words(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// A first heap, one that follows it in another mapping, and headers that lie.
    #[test]
    fn heaps_of_arenas() {
        let maps = parse(
            b"4000000-4021000 rw-p 0 00:00 0\n4021000-8000000 ---p 0 00:00 0\n\
              c000000-c100000 rw-p 0 00:00 0\n10000000-10100000 rw-p 0 00:00 0\n",
        );
        let first = 0x400_0000_u64;
        let capture = |third: &[u64]| {
            Capture::of_ranges([
                (first, words(&[first + 0x30, 0, 0x21000, 0x21000])),
                (0xc00_0000, words(&[first + 0x30, first, 0x80000, 0x90000])),
                (0x1000_0000, words(third)),
            ])
        };
        let known = [first..first + 0x21000, 0xc00_0000..0xc09_0000];
        for third in [
            [first + 0x30, 0, 0x21000, 0x21000],
            [0x99, 0, 0x21000, 0x21000],
            [0x1000_0030, 0, 0x21000, 0x20000],
            [0x1000_0030, 0, HEAP_BYTES * 2, HEAP_BYTES * 2],
            [0x1000_0030, 7, 0x1000, 0x1000],
            [0; 4],
        ] {
            assert_eq!(heaps(&capture(&third), &maps), known, "{third:x?}");
        }
    }

    /// Blocks follow each other up to what is none.
    #[test]
    fn blocks_on_their_own() {
        let memory = Capture::of_ranges([
            (0x10000, words(&[0, 0x3002])),
            (0x13000, words(&[0, 0x21002])),
            (0x34000, words(&[0, 0x21001])),
        ]);
        // (stretch, end of the blocks)
        let cases = [
            (0x10000..0x90000, 0x34000),
            (0x10000..0x20000, 0x13000),
            (0x34000..0x90000, 0x34000),
            (0x50000..0x90000, 0x50000),
        ];
        for (free, end) in cases {
            assert_eq!(blocks(&memory, free.clone()), free.start..end, "{free:x?}");
        }
    }
}
