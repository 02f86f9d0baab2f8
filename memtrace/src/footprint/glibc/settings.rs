//! What malloc was told, `mp_`: thresholds, huge pages, and the blocks with mappings of their own.
//!
//! It is found by `sbrk_base`, the start of the heap, and read relative to that. Source fact: malloc/malloc.c, `struct
//! malloc_par`, 2.26 to 2.43.

use std::ops::Range;

use super::space::{PAGE_BYTES, Space};
use crate::target::maps::Mapping;

/// What malloc was told, and what it counts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The top of the main arena is given back by itself when it is larger.
    pub trim_threshold_bytes: u64,
    /// What the heap grows by beyond what is needed.
    pub top_pad_bytes: u64,
    /// Blocks from this size on have mappings of their own.
    pub mmap_threshold_bytes: u64,
    /// Blocks with mappings of their own.
    pub n_mmaps: u32,
    /// Bytes of those.
    pub mmapped_bytes: u64,
    /// Size of a transparent huge page, where they were asked for; else 0.
    pub thp_page_bytes: u64,
    /// Size of a page of the pool of huge pages, where they were asked for; else 0.
    pub huge_page_bytes: u64,
    /// Where the heap began when malloc first grew it.
    pub sbrk_base: u64,
}

/// Finds them in the data of a libc.
pub(super) fn find(
    space: &Space,
    data: &[Range<u64>],
    heap: Option<&Mapping>,
    start_brk: Option<u64>,
) -> Option<Settings> {
    let heap = heap?;
    let mut found = None;
    for range in data {
        for (page, words) in space.pages_of(range.clone()) {
            for (at, &word) in (page..).step_by(8).zip(&words) {
                if !(heap.start..heap.end).contains(&word) {
                    continue;
                }
                if let Some(settings) = at_sbrk_base(space, at, word) {
                    // The start itself is better than another address in the heap.
                    if start_brk == Some(word) {
                        return Some(settings);
                    }
                    found = found.or(Some(settings));
                }
            }
        }
    }
    found
}

fn at_sbrk_base(space: &Space, at: u64, sbrk_base: u64) -> Option<Settings> {
    let word = |back: u64| space.word(at.wrapping_sub(back));
    let half = |back: u64| {
        let word = space.word(at.wrapping_sub(back) & !7)?;
        Some((word >> (if back.is_multiple_of(8) { 0 } else { 32 })) as u32)
    };
    let (mmapped, max_mmapped) = (word(16)?, word(8)?);
    let is_counted = mmapped <= max_mmapped && mmapped.is_multiple_of(PAGE_BYTES);
    let (bins, max_bytes) = (space.word(at + 8)?, space.word(at + 16)?);
    let has_tcache = bins <= 128 && max_bytes <= 8 << 20;
    if !is_counted || !has_tcache {
        return None;
    }
    // Since 2.35 there are two sizes of huge pages before it; `n_mmaps_max` tells which it is.
    let is_early = half(28)? == 65536;
    let is_late = half(32)? == 65536;
    // Since 2.43 there is another field in front of them.
    let (sizes, thp, huge, n_mmaps) = match (is_early, is_late) {
        (true, _) => ([72, 64, 56], None, None, 32),
        (false, true) => {
            let is_43 = !is_threshold(word(80)?) && is_threshold(word(88)?);
            let sizes = if is_43 { [104, 96, 88] } else { [96, 88, 80] };
            (sizes, Some(56), Some(48), 36)
        }
        (false, false) => return None,
    };
    let size = |back: Option<u64>| back.map_or(Some(0), word).filter(|&size| is_page_size(size));
    let [trim, pad, threshold] = sizes;
    let settings = Settings {
        trim_threshold_bytes: word(trim)?,
        top_pad_bytes: word(pad)?,
        mmap_threshold_bytes: word(threshold)?,
        n_mmaps: half(n_mmaps)?,
        mmapped_bytes: mmapped,
        thp_page_bytes: size(thp).unwrap_or_default(),
        huge_page_bytes: size(huge).unwrap_or_default(),
        sbrk_base,
    };
    // Where nothing is mapped, nothing is counted.
    ((settings.n_mmaps == 0) == (mmapped == 0)).then_some(settings)
}

fn is_threshold(bytes: u64) -> bool {
    (1 << 10..=1 << 40).contains(&bytes)
}

/// 0, or a power of two from 64 KiB to 16 GiB.
fn is_page_size(bytes: u64) -> bool {
    bytes == 0 || (bytes.is_power_of_two() && (1 << 16..=1 << 34).contains(&bytes))
}
