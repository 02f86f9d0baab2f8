//! The heaps of arenas other than the main one.
//!
//! Each begins at a multiple of its largest size and names its arena. They are looked for in the map, not along their
//! links: one link that is damaged would hide all behind it.

use std::collections::BTreeSet;

use super::{
    layout::{HEAP_INFOS, HEAP_MAX},
    main_arena::{MainArena, is_other_arena},
    space::{PAGE_BYTES, Space, is_malloc_like},
};
use crate::target::maps::Mapping;

/// Heaps of all arenas; 4 TiB of them.
const MAX_HEAPS: usize = 65_536;

/// One heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HeapInfo {
    pub(super) start: u64,
    /// Where the part ends that its arena uses.
    pub(super) end: u64,
    /// Where the part ends that is accessible.
    pub(super) accessible_end: u64,
    /// What it can't grow beyond.
    pub(super) limit: u64,
    pub(super) arena: u64,
    /// Whether what it says of its own size makes no sense; then the map counts.
    pub(super) is_lying: bool,
}

/// Address space of a heap, given the size of huge pages that were asked for.
pub(super) fn heap_max(huge_page_bytes: u64) -> u64 {
    match huge_page_bytes {
        0 => HEAP_MAX,
        bytes => bytes.saturating_mul(4).clamp(1 << 20, 1 << 36),
    }
}

/// All heaps, by address. Where the ring of arenas is broken, also those of arenas that it should have led to.
pub(super) fn find(space: &Space, main: &MainArena, heap_max: u64) -> Vec<HeapInfo> {
    let ring: BTreeSet<u64> = main.ring[1..].iter().copied().collect();
    let mut heaps = Vec::new();
    for mapping in space.maps.iter().filter(|mapping| is_malloc_like(mapping)) {
        for run in space.resident.runs_in(mapping.start..mapping.end) {
            let mut start = run.start.next_multiple_of(heap_max);
            while start < run.end && heaps.len() < MAX_HEAPS {
                let arena = space.word(start).unwrap_or_default();
                let is_known = ring.contains(&arena);
                if is_known || (!main.is_closed && is_other_arena(space, arena)) {
                    heaps.extend(heap_at(space, start, arena, mapping, heap_max));
                }
                start += heap_max;
            }
        }
    }
    heaps
}

fn heap_at(
    space: &Space,
    start: u64,
    arena: u64,
    mapping: &Mapping,
    heap_max: u64,
) -> Option<HeapInfo> {
    let (size, accessible) = (space.word(start + 16)?, space.word(start + 24)?);
    // What became accessible since the map was read is there all the same, but nothing that is another's.
    let next = space.maps.iter().find(|next| next.access && next.start >= mapping.end);
    let limit = start.saturating_add(heap_max).min(next.map_or(u64::MAX, |next| next.start));
    let most = limit.min(mapping.end) - start;
    let is_sane =
        |bytes: u64| bytes.is_multiple_of(PAGE_BYTES) && (1..=limit - start).contains(&bytes);
    let is_lying = !is_sane(size) || !is_sane(accessible) || size > accessible;
    let (size, accessible) = if is_lying { (most, most) } else { (size, accessible) };
    let (end, accessible_end) = (start + size, start + accessible);
    Some(HeapInfo { start, end, accessible_end, limit, arena, is_lying })
}

/// The end of the used part as the heap itself says it at this moment.
pub(super) fn end_now(space: &Space, heap: &HeapInfo) -> u64 {
    let size = space.word(heap.start + 16).filter(|size| size.is_multiple_of(PAGE_BYTES));
    let end = size.and_then(|size| heap.start.checked_add(size));
    end.filter(|&end| !heap.is_lying && end <= heap.limit).unwrap_or(heap.end)
}

/// Bytes of the header that every heap begins with, as the first heap of `arena` shows; the arena follows it.
pub(super) fn info_bytes(arena: u64) -> u64 {
    let behind = arena % (1 << 20);
    HEAP_INFOS.into_iter().find(|&info| info == behind).unwrap_or(HEAP_INFOS[1])
}
