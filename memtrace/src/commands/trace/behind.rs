//! Intervals in which memtrace was behind, and blocks were told of without their stacks.

/// A pause no longer than this does not end an interval.
const JOINED_NS: u64 = 1_000_000_000;
/// Intervals that are told; of later ones the end of the last.
const MAX_TOLD: usize = 20;

/// The intervals so far.
#[derive(Debug, Default)]
pub(super) struct Behind {
    intervals: Vec<Interval>,
    /// Stacks that were left out.
    pub(super) n_left_out: u64,
}

#[derive(Clone, Copy, Debug)]
struct Interval {
    from_ns: u64,
    to_ns: u64,
    n: u64,
}

impl Behind {
    /// A stack was left out at `time_ns`.
    pub(super) fn left_out(&mut self, time_ns: u64) {
        self.n_left_out += 1;
        let is_full = self.intervals.len() >= MAX_TOLD;
        match self.intervals.last_mut() {
            Some(last) if is_full || time_ns.saturating_sub(last.to_ns) <= JOINED_NS => {
                last.to_ns = last.to_ns.max(time_ns);
                last.n += 1;
            }
            _ => self.intervals.push(Interval { from_ns: time_ns, to_ns: time_ns, n: 1 }),
        }
    }

    /// A line on each interval, in seconds since `start_ns`.
    pub(super) fn notes(&self, start_ns: u64) -> impl Iterator<Item = String> {
        self.intervals.iter().map(move |interval| {
            let seconds = |at_ns: u64| at_ns.saturating_sub(start_ns) as f64 / 1e9;
            format!(
                "memtrace was behind from {:.1} s to {:.1} s: {} calls of the allocator are told without their stacks",
                seconds(interval.from_ns),
                seconds(interval.to_ns),
                interval.n
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn intervals() {
        let mut behind = Behind::default();
        for time_ns in [10, 11, 12, 14, 14, 15].map(|time| time * SECOND) {
            behind.left_out(time_ns);
        }
        let notes: Vec<_> = behind.notes(9 * SECOND).collect();
        assert_eq!(notes.len(), 2);
        assert!(notes[0].contains("from 1.0 s to 3.0 s: 3 calls"), "{notes:?}");
        assert!(notes[1].contains("from 5.0 s to 6.0 s: 3 calls"), "{notes:?}");
        assert_eq!(behind.n_left_out, 6);
    }

    /// However often it happens, there are few lines, and all is counted.
    #[test]
    fn bounded() {
        let mut behind = Behind::default();
        (0..1_000).for_each(|n| behind.left_out(n * 3 * SECOND));
        assert_eq!(behind.notes(0).count(), MAX_TOLD);
        assert_eq!(behind.intervals.iter().map(|it| it.n).sum::<u64>(), 1_000);
        assert_eq!(behind.intervals.last().map(|it| it.to_ns), Some(999 * 3 * SECOND));
    }
}
