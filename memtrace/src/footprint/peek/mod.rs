//! What lies in the pages that malloc holds and nobody uses: class files, text, what was unpacked or is encrypted.
//!
//! In: the whole pages of free chunks. Out: [`Contents`], pages by what is in them, with a few short samples. Contents are
//! secrets: this runs only where it is asked for. A page is read only if it is resident right before, so that none becomes
//! so by being looked at; of very many pages some are looked at, evenly chosen.

mod class_file;
mod classify;
mod zip;

use std::ops::Range;

pub(crate) use self::classify::{Page, classify};
use super::{
    Kind, PageTables, Resident, glibc,
    snapshot::{Content, ContentKind, Contents},
};
use crate::{
    jvm::{LiveMemory, Memory},
    target::maps::Mapping,
};

const PAGE_BYTES: u64 = 4096;
/// Pages that are looked at: 128 MiB of them.
const MAX_PAGES: u64 = 32_768;
/// Pages that are read at once.
const BATCH: usize = 64;
/// Samples of each kind.
const MAX_SAMPLES: usize = 3;

/// What lies in the free pages of `malloc`, of process `pid`.
pub(super) fn contents(
    pid: u32,
    maps: &[Mapping],
    resident: &Resident,
    tables: &PageTables,
    malloc: &glibc::Malloc,
) -> Contents {
    let split = malloc.resident();
    let pages = chosen(&malloc.free_pages, resident, MAX_PAGES);
    let mut contents = Tally::default();
    let memory = LiveMemory::new(pid);
    let mut bytes = Vec::new();
    for batch in pages.chunks(BATCH) {
        let ranges: Vec<Range<u64>> = batch.iter().map(|&page| page..page + PAGE_BYTES).collect();
        let Ok(now) = tables.read(&ranges) else { break };
        let is_there = |&page: &u64| now.bytes_in(page..page + PAGE_BYTES).anonymous == PAGE_BYTES;
        let there: Vec<u64> = batch.iter().copied().filter(is_there).collect();
        let was_read = memory.read_each(&there, PAGE_BYTES as usize, &mut bytes);
        for (page, _) in bytes.chunks(PAGE_BYTES as usize).zip(was_read).filter(|(_, was)| *was) {
            contents.add(classify(page, |address| is_mapped(maps, address)));
        }
    }
    contents.finish((split.returnable + split.kept) / PAGE_BYTES)
}

/// At most `most` of the pages of `free` that are resident, evenly chosen.
fn chosen(free: &[Range<u64>], resident: &Resident, most: u64) -> Vec<u64> {
    let runs: Vec<Range<u64>> = free
        .iter()
        .flat_map(|range| resident.runs_in(range.clone()))
        .filter(|run| run.kind == Kind::Anonymous)
        .map(|run| run.start..run.end)
        .collect();
    let n_pages: u64 = runs.iter().map(|run| (run.end - run.start) / PAGE_BYTES).sum();
    let n = n_pages.min(most);
    let (mut pages, mut before) = (Vec::with_capacity(n as usize), 0);
    let mut next = 0;
    for run in runs {
        let n_here = (run.end - run.start) / PAGE_BYTES;
        // The page after the next one is at `next * n_pages / n` in the order of all.
        while next < n && next * n_pages / n < before + n_here {
            pages.push(run.start + (next * n_pages / n - before) * PAGE_BYTES);
            next += 1;
        }
        before += n_here;
    }
    pages
}

fn is_mapped(maps: &[Mapping], address: u64) -> bool {
    let at = maps.partition_point(|mapping| mapping.end <= address);
    maps.get(at).is_some_and(|mapping| mapping.start <= address && mapping.access)
}

/// Pages by what is in them.
#[derive(Debug, Default)]
struct Tally {
    kinds: [Content; ContentKind::ALL.len()],
    n_looked_at: u64,
}

impl Tally {
    fn add(&mut self, page: Page) {
        self.n_looked_at += 1;
        let Some(content) = self.kinds.get_mut(page.kind as usize) else { return };
        content.n_pages += 1;
        if let Some(sample) = page.sample
            && content.samples.len() < MAX_SAMPLES
            && !content.samples.contains(&sample)
        {
            content.samples.push(sample);
        }
    }

    fn finish(self, n_pages: u64) -> Contents {
        let kinds = ContentKind::ALL.into_iter().zip(self.kinds);
        let kinds = kinds.map(|(kind, content)| Content { kind, ..content });
        let kinds = kinds.filter(|content| content.n_pages > 0).collect();
        // A process that goes on may have had fewer when they were counted.
        Contents { n_pages: n_pages.max(self.n_looked_at), n_looked_at: self.n_looked_at, kinds }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Run;
    use super::*;

    /// All pages of few, and an even choice of many; only those that are resident.
    #[test]
    fn choices() {
        let run = |start: u64, end: u64, kind| Run { start: start << 12, end: end << 12, kind };
        let resident = Resident::of_runs(&[
            run(0, 10, Kind::Anonymous),
            run(10, 20, Kind::Swapped),
            run(20, 1020, Kind::Anonymous),
        ]);
        let free = [5 << 12..25 << 12, 100 << 12..900 << 12];
        let pages = |most| -> Vec<u64> {
            chosen(&free, &resident, most).into_iter().map(|page| page >> 12).collect()
        };
        let all: Vec<u64> = (5..10).chain(20..25).chain(100..900).collect();
        assert_eq!(pages(5000), all);
        assert_eq!(pages(810), all);
        assert_eq!(pages(3), [all[0], all[270], all[540]]);
        assert_eq!(pages(81), (0..81).map(|n| all[10 * n]).collect::<Vec<_>>());
        assert!(pages(0).is_empty() && chosen(&[], &resident, 9).is_empty());
    }

    /// Few samples, none of them twice; kinds without a page are left out.
    #[test]
    fn tallies() {
        let mut tally = Tally::default();
        for text in ["a", "b", "a", "c", "d"] {
            tally.add(Page { kind: ContentKind::Text, sample: Some(text.to_owned()) });
        }
        tally.add(Page { kind: ContentKind::Zeros, sample: None });
        let contents = tally.finish(60);
        assert_eq!((contents.n_pages, contents.n_looked_at), (60, 6));
        let kinds: Vec<_> = contents.kinds.iter().map(|it| (it.kind, it.n_pages)).collect();
        assert_eq!(kinds, [(ContentKind::Text, 5), (ContentKind::Zeros, 1)]);
        assert_eq!(contents.kinds[0].samples, ["a", "b", "c"]);
        let bytes: Vec<u64> = contents.kinds.iter().map(|it| contents.bytes(it)).collect();
        assert_eq!(bytes, [50 << 12, 10 << 12]);
        assert_eq!(Tally::default().finish(7).n_looked_at, 0);
    }
}
