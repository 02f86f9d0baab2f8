//! Stacks of threads, of any program: where their stack pointers are, and stacks that glibc keeps of ended threads.
//!
//! In: the map, stack pointers, and thread blocks, which lie in stacks, too. Out: ranges. A stack is a mapping; the guard before it has no access. Where there is no
//! guard, a stack may lie in other data, or next to others: then the part that is in use is taken for one, if it is small.

use std::{collections::BTreeSet, ops::Range};

use crate::target::maps::Mapping;

/// More than any guard of a stack's: one page of glibc's, or four of HotSpot's zones.
const MAX_GUARD_BYTES: u64 = 1 << 20;
const PAGE_BYTES: u64 = 4096;
/// What of a stack without a guard is taken for one, from its pointer up.
const MAX_USED_BYTES: u64 = 1 << 20;
/// glibc keeps no larger ones (40 MiB in all, nptl/allocatestack.c).
const MAX_KEPT_BYTES: u64 = 40 << 20;

/// The stacks of threads whose stack pointers are `pointers` or whose thread blocks are `blocks`, and of ended ones.
///
/// A thread that runs all the time tells no stack pointer. A block tells of a stack only where there is a guard: the first
/// thread's lies elsewhere.
pub(super) fn ranges(maps: &[Mapping], pointers: &[u64], blocks: &[u64]) -> Vec<Range<u64>> {
    let stack_at = |address: u64| {
        let after = maps.partition_point(|mapping| mapping.start <= address);
        let index = after.checked_sub(1).filter(|&index| address < maps[index].end);
        index.filter(|&index| is_stack(&maps[index]))
    };
    let mut live: BTreeSet<usize> =
        pointers.iter().filter_map(|&pointer| stack_at(pointer)).collect();
    let of_blocks = blocks.iter().filter_map(|&block| stack_at(block));
    live.extend(of_blocks.filter(|&index| whole_bytes(maps, index).is_some()));
    let sizes: BTreeSet<u64> = live.iter().filter_map(|&index| whole_bytes(maps, index)).collect();
    let is_kept = |&index: &usize| {
        let mapping = &maps[index];
        !live.contains(&index)
            && is_stack(mapping)
            && mapping.is_anonymous()
            && mapping.size_bytes() <= MAX_KEPT_BYTES
            && whole_bytes(maps, index).is_some_and(|bytes| sizes.contains(&bytes))
    };
    let kept: Vec<usize> = (0..maps.len()).filter(is_kept).collect();
    let (whole, unguarded): (Vec<usize>, Vec<usize>) = live
        .iter()
        .partition(|&&index| maps[index].path == b"[stack]" || whole_bytes(maps, index).is_some());
    let whole = whole.into_iter().chain(kept).map(|index| maps[index].start..maps[index].end);
    let used = pointers.iter().filter_map(|&pointer| {
        let mut holders = unguarded.iter().map(|&index| &maps[index]);
        let mapping = holders.find(|it| (it.start..it.end).contains(&pointer))?;
        let start = pointer & !(PAGE_BYTES - 1);
        Some(start..mapping.end.min(start + MAX_USED_BYTES))
    });
    whole.chain(used).collect()
}

/// A stack is the process's own memory. A program may have its stack in `[heap]`, which then stays what it is.
fn is_stack(mapping: &Mapping) -> bool {
    mapping.access && (mapping.is_anonymous() || mapping.path == b"[stack]")
}

/// The bytes of a stack with its guard; `None` where there is no guard.
fn whole_bytes(maps: &[Mapping], index: usize) -> Option<u64> {
    let guard = maps.get(index.checked_sub(1)?)?;
    let is_guard = !guard.access
        && guard.is_anonymous()
        && guard.end == maps[index].start
        && guard.size_bytes() <= MAX_GUARD_BYTES;
    is_guard.then(|| maps[index].end - guard.start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::maps::parse;

    /// A live stack, one that is kept of an ended thread, and what only looks like one.
    #[test]
    fn live_and_kept() {
        let maps = parse(
            b"10000-11000 ---p 0 00:00 0\n11000-20000 rw-p 0 00:00 0\n\
              30000-34000 ---p 0 00:00 0\n34000-40000 rw-p 0 00:00 0\n\
              50000-51000 ---p 0 00:00 0\n51000-90000 rw-p 0 00:00 0\n\
              a1000-b0000 rw-p 0 00:00 0\n\
              c0000-c1000 ---p 0 00:00 0\nc1000-d0000 rw-p 0 fe:00 7 /x\n\
              e0000-f0000 rw-p 0 00:00 0 [stack]\n",
        );
        let found = ranges(&maps, &[0x11800, 0xe8000, 0x10800, 0x5, u64::MAX], &[]);
        assert_eq!(found, [0x11000..0x20000, 0xe0000..0xf0000, 0x34000..0x40000]);
        assert!(ranges(&maps, &[], &[]).is_empty());
        // A thread block is in a stack if a guard says that it is one.
        let of_blocks = ranges(&maps, &[], &[0x8f000, 0xa2000]);
        assert_eq!(of_blocks, vec![0x51000..0x90000]);
        // Without a guard it may lie in anything.
        let used = ranges(&maps, &[0xa2345, 0xa1000], &[]);
        assert_eq!(used, [0xa2000..0xb0000, 0xa1000..0xb0000]);
        let data = parse(b"10000000-40000000 rw-p 0 00:00 0\n");
        assert_eq!(ranges(&data, &[0x2000_0010], &[]), vec![0x2000_0000..0x2010_0000]);
    }
}
