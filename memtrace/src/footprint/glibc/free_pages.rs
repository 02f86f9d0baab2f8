//! Where whole pages lie in free chunks, as far as walks have met them.

use std::ops::Range;

/// Ranges that are kept: beyond, every second one is let go, again and again.
const MAX_RANGES: usize = 1 << 18;

/// Ranges of whole pages, in the order in which they were met.
#[derive(Debug)]
pub(super) struct FreePages {
    ranges: Vec<Range<u64>>,
    /// One of so many is kept.
    one_of: usize,
    n_met: usize,
}

impl FreePages {
    pub(super) fn new() -> Self {
        Self { ranges: Vec::new(), one_of: 1, n_met: 0 }
    }

    pub(super) fn add(&mut self, range: Range<u64>) {
        if range.start >= range.end {
            return;
        }
        self.n_met += 1;
        if !self.n_met.is_multiple_of(self.one_of) {
            return;
        }
        if self.ranges.len() >= MAX_RANGES {
            let mut n = 0;
            self.ranges.retain(|_| {
                n += 1;
                n % 2 == 0
            });
            self.one_of *= 2;
        }
        self.ranges.push(range);
    }

    /// How many there are: what [`FreePages::cut`] goes back to.
    pub(super) fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Forgets all but the first `len`: the walk has gone back.
    pub(super) fn cut(&mut self, len: usize) {
        self.ranges.truncate(len);
    }

    /// By address, and disjoint.
    pub(super) fn sorted(mut self) -> Vec<Range<u64>> {
        self.ranges.sort_unstable_by_key(|range| range.start);
        let mut end = 0;
        self.ranges.retain(|range| {
            let is_behind = range.start >= end;
            end = end.max(range.end);
            is_behind
        });
        self.ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a walk met twice counts once, and of too many a part is kept, from everywhere.
    #[test]
    fn bounded() {
        let mut free = FreePages::new();
        free.add(0x5000..0x6000);
        let len = free.len();
        free.add(0x1000..0x3000);
        free.cut(len);
        free.add(0x1000..0x2000);
        free.add(0x2000..0x2000);
        assert_eq!(free.sorted(), [0x1000..0x2000, 0x5000..0x6000]);

        let mut free = FreePages::new();
        let n = 5 * MAX_RANGES as u64;
        (0..n).for_each(|n| free.add(n * 0x2000..n * 0x2000 + 0x1000));
        let kept = free.sorted();
        assert!((MAX_RANGES / 2..=MAX_RANGES).contains(&kept.len()), "{}", kept.len());
        let middle = kept.partition_point(|range| range.start < n * 0x1000);
        assert!(middle.abs_diff(kept.len() / 2) < kept.len() / 4, "{middle} of {}", kept.len());
    }
}
