//! Medians and how far they can be trusted.
//!
//! In: one ratio per pair of runs. Out: their median and a 95 % interval of it.
//! The interval is made of order statistics: between the k-th smallest and the k-th largest
//! ratio lies the true median, unless fewer than k of n ratios fell on one side of it, which has
//! the probability of so few heads among n coins. That supposes nothing about how run times are
//! distributed, and draws no random numbers. Fewer than 6 pairs have no such interval.

/// A median and what is known about it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Estimate {
    /// The median of the ratios.
    pub(crate) median: f64,
    /// The 95 % interval, if there are enough ratios for one.
    pub(crate) interval: Option<(f64, f64)>,
    /// The smallest and the largest ratio.
    pub(crate) range: (f64, f64),
    /// How many ratios.
    pub(crate) n_pairs: usize,
}

impl Estimate {
    /// The estimate from ratios in any order; none of nothing.
    pub(crate) fn of(ratios: &[f64]) -> Option<Self> {
        let sorted = sorted(ratios);
        let n = sorted.len();
        let range = (*sorted.first()?, *sorted.last()?);
        let interval = rank(n).map(|k| (sorted[k - 1], sorted[n - k]));
        Some(Self { median: median(&sorted)?, interval, range, n_pairs: n })
    }

    /// Whether the interval reaches at most `half_width` to either side.
    ///
    /// Measured from the median, since the interval need not be symmetric.
    pub(crate) fn is_within(&self, half_width: f64) -> bool {
        self.interval.is_some_and(|(low, high)| {
            self.median - low <= half_width && high - self.median <= half_width
        })
    }
}

/// The middle value, or the mean of the two middle ones.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let sorted = sorted(values);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = sorted[(sorted.len() - 1) / 2];
    Some(lower + (upper - lower) / 2.0)
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The largest k for which fewer than k heads among `n` coins have a probability of at most 2.5 %.
fn rank(n: usize) -> Option<usize> {
    let mut probability = 0.5_f64.powi(i32::try_from(n).ok()?);
    let mut fewer = 0.0;
    for k in 0..=n / 2 {
        fewer += probability;
        if fewer > 0.025 {
            return (k > 0).then_some(k);
        }
        probability *= (n - k) as f64 / (k + 1) as f64;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let cases: [(&[f64], Option<f64>); 4] = [
            (&[], None),
            (&[3.0], Some(3.0)),
            (&[9.0, 1.0, 2.0], Some(2.0)),
            (&[4.0, 1.0, 2.0, 9.0], Some(3.0)),
        ];
        for (values, want) in cases {
            assert_eq!(median(values), want, "{values:?}");
        }
    }

    /// The ranks that tables of the sign test give at 95 %.
    #[test]
    fn ranks() {
        let cases = [
            (0, None),
            (1, None),
            (5, None),
            (6, Some(1)),
            (8, Some(1)),
            (9, Some(2)),
            (12, Some(3)),
            (15, Some(4)),
            (20, Some(6)),
            (25, Some(8)),
            (40, Some(14)),
        ];
        for (n, want) in cases {
            assert_eq!(rank(n), want, "{n}");
        }
    }

    /// The interval of 9 values leaves one out on each side; that of 3 does not exist.
    #[test]
    fn intervals() {
        let nine: Vec<f64> = (1..=9).rev().map(f64::from).collect();
        let estimate = Estimate::of(&nine).unwrap();
        let want =
            Estimate { median: 5.0, interval: Some((2.0, 8.0)), range: (1.0, 9.0), n_pairs: 9 };
        assert_eq!(estimate, want);
        assert!(estimate.is_within(3.0) && !estimate.is_within(2.9));
        let three = Estimate::of(&[1.0, 1.0, 1.0]).unwrap();
        assert_eq!(three.interval, None);
        assert!(!three.is_within(1.0), "three pairs prove nothing");
        assert_eq!(Estimate::of(&[]), None);
    }
}
