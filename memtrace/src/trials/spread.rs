//! What several runs came to: their median, and how far apart they are.

/// Numbers of several runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    /// The one in the middle, or the mean of the two that are there.
    pub median: u64,
    /// The least.
    pub lowest: u64,
    /// The most.
    pub highest: u64,
    /// How many.
    pub n: usize,
}

/// How a variant differs from the plain command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The difference of the medians.
    pub change: i128,
    /// Whether it is larger than the runs of either are apart; `None` where one of them has one run only.
    pub is_larger_than_spread: Option<bool>,
}

impl Spread {
    /// That of `values`; `None` of nothing.
    #[must_use]
    pub fn of(mut values: Vec<u64>) -> Option<Self> {
        values.sort_unstable();
        let (&lowest, &highest) = (values.first()?, values.last()?);
        let n = values.len();
        let middle = &values[(n - 1) / 2..=n / 2];
        let median =
            middle.iter().map(|&value| u128::from(value)).sum::<u128>() / middle.len() as u128;
        Some(Self { median: u64::try_from(median).unwrap_or(u64::MAX), lowest, highest, n })
    }

    /// How far apart they are.
    #[must_use]
    pub fn width(&self) -> u64 {
        self.highest - self.lowest
    }

    /// How this differs from `plain`.
    #[must_use]
    pub fn against(&self, plain: &Self) -> Difference {
        let change = i128::from(self.median) - i128::from(plain.median);
        let width = self.width().max(plain.width());
        let is_known = self.n > 1 && plain.n > 1;
        let is_larger = change.unsigned_abs() > u128::from(width);
        Difference { change, is_larger_than_spread: is_known.then_some(is_larger) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        // (values, median, lowest, highest)
        type Case = (&'static [u64], (u64, u64, u64));
        let cases: [Case; 4] = [
            (&[7], (7, 7, 7)),
            (&[9, 1], (5, 1, 9)),
            (&[9, 1, 2], (2, 1, 9)),
            (&[u64::MAX, u64::MAX], (u64::MAX, u64::MAX, u64::MAX)),
        ];
        for (values, expected) in cases {
            let spread = Spread::of(values.to_vec()).unwrap();
            assert_eq!((spread.median, spread.lowest, spread.highest), expected, "{values:?}");
        }
        assert_eq!(Spread::of(Vec::new()), None);
    }

    /// A difference counts if the runs of neither are as far apart.
    #[test]
    fn differences() {
        // (plain, other, change, larger than the spread)
        type Case = (&'static [u64], &'static [u64], i128, Option<bool>);
        let cases: [Case; 5] = [
            (&[100, 104], &[80, 83], -21, Some(true)),
            (&[100, 120], &[80, 110], -15, Some(false)),
            (&[100, 102], &[102, 104], 2, Some(false)),
            (&[100, 100], &[101, 101], 1, Some(true)),
            (&[100], &[10, 10], -90, None),
        ];
        for (plain, other, change, is_larger_than_spread) in cases {
            let [plain, other] = [plain, other].map(|values| Spread::of(values.to_vec()).unwrap());
            let expected = Difference { change, is_larger_than_spread };
            assert_eq!(other.against(&plain), expected, "{plain:?} {other:?}");
        }
    }
}
