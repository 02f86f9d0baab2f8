//! What the starts of all variants came to.

use super::{Goal, Run, Spread, Variant};
use crate::footprint::RowKind;

/// After so many failures and no success a variant is not started again.
const MAX_FAILURES: usize = 2;

/// A start that came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which round it was, from 1.
    pub round: u32,
    /// Why.
    pub why: String,
    /// What the command printed last, as it came.
    pub last_lines: Vec<String>,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Resident bytes where it was followed to.
    Settled,
    /// The most bytes that were resident.
    Peak,
    /// Nanoseconds until it was there.
    Startup,
    /// Resident bytes of a row.
    Row(RowKind),
}

/// A variant with what its starts came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// How it is started.
    pub variant: Variant,
    /// Starts that could be measured.
    pub runs: Vec<Run>,
    /// Those that could not.
    pub failures: Vec<Failure>,
}

impl Measured {
    /// Nothing yet.
    #[must_use]
    pub fn of(variant: Variant) -> Self {
        Self { variant, ..Self::default() }
    }

    /// Whether it is of no use to start it again.
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        self.runs.is_empty() && self.failures.len() >= MAX_FAILURES
    }

    /// What its runs came to; `None` if none had that.
    #[must_use]
    pub fn spread(&self, measure: Measure) -> Option<Spread> {
        let settled = |run: &Run| run.settled.as_ref().map(|settled| settled.rss_bytes);
        let row = |run: &Run, kind| {
            run.settled.as_ref().map(|settled| settled.rows.get(&kind).copied().unwrap_or(0))
        };
        let nanoseconds =
            |run: &Run| Some(u64::try_from(run.startup?.as_nanos()).unwrap_or(u64::MAX));
        let value = |run: &Run| match measure {
            Measure::Settled => settled(run),
            Measure::Peak => Some(run.peak_rss_bytes).filter(|&bytes| bytes > 0),
            Measure::Startup => nanoseconds(run),
            Measure::Row(kind) => row(run, kind),
        };
        Spread::of(self.runs.iter().filter_map(value).collect())
    }
}

/// All variants, the plain command first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// The command.
    pub command: Vec<String>,
    /// How far each start was followed.
    pub goal: Goal,
    /// How often each was to be started.
    pub n_runs: u32,
    /// What came of it.
    pub variants: Vec<Measured>,
    /// Whether the user has ended it before all had been started.
    pub is_interrupted: bool,
}

impl Comparison {
    /// Whether all starts that were asked for could be measured.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        !self.is_interrupted && self.variants.iter().all(|variant| variant.failures.is_empty())
    }

    /// Whether any could.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.variants.iter().any(|variant| !variant.runs.is_empty())
    }

    /// The variants in the order of round `round`, from 1: each begins once, so that what changes over time, such as what
    /// is in the page cache, falls on all alike.
    #[must_use]
    pub fn order(&self, round: u32) -> Vec<usize> {
        let n = self.variants.len();
        let first = (round.saturating_sub(1) as usize).checked_rem(n).unwrap_or(0);
        (0..n).map(|at| (first + at) % n).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::trials::Settled;

    /// Runs that ended by themselves have no settled memory, and what nobody has is not there.
    #[test]
    fn what_runs_had() {
        let settled = |rss_bytes| Settled { rss_bytes, ..Settled::default() };
        let run = |startup, peak_rss_bytes, bytes: Option<u64>| Run {
            startup,
            peak_rss_bytes,
            settled: bytes.map(settled),
            ..Run::default()
        };
        let second = Some(Duration::from_secs(1));
        let runs = vec![run(second, 30, Some(20)), run(None, 50, None), run(None, 0, Some(10))];
        let measured = Measured { runs, ..Measured::default() };
        let median = |measure| measured.spread(measure).map(|spread| (spread.median, spread.n));
        assert_eq!(median(Measure::Settled), Some((15, 2)));
        assert_eq!(median(Measure::Peak), Some((40, 2)));
        assert_eq!(median(Measure::Startup), Some((1_000_000_000, 1)));
        assert_eq!(median(Measure::Row(RowKind::Gc)), Some((0, 2)));
        assert_eq!(Measured::default().spread(Measure::Peak), None);
    }

    /// Each variant is the first one in turn.
    #[test]
    fn orders() {
        let variants = vec![Measured::default(); 3];
        let comparison = Comparison {
            command: Vec::new(),
            goal: Goal::Settled,
            n_runs: 4,
            variants,
            is_interrupted: false,
        };
        let orders: Vec<Vec<usize>> = (1..5).map(|round| comparison.order(round)).collect();
        assert_eq!(orders, [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]);
    }
}
