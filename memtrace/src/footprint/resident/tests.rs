//! Page tables against what the kernel itself adds up.

use std::{fs, process::Command};

use memtrace_tests::{fixtures::built, subject::Subject};

use super::*;
use crate::target::maps;

fn run(start: u64, end: u64, kind: Kind) -> Run {
    Run { start, end, kind }
}

fn ranges_of(pid: u32) -> Vec<Range<u64>> {
    maps::read(pid).unwrap().iter().map(|mapping| mapping.start..mapping.end).collect()
}

/// A field of `/proc/PID/smaps_rollup` in bytes.
fn rollup(pid: u32, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_ascii_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

/// Runs are cut at the borders of what is asked for.
#[test]
fn cuts() {
    let resident = Resident::of_runs(&[
        run(0x1000, 0x4000, Kind::Anonymous),
        run(0x4000, 0x6000, Kind::File),
        run(0x8000, 0x9000, Kind::Swapped),
        run(0x9000, 0xa000, Kind::Hugetlb),
    ]);
    // (range, anonymous, file, swapped, hugetlb)
    let cases = [
        (0..u64::MAX, 0x3000, 0x2000, 0x1000, 0x1000),
        (0x3000..0x5000, 0x1000, 0x1000, 0, 0),
        (0x3800..0x3900, 0x100, 0, 0, 0),
        (0x6000..0x8000, 0, 0, 0, 0),
        (0x8800..0x9800, 0, 0, 0x800, 0x800),
        (0x5000..0x5000, 0, 0, 0, 0),
    ];
    for (range, anonymous, file, swapped, hugetlb) in cases {
        let want = Bytes { anonymous, file, swapped, hugetlb };
        assert_eq!(resident.bytes_in(range.clone()), want, "{range:x?}");
    }
    assert_eq!(resident.total().resident(), 0x5000);
}

/// Ranges in any order become whole pages without overlaps.
#[test]
fn ranges_are_joined() {
    let ranges = [0x5000..0x6001, 0x1000..0x2000, 0x2000..0x2001, 0x9..0x9, 0x1800..0x1900];
    assert_eq!(joined(&ranges), [0x1000..0x3000, 0x5000..0x7000]);
}

/// Both methods find, of a stopped process, what the kernel adds up, to the byte; pages that were only read, guards, and
/// a mapping of 64 TB in which few pages are resident included.
#[test]
fn equal_to_rss() {
    let mut subject = Subject::ready(&built("residency"), &[]);
    let said = subject.finish();
    subject.signal(libc::SIGSTOP);
    let pid = subject.pid();
    for method in [Method::Scan, Method::Pagemap] {
        let tables = PageTables::open(pid).unwrap();
        if method == Method::Scan && tables.method != Method::Scan {
            memtrace_tests::skip::skip("resident::equal_to_rss", "no PAGEMAP_SCAN on this kernel");
            continue;
        }
        let resident = tables.by(method).read(&ranges_of(pid)).unwrap();
        assert_eq!(resident.method(), method);
        let total = resident.total();
        let seen = (total.resident(), total.anonymous, total.swapped);
        let want = (rollup(pid, "Rss:"), rollup(pid, "Anonymous:"), rollup(pid, "Swap:"));
        // A mapping of which the kernel says how much is resident, but not where, is looked through up to a bound.
        let sparse = said.number("sparse");
        let is_sparse_unread = resident.unread_bytes() > 0;
        assert_eq!(is_sparse_unread, method == Method::Pagemap, "{method:?}");
        assert_eq!(seen, want, "{method:?}");
        // What is counted without a place.
        let unread = if is_sparse_unread { 2 * PAGE_BYTES } else { 0 };
        let in_sparse = resident.bytes_in(sparse..sparse + (64 << 40)).anonymous;
        assert_eq!(in_sparse, 3 * PAGE_BYTES - unread, "{method:?}");
        // (what the fixture mapped, its pages, pages that are resident)
        for (name, n_pages, n_resident) in [
            ("written", 1000, 1000),
            ("holes", 4000, 2000),
            ("only_read", 64, 0),
            ("guards", 64, 32),
        ] {
            let at = said.number(name);
            let bytes = resident.bytes_in(at..at + n_pages * PAGE_BYTES);
            let want = Bytes { anonymous: n_resident * PAGE_BYTES, ..Bytes::default() };
            assert_eq!(bytes, want, "{name} {method:?}");
        }
    }
}

/// What can't be read says why.
#[test]
fn errors() {
    let gone = PageTables::open(u32::MAX - 1).unwrap_err();
    assert!(matches!(gone, ResidentError::Gone(_)), "{gone}");
    let mut child = Command::new("sleep").arg("100").spawn().unwrap();
    let tables = PageTables::open(child.id()).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let gone = tables.read(&[0..1 << 45, 1 << 45..1 << 46]).unwrap_err();
    assert!(matches!(gone, ResidentError::Gone(_)), "{gone}");
    for (errno, want) in [(libc::EPERM, true), (libc::EACCES, true), (libc::EIO, false)] {
        let error = ResidentError::of(7, io::Error::from_raw_os_error(errno));
        assert_eq!(matches!(error, ResidentError::NoPermission(7)), want, "{error}");
    }
}

/// A scan makes nothing resident.
#[test]
fn changes_nothing() {
    let mut subject = Subject::ready(&built("residency"), &[]);
    subject.finish();
    let pid = subject.pid();
    let before = rollup(pid, "Rss:");
    Resident::of(pid, &ranges_of(pid)).unwrap();
    assert_eq!(rollup(pid, "Rss:"), before);
}
