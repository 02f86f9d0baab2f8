//! The sampled page faults of one process whose pages are still there: who made them resident.
//!
//! In: faults, and address ranges whose pages are given back. Out: the latest fault of each page that was not given back
//! since, and whether a range was given back after somebody had obtained it: then who obtained it says nothing any more.

use std::{collections::BTreeMap, ops::Range};

use super::{fold::at, regions::Regions};

const PAGE: u64 = 4096;
/// Pages that are remembered: a sample of 256 KiB each of 256 GiB.
const MAX_FAULTS: usize = 1 << 20;

/// The sampled faults of a process.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Index into the ledger's totals, by the page's address.
    by_page: BTreeMap<u64, u32>,
    /// What was given back since it was obtained: accessible regions of nobody.
    given_back: Regions,
    /// Faults that there was no room for.
    pub(super) n_not_kept: u64,
}

impl Faults {
    /// `owner` has made the page at `address` resident.
    pub(super) fn add(&mut self, address: u64, owner: u32) {
        let page = address & !(PAGE - 1);
        if self.by_page.len() >= MAX_FAULTS && !self.by_page.contains_key(&page) {
            self.n_not_kept += 1;
            return;
        }
        self.by_page.insert(page, owner);
    }

    /// The pages of a range are not resident any more.
    pub(super) fn give_back(&mut self, range: Range<u64>) {
        self.drop_pages(range.clone());
        self.given_back.map(range.start, range.end, true, None);
    }

    /// A range is obtained anew, or gone: nothing that was is of interest.
    pub(super) fn renew(&mut self, range: Range<u64>) {
        self.drop_pages(range.clone());
        self.given_back.cut(range.start, range.end);
    }

    fn drop_pages(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let pages: Vec<u64> = self.by_page.range(range).map(|(&page, _)| page).collect();
        for page in pages {
            self.by_page.remove(&page);
        }
    }

    /// Who made sampled pages of a range resident, by address.
    pub(super) fn within(&self, range: Range<u64>) -> impl Iterator<Item = (u64, u32)> {
        let range = range.start..range.end.max(range.start);
        self.by_page.range(range).map(|(&page, &owner)| (page, owner))
    }

    /// The parts of a range that were given back since they were obtained.
    pub(super) fn given_back_within(&self, range: Range<u64>) -> Vec<Range<u64>> {
        self.given_back.within(range).into_iter().map(|(range, _, _)| range).collect()
    }

    /// Owners have new numbers.
    pub(super) fn renumber(&mut self, new: &[u32]) {
        self.by_page.values_mut().for_each(|owner| *owner = at(new, *owner));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The latest counts, and none of a page that was given back.
    #[test]
    fn latest() {
        let mut faults = Faults::default();
        for (address, owner) in [(0x1234, 1), (0x1ff8, 2), (0x3000, 3), (0x5000, 4), (0x9000, 5)] {
            faults.add(address, owner);
        }
        let within = |faults: &Faults, range| faults.within(range).collect::<Vec<_>>();
        assert_eq!(within(&faults, 0x1000..0x5000), [(0x1000, 2), (0x3000, 3)]);
        faults.give_back(0x3000..0x6000);
        assert_eq!(within(&faults, 0..0x10000), [(0x1000, 2), (0x9000, 5)]);
        assert_eq!(faults.given_back_within(0x4000..0x10000), vec![0x4000..0x6000]);
        faults.add(0x4000, 6);
        faults.renew(0x4000..0x5000);
        assert_eq!(within(&faults, 0..0x10000), [(0x1000, 2), (0x9000, 5)]);
        assert_eq!(faults.given_back_within(0..0x10000), [0x3000..0x4000, 0x5000..0x6000]);
        faults.renumber(&[0, 0, 7, 0, 0, 8]);
        assert_eq!(within(&faults, 0..u64::MAX), [(0x1000, 7), (0x9000, 8)]);
    }
}
