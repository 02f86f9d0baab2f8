//! Ranges of addresses with a label each, laid over each other: the first one counts.
//!
//! In: labelled ranges, the surest first. Out: disjoint ranges in the order of addresses.

use std::{collections::BTreeMap, ops::Range};

/// Labelled ranges, disjoint.
#[derive(Clone, Debug)]
pub(super) struct Labels<L> {
    /// By first address: one past the last one, and the label.
    ranges: BTreeMap<u64, (u64, L)>,
}

impl<L: Copy> Labels<L> {
    pub(super) fn new() -> Self {
        Self { ranges: BTreeMap::new() }
    }

    /// Puts `label` on what of `range` has none.
    pub(super) fn add(&mut self, range: Range<u64>, label: L) {
        for piece in self.free_in(range) {
            self.ranges.insert(piece.start, (piece.end, label));
        }
    }

    /// What of `range` has no label.
    pub(super) fn free_in(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let (mut free, mut at) = (Vec::new(), range.start);
        if range.start >= range.end {
            return free;
        }
        if let Some((_, &(end, _))) = self.ranges.range(..=range.start).next_back() {
            at = at.max(end);
        }
        for (&start, &(end, _)) in self.ranges.range(range.clone()) {
            if at < start {
                free.push(at..start);
            }
            at = at.max(end);
        }
        if at < range.end {
            free.push(at..range.end);
        }
        free
    }

    /// The labelled ranges in the order of addresses.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Range<u64>, L)> + '_ {
        self.ranges.iter().map(|(&start, &(end, label))| (start..end, label))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes later fills only what is free, and no byte has two labels.
    #[test]
    fn the_first_one_counts() {
        // (ranges with labels, what becomes of them)
        type Ranges = &'static [(u64, u64, char)];
        let cases: [(Ranges, Ranges); 6] = [
            (&[], &[]),
            (&[(10, 20, 'a'), (5, 30, 'b')], &[(5, 10, 'b'), (10, 20, 'a'), (20, 30, 'b')]),
            (&[(10, 20, 'a'), (12, 18, 'b')], &[(10, 20, 'a')]),
            (&[(10, 20, 'a'), (10, 25, 'b')], &[(10, 20, 'a'), (20, 25, 'b')]),
            (
                &[(10, 20, 'a'), (30, 40, 'b'), (0, 50, 'c')],
                &[(0, 10, 'c'), (10, 20, 'a'), (20, 30, 'c'), (30, 40, 'b'), (40, 50, 'c')],
            ),
            (&[(20, 10, 'a'), (7, 7, 'b'), (0, u64::MAX, 'c')], &[(0, u64::MAX, 'c')]),
        ];
        for (ranges, want) in cases {
            let mut labels = Labels::new();
            ranges.iter().for_each(|&(start, end, label)| labels.add(start..end, label));
            let found: Vec<_> =
                labels.iter().map(|(range, label)| (range.start, range.end, label)).collect();
            assert_eq!(found, want, "{ranges:?}");
        }
    }
}
