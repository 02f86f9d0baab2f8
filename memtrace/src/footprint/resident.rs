//! The page tables' word: which pages of a process are resident.
//!
//! In: a pid and ranges of addresses. Out: sorted, disjoint runs of pages of one kind. What counts is what the kernel
//! counts as RSS: the zero page is resident nowhere, hugetlb pages are told of apart. Nothing of the target's memory is
//! read, and no lock of it is held for longer than it takes to look at 8 MiB of resident pages.

mod pagemap;
mod rest;
mod scan;
mod smaps;

use std::{cell::OnceCell, fs::File, io, ops::Range, path::PathBuf};

use thiserror::Error;

use self::rest::Rest;
use crate::target::{self, proc};

const PAGE_BYTES: u64 = 4096;
const PAGE_MASK: u64 = PAGE_BYTES - 1;
/// The end of the address space that may be a process's: 56 bits with five levels of page tables.
const USER_END: u64 = 1 << 56;

/// What a page is, for whom memory is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Present, and the process's own: anonymous memory, and copies that it made of a file's pages.
    Anonymous,
    /// Present, and a page of a file or of shared memory.
    File,
    /// Not present: its content is in swap.
    Swapped,
    /// Present, from the pool of huge pages: no part of RSS.
    Hugetlb,
}

/// Pages of one kind, without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First address.
    pub start: u64,
    /// One past the last address.
    pub end: u64,
    /// What its pages are.
    pub kind: Kind,
}

/// Bytes of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// [`Kind::Anonymous`].
    pub anonymous: u64,
    /// [`Kind::File`].
    pub file: u64,
    /// [`Kind::Swapped`].
    pub swapped: u64,
    /// [`Kind::Hugetlb`].
    pub hugetlb: u64,
}

impl Bytes {
    /// What the kernel counts as RSS.
    #[must_use]
    pub fn resident(&self) -> u64 {
        self.anonymous + self.file
    }

    /// Adds `bytes` of each kind.
    fn add_all(&mut self, bytes: Self) {
        let Self { anonymous, file, swapped, hugetlb } = bytes;
        self.anonymous += anonymous;
        self.file += file;
        self.swapped += swapped;
        self.hugetlb += hugetlb;
    }

    /// Adds `bytes` of `kind`.
    pub fn add(&mut self, kind: Kind, bytes: u64) {
        *match kind {
            Kind::Anonymous => &mut self.anonymous,
            Kind::File => &mut self.file,
            Kind::Swapped => &mut self.swapped,
            Kind::Hugetlb => &mut self.hugetlb,
        } += bytes;
    }
}

/// How the page tables were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// By the ioctl `PAGEMAP_SCAN` (Linux 6.7).
    Scan,
    /// Page by page from `/proc/PID/pagemap`.
    Pagemap,
}

/// Why the page tables can't be read.
#[derive(Debug, Error)]
pub enum ResidentError {
    /// It could not be looked at in time.
    #[error(
        "process {0} could not be looked at in time: a page of it may be waited for (userfaultfd, FUSE)"
    )]
    Late(u32),
    /// It has ended, or has no memory.
    #[error("process {0} has no memory any more")]
    Gone(u32),
    /// The right is missing.
    #[error("failed to read the page tables of process {0}: that needs root (CAP_SYS_PTRACE)")]
    NoPermission(u32),
    /// Anything else.
    #[error("failed to read the page tables of process {pid}")]
    Io {
        /// The process.
        pid: u32,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl ResidentError {
    fn of(pid: u32, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::ENOENT | libc::ESRCH) => Self::Gone(pid),
            Some(libc::EPERM | libc::EACCES) => Self::NoPermission(pid),
            _ => Self::Io { pid, source },
        }
    }
}

/// The page tables of a process, open to be read again and again.
#[derive(Debug)]
pub struct PageTables {
    pid: u32,
    folder: PathBuf,
    file: File,
    method: Method,
    rest: Rest,
    /// Mappings from the pool of huge pages, once they were asked for: to look takes longer than to read page tables, and
    /// transparent huge pages look the same there.
    hugetlb: OnceCell<Vec<Range<u64>>>,
}

impl PageTables {
    /// Those of process `pid`, read by the best method that the kernel has.
    pub fn open(pid: u32) -> Result<Self, ResidentError> {
        let folder = proc::folder(pid);
        let file = File::open(folder.join("pagemap"));
        let file = file.map_err(|source| ResidentError::of(pid, source))?;
        let method = if scan::is_known(&file) { Method::Scan } else { Method::Pagemap };
        Ok(Self { pid, folder, file, method, rest: Rest::new(), hugetlb: OnceCell::new() })
    }

    /// Whose they are.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The same by another method, to be compared.
    #[must_use]
    pub fn by(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// What is resident in `ranges` now. They may come in any order and may overlap.
    pub fn read(&self, ranges: &[Range<u64>]) -> Result<Resident, ResidentError> {
        let ranges = joined(ranges);
        let read = match self.method {
            Method::Scan => scan::read(&self.file, &ranges, &self.rest),
            Method::Pagemap => pagemap::read(&self.file, &self.folder, &ranges),
        };
        let mut found = read.map_err(|source| ResidentError::of(self.pid, source))?;
        if found.runs.is_empty() && !target::is_alive(self.pid) {
            // Page tables of a process without memory are empty, not unreadable.
            return Err(ResidentError::Gone(self.pid));
        }
        if found.is_any_huge {
            let hugetlb = self.hugetlb.get_or_init(|| smaps::hugetlb(&self.folder));
            smaps::set_apart(hugetlb, &mut found.runs);
        }
        let Found { runs, unread_bytes, unplaced, .. } = found;
        let (runs, method) = (packed(&runs), self.method);
        let mut resident = Resident { runs, total: Bytes::default(), method, unread_bytes };
        resident.total = resident.bytes_in(0..u64::MAX);
        resident.total.add_all(unplaced);
        Ok(resident)
    }
}

/// What a method found.
#[derive(Debug, Default)]
struct Found {
    runs: Vec<Run>,
    /// Whether some of it may be hugetlb.
    is_any_huge: bool,
    unread_bytes: u64,
    /// What the kernel says is resident in mappings that were not looked at to the end, and where is not known.
    unplaced: Bytes,
}

impl Found {
    /// Adds a run behind all others; an adjacent one of the same kind grows.
    fn push(&mut self, run: Run) {
        match self.runs.last_mut() {
            Some(last) if last.end == run.start && last.kind == run.kind => last.end = run.end,
            Some(last) if last.end > run.start => {}
            _ => self.runs.push(run),
        }
    }
}

/// A run in 16 bytes: a process may have millions.
#[derive(Clone, Copy, Debug)]
struct PackedRun {
    /// The first address, and below it the kind.
    start_and_kind: u64,
    end: u64,
}

impl PackedRun {
    fn run(self) -> Run {
        let kind = match self.start_and_kind & PAGE_MASK {
            0 => Kind::Anonymous,
            1 => Kind::File,
            2 => Kind::Swapped,
            _ => Kind::Hugetlb,
        };
        Run { start: self.start_and_kind & !PAGE_MASK, end: self.end, kind }
    }
}

fn packed(runs: &[Run]) -> Vec<PackedRun> {
    let pack = |run: &Run| PackedRun { start_and_kind: run.start | run.kind as u64, end: run.end };
    runs.iter().map(pack).collect()
}

/// What was resident of a process at one time.
#[derive(Clone, Debug)]
pub struct Resident {
    runs: Vec<PackedRun>,
    total: Bytes,
    method: Method,
    unread_bytes: u64,
}

impl Resident {
    /// What is resident of process `pid` in `ranges`.
    pub fn of(pid: u32, ranges: &[Range<u64>]) -> Result<Self, ResidentError> {
        PageTables::open(pid)?.read(ranges)
    }

    /// One that holds `runs`, which are sorted and disjoint.
    #[must_use]
    pub fn of_runs(runs: &[Run]) -> Self {
        let mut found = Found::default();
        runs.iter().filter(|run| run.start < run.end).for_each(|run| found.push(*run));
        let runs = packed(&found.runs);
        let mut resident =
            Self { runs, total: Bytes::default(), method: Method::Scan, unread_bytes: 0 };
        resident.total = resident.bytes_in(0..u64::MAX);
        resident
    }

    /// The runs that lie in `range`, cut at its borders.
    pub fn runs_in(&self, range: Range<u64>) -> impl Iterator<Item = Run> + '_ {
        let first = self.runs.partition_point(|run| run.end <= range.start);
        self.runs[first..].iter().map(|run| run.run()).map_while(move |run| {
            let (start, end) = (run.start.max(range.start), run.end.min(range.end));
            (start < end).then_some(Run { start, end, ..run })
        })
    }

    /// How many bytes of each kind lie in `range`.
    #[must_use]
    pub fn bytes_in(&self, range: Range<u64>) -> Bytes {
        let mut bytes = Bytes::default();
        self.runs_in(range).for_each(|run| bytes.add(run.kind, run.end - run.start));
        bytes
    }

    /// The same, for ranges that are asked for in ascending order: `from` is kept between the calls and begins as 0.
    #[must_use]
    pub fn bytes_after(&self, from: &mut usize, range: Range<u64>) -> Bytes {
        let mut bytes = Bytes::default();
        while self.runs.get(*from).is_some_and(|run| run.end <= range.start) {
            *from += 1;
        }
        for run in self.runs[(*from).min(self.runs.len())..].iter().map(|run| run.run()) {
            let (start, end) = (run.start.max(range.start), run.end.min(range.end));
            if start >= end {
                break;
            }
            bytes.add(run.kind, end - start);
        }
        bytes
    }

    /// The place to begin with in [`Resident::bytes_after`] for ranges from `address` on.
    #[must_use]
    pub fn place_of(&self, address: u64) -> usize {
        self.runs.partition_point(|run| run.end <= address)
    }

    /// Whether all pages of `range` are present.
    #[must_use]
    pub fn is_present(&self, range: Range<u64>) -> bool {
        let mut at = range.start;
        for run in self.runs_in(range.clone()) {
            if run.start > at || run.kind == Kind::Swapped {
                return false;
            }
            at = run.end;
        }
        at >= range.end
    }

    /// Bytes of each kind in all ranges, of [`Self::unread_bytes`] those that the kernel tells of, too.
    #[must_use]
    pub fn total(&self) -> Bytes {
        self.total
    }

    /// How it was read.
    #[must_use]
    pub fn method(&self) -> Method {
        self.method
    }

    /// Bytes of address space that were not looked at, as a mapping was too large for the method.
    #[must_use]
    pub fn unread_bytes(&self) -> u64 {
        self.unread_bytes
    }
}

/// `ranges` as whole pages, in order and without overlaps; ranges that touch are one. The kernel's half of the address
/// space, where `[vsyscall]` is listed, has no page tables of the process's.
fn joined(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let whole = |range: &Range<u64>| {
        let end = range.end.min(USER_END).next_multiple_of(PAGE_BYTES);
        range.start & !PAGE_MASK..end
    };
    let mut sorted: Vec<_> =
        ranges.iter().filter(|range| range.start < range.end.min(USER_END)).map(whole).collect();
    sorted.sort_unstable_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in sorted {
        match joined.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests;
