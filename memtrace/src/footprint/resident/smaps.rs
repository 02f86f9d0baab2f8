//! What `/proc/PID/smaps` says of each mapping, as far as page tables don't.

use std::{fs::File, io, io::Read, ops::Range, path::Path};

use super::{Kind, PAGE_BYTES, Run};

/// What is read of it: some 700 bytes for each of the mappings that a kernel has room for by default.
const MAX_BYTES: u64 = 128 << 20;

/// One mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) rss_bytes: u64,
    /// Of these, the process's own.
    pub(super) anonymous_bytes: u64,
    pub(super) swap_bytes: u64,
    /// Whether its pages are from the pool of huge pages, which RSS does not count.
    pub(super) is_hugetlb: bool,
}

/// The mappings of the process whose folder is `folder`, by address.
pub(super) fn read(folder: &Path) -> io::Result<Vec<Mapping>> {
    let mut bytes = Vec::new();
    File::open(folder.join("smaps"))?.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(parse(&bytes))
}

fn parse(text: &[u8]) -> Vec<Mapping> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in text.split(|&byte| byte == b'\n') {
        // File names may be anything, but stand at the end of a line that begins with a range.
        let line = String::from_utf8_lossy(line);
        let mut words = line.split_ascii_whitespace();
        let Some(first) = words.next() else { continue };
        if let Some((start, end)) = range(first) {
            mappings.push(Mapping { start, end, ..Mapping::default() });
            continue;
        }
        let Some(mapping) = mappings.last_mut() else { continue };
        let bytes =
            words.next().and_then(|word| word.parse::<u64>().ok()).unwrap_or_default() * 1024;
        match first {
            "Rss:" => mapping.rss_bytes = bytes,
            "Anonymous:" => mapping.anonymous_bytes = bytes,
            "Swap:" => mapping.swap_bytes = bytes,
            "KernelPageSize:" => mapping.is_hugetlb = bytes > PAGE_BYTES,
            _ => {}
        }
    }
    mappings
}

fn range(word: &str) -> Option<(u64, u64)> {
    let (start, end) = word.split_once('-')?;
    let hex = |text| u64::from_str_radix(text, 16).ok();
    Some((hex(start)?, hex(end)?)).filter(|(start, end)| start < end)
}

/// The mappings from the pool of huge pages; none where smaps can't be read.
pub(super) fn hugetlb(folder: &Path) -> Vec<Range<u64>> {
    let mappings = read(folder).unwrap_or_default().into_iter();
    mappings
        .filter(|mapping| mapping.is_hugetlb)
        .map(|mapping| mapping.start..mapping.end)
        .collect()
}

/// Gives pages of the mappings `hugetlb` among `runs` their own kind.
pub(super) fn set_apart(hugetlb: &[Range<u64>], runs: &mut Vec<Run>) {
    if hugetlb.is_empty() {
        return;
    }
    let mut parted = Vec::with_capacity(runs.len() + 2 * hugetlb.len());
    for &run in &*runs {
        let first = hugetlb.partition_point(|mapping| mapping.end <= run.start);
        let mut at = run.start;
        for mapping in hugetlb[first..].iter().take_while(|mapping| mapping.start < run.end) {
            let (start, end) = (mapping.start.max(at), mapping.end.min(run.end));
            parted.extend((at < start).then_some(Run { start: at, end: start, ..run }));
            parted.push(Run { start, end, kind: Kind::Hugetlb });
            at = end;
        }
        parted.extend((at < run.end).then_some(Run { start: at, ..run }));
    }
    *runs = parted;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names that look like values, or are no text, spoil nothing.
    #[test]
    fn lines() {
        let text = b"1000-3000 rw-p 00000000 00:00 0 \nSize: 8 kB\nKernelPageSize:        4 kB\nRss:                   4 kB\nAnonymous:             4 kB\nSwap:                 12 kB\n\
            200000-600000 rw-s 00000000 00:0f 7  /anon_\xffhugepage Rss: 9 kB\nKernelPageSize:     2048 kB\nRss: 0 kB\nVmFlags: rd wr ht\n";
        let plain = Mapping {
            start: 0x1000,
            end: 0x3000,
            rss_bytes: 4096,
            anonymous_bytes: 4096,
            swap_bytes: 12288,
            is_hugetlb: false,
        };
        let huge =
            Mapping { start: 0x20_0000, end: 0x60_0000, is_hugetlb: true, ..Mapping::default() };
        assert_eq!(parse(text), [plain, huge]);
        assert_eq!(parse(b"Rss: 4 kB\n\n3-1 x\n"), []);
    }
}
