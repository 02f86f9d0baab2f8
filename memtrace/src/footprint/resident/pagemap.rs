//! Reading page tables page by page from `/proc/PID/pagemap`, on kernels before 6.7.
//!
//! A word is read for every page of a mapping, so mappings of which nothing is resident are passed over, and one that is
//! sparse is left when all has been found that the kernel says is there. Of one that is too large to be read to the end the
//! rest of what the kernel says is counted, without a place.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt, path::Path};

use super::{Bytes, Found, Kind, PAGE_BYTES, Run, smaps};

const WORD_BYTES: u64 = 8;
/// Pages that one call reads: 8 MiB of them.
const MAX_PAGES: u64 = 2048;
/// Pages that are looked at in all, 32 GiB of them in half a second; beyond, mappings are left unread.
const MAX_PAGES_IN_ALL: u64 = 8 << 20;

const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const FILE: u64 = 1 << 61;
/// A guard that a process put there (Linux 6.15).
const GUARD: u64 = 1 << 58;
const FRAME: u64 = (1 << 55) - 1;

/// What is resident in `ranges` of the process whose folder is `folder`.
pub(super) fn read(file: &File, folder: &Path, ranges: &[Range<u64>]) -> io::Result<Found> {
    let mut found = Found::default();
    let zero_frame = zero_frame();
    let mut n_left = MAX_PAGES_IN_ALL;
    let mut mappings = smaps::read(folder)?;
    // What may be left unread are the largest.
    mappings.sort_by_key(|mapping| mapping.end - mapping.start);
    let mut runs = Vec::new();
    for mapping in mappings {
        if mapping.rss_bytes == 0 && mapping.swap_bytes == 0 && !mapping.is_hugetlb {
            continue;
        }
        found.is_any_huge |= mapping.is_hugetlb;
        let first = ranges.partition_point(|range| range.end <= mapping.start);
        let overlapping = ranges[first..].iter().take_while(|range| range.start < mapping.end);
        let (n_unread, mut asked_bytes) = (found.unread_bytes, 0);
        for range in overlapping {
            let range = range.start.max(mapping.start)..range.end.min(mapping.end);
            asked_bytes += range.end - range.start;
            read_range(file, &range, &mapping, zero_frame, &mut n_left, &mut found)?;
        }
        // The kernel's numbers are of the whole mapping.
        if found.unread_bytes > n_unread && asked_bytes == mapping.end - mapping.start {
            found.unplaced.add_all(rest(&mapping, &found.runs));
        }
        runs.append(&mut found.runs);
    }
    runs.sort_unstable_by_key(|run| run.start);
    runs.into_iter().for_each(|run| found.push(run));
    Ok(found)
}

fn read_range(
    file: &File,
    range: &Range<u64>,
    mapping: &smaps::Mapping,
    zero_frame: Option<u64>,
    n_left: &mut u64,
    found: &mut Found,
) -> io::Result<()> {
    let mut words = vec![0; (MAX_PAGES * WORD_BYTES) as usize];
    let (mut start, mut missing) = (range.start, mapping.rss_bytes + mapping.swap_bytes);
    while start < range.end && (missing > 0 || mapping.is_hugetlb) {
        if *n_left == 0 {
            found.unread_bytes += range.end - start;
            return Ok(());
        }
        let n = ((range.end - start) / PAGE_BYTES).min(MAX_PAGES).min(*n_left);
        *n_left -= n;
        let words = &mut words[..(n * WORD_BYTES) as usize];
        file.read_exact_at(words, start / PAGE_BYTES * WORD_BYTES)?;
        for (at, word) in (start..).step_by(PAGE_BYTES as usize).zip(words.chunks_exact(8)) {
            let word = word.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
            let Some(kind) = kind(word, zero_frame) else { continue };
            found.push(Run { start: at, end: at + PAGE_BYTES, kind });
            missing = missing.saturating_sub(PAGE_BYTES);
        }
        start += n * PAGE_BYTES;
    }
    Ok(())
}

/// What the kernel says is there of `mapping`, without its `runs` that were found.
fn rest(mapping: &smaps::Mapping, runs: &[Run]) -> Bytes {
    let mut found = Bytes::default();
    runs.iter().for_each(|run| found.add(run.kind, run.end - run.start));
    let file_bytes = mapping.rss_bytes.saturating_sub(mapping.anonymous_bytes);
    Bytes {
        anonymous: mapping.anonymous_bytes.saturating_sub(found.anonymous),
        file: file_bytes.saturating_sub(found.file),
        swapped: mapping.swap_bytes.saturating_sub(found.swapped),
        hugetlb: 0,
    }
}

fn kind(word: u64, zero_frame: Option<u64>) -> Option<Kind> {
    if word & GUARD != 0 {
        None
    } else if word & SWAPPED != 0 {
        Some(Kind::Swapped)
    } else if word & PRESENT == 0 || zero_frame == Some(word & FRAME) {
        None
    } else if word & FILE != 0 {
        Some(Kind::File)
    } else {
        Some(Kind::Anonymous)
    }
}

/// The number of the page that stands for all that was only read: pagemap does not mark it, so it is looked up where one
/// of memtrace's own pages was only read. Without CAP_SYS_ADMIN numbers are hidden; then it counts as anonymous.
fn zero_frame() -> Option<u64> {
    let page = memmap2::MmapOptions::new().len(PAGE_BYTES as usize).map_anon().ok()?;
    let is_zero = std::hint::black_box(&page)[0] == 0;
    let own = File::open("/proc/self/pagemap").ok().filter(|_| is_zero)?;
    let mut word = [0; 8];
    own.read_exact_at(&mut word, page.as_ptr() as u64 / PAGE_BYTES * WORD_BYTES).ok()?;
    let word = u64::from_le_bytes(word);
    Some(word & FRAME).filter(|&frame| word & PRESENT != 0 && frame != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        // (word, kind), with frame 7 as the zero page
        let cases = [
            (0, None),
            (PRESENT | 1 << 56 | 9, Some(Kind::Anonymous)),
            (PRESENT | 7, None),
            (PRESENT | FILE | 9, Some(Kind::File)),
            (SWAPPED | 7, Some(Kind::Swapped)),
            (SWAPPED | GUARD, None),
        ];
        for (word, want) in cases {
            assert_eq!(kind(word, Some(7)), want, "{word:x}");
        }
        assert_eq!(kind(PRESENT | 7, None), Some(Kind::Anonymous));
    }
}
