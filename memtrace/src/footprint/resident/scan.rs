//! Reading page tables with the ioctl `PAGEMAP_SCAN`.
//!
//! The kernel holds the target's lock while it walks, so it is asked for 8 MiB of resident pages at a time. Source facts:
//! fs/proc/task_mmu.c and include/uapi/linux/fs.h of Linux 6.7 to 6.18.

use std::{fs::File, io, ops::Range, os::fd::AsRawFd};

use super::{Found, Kind, PAGE_BYTES, Run, rest::Rest};

/// `_IOWR('f', 16, struct pm_scan_arg)`.
const PAGEMAP_SCAN: libc::Ioctl = 0xc060_6610_u32 as libc::Ioctl;

const PAGE_IS_FILE: u64 = 1 << 2;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;
const PAGE_IS_PFNZERO: u64 = 1 << 5;
const PAGE_IS_HUGE: u64 = 1 << 6;
/// A guard that a process put there (Linux 6.15); it is told of as swapped, too.
const PAGE_IS_GUARD: u64 = 1 << 8;

/// Regions that one call can tell of.
const MAX_REGIONS: usize = 512;
/// Pages that one call looks for: 8 MiB.
const MAX_PAGES: u64 = 2048;

/// `struct page_region`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
}

/// `struct pm_scan_arg`.
#[repr(C)]
#[derive(Default)]
struct PmScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// Whether the kernel has it.
pub(super) fn is_known(file: &File) -> bool {
    let error = call(file, &(0..PAGE_BYTES), 0, &mut []).err();
    !error.is_some_and(|error| matches!(error.raw_os_error(), Some(libc::ENOTTY | libc::EINVAL)))
}

/// What is resident in `ranges`.
pub(super) fn read(file: &File, ranges: &[Range<u64>], rest: &Rest) -> io::Result<Found> {
    let mut found = Found::default();
    let mut regions = vec![PageRegion::default(); MAX_REGIONS];
    // Kernels before 6.15 know no guards, and refuse the word.
    let knows_guards = call(file, &(0..PAGE_BYTES), PAGE_IS_GUARD, &mut []).is_ok();
    let unwanted = if knows_guards { PAGE_IS_GUARD } else { 0 };
    for range in ranges {
        let mut start = range.start;
        while start < range.end {
            let (n, walk_end) = call(file, &(start..range.end), unwanted, &mut regions)?;
            rest.if_due();
            regions[..n].iter().for_each(|region| add(&mut found, region));
            let n_pages: u64 =
                regions[..n].iter().map(|region| (region.end - region.start) / PAGE_BYTES).sum();
            let last_end = regions[..n].last().map_or(start, |region| region.end);
            // `walk_end` is stale after a whole walk of more than 512 regions: that it is over is told by there being
            // room for more.
            let is_over = n < MAX_REGIONS && n_pages < MAX_PAGES;
            let next = walk_end.max(last_end);
            if is_over || next <= start {
                break;
            }
            start = next;
        }
    }
    Ok(found)
}

fn add(found: &mut Found, region: &PageRegion) {
    let kind = if region.categories & PAGE_IS_SWAPPED != 0 {
        Kind::Swapped
    } else if region.categories & PAGE_IS_FILE != 0 {
        Kind::File
    } else {
        Kind::Anonymous
    };
    found.is_any_huge |= region.categories & PAGE_IS_HUGE != 0;
    if region.start < region.end {
        found.push(Run { start: region.start, end: region.end, kind });
    }
}

/// One call: how many regions it told of, and where it says that it ended.
fn call(
    file: &File,
    range: &Range<u64>,
    unwanted: u64,
    regions: &mut [PageRegion],
) -> io::Result<(usize, u64)> {
    let unwanted = unwanted | PAGE_IS_PFNZERO;
    let mut arg = PmScanArg {
        size: size_of::<PmScanArg>() as u64,
        start: range.start,
        end: range.end,
        vec: if regions.is_empty() { 0 } else { regions.as_mut_ptr() as u64 },
        vec_len: regions.len() as u64,
        max_pages: if regions.is_empty() { 0 } else { MAX_PAGES },
        category_inverted: unwanted,
        category_mask: unwanted,
        category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
        return_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED | PAGE_IS_FILE | PAGE_IS_HUGE,
        ..PmScanArg::default()
    };
    // SAFETY: `arg` is of the size that it says; the kernel writes at most `vec_len` regions to `vec`, which is `regions`
    // and borrowed exclusively here.
    let n = unsafe { libc::ioctl(file.as_raw_fd(), PAGEMAP_SCAN, &raw mut arg) };
    match usize::try_from(n) {
        Ok(n) => Ok((n.min(regions.len()), arg.walk_end)),
        Err(_) => Err(io::Error::last_os_error()),
    }
}
