//! Bytes in live blocks, by stack, at a few moments of the run.
//!
//! In: at each moment that is due, what stacks hold. Out: what a stack held at moments evenly spread over the run. However
//! long the run, memory is bounded: when there are enough moments only every second one stays, and of each only the stacks
//! that hold the most are kept.

use std::{cmp::Reverse, mem};

use crate::stacks::StackId;

/// Moments that are kept.
const MAX_POINTS: usize = 32;
/// Between two moments, at first.
const MIN_STEP_NS: u64 = 125_000_000;
/// Stacks that are kept of a moment.
const MAX_STACKS: usize = 4096;

/// What stacks held over time.
#[derive(Debug)]
pub(super) struct LiveOverTime {
    points: Vec<Point>,
    step_ns: u64,
    begin_ns: Option<u64>,
    /// The next moment, in steps since the begin.
    next: u64,
}

/// What stacks held at one moment.
#[derive(Debug)]
struct Point {
    /// The moment, in steps since the begin.
    step: u64,
    /// In the order of the stacks.
    held: Vec<(StackId, u64)>,
}

impl Default for LiveOverTime {
    fn default() -> Self {
        Self { points: Vec::new(), step_ns: MIN_STEP_NS, begin_ns: None, next: 1 }
    }
}

impl LiveOverTime {
    /// Whether a moment has come, or several, since which nothing happened before `time_ns`.
    pub(super) fn is_due(&mut self, time_ns: u64) -> bool {
        let begin_ns = *self.begin_ns.get_or_insert(time_ns);
        time_ns.saturating_sub(begin_ns) / self.step_ns >= self.next
    }

    /// Takes note of what stacks hold before what happens at `time_ns`.
    pub(super) fn push(&mut self, time_ns: u64, mut held: Vec<(StackId, u64)>) {
        held.sort_unstable_by_key(|&(stack, bytes)| (Reverse(bytes), stack));
        held.truncate(MAX_STACKS);
        held.sort_unstable();
        held.shrink_to_fit();
        // It was so since the moment that was due first.
        self.points.push(Point { step: self.next, held });
        // Where moments have gaps between them it may take more than once until two meet.
        while self.points.len() > MAX_POINTS {
            self.double_step();
        }
        self.next = time_ns.saturating_sub(self.begin_ns.unwrap_or(time_ns)) / self.step_ns + 1;
    }

    /// Only every second moment is left: what was held at another was held at the next that is left, too, unless more is
    /// known of that one.
    fn double_step(&mut self) {
        self.step_ns = self.step_ns.saturating_mul(2);
        self.points.iter_mut().for_each(|point| point.step = point.step.div_ceil(2));
        self.points.dedup_by(|later, kept| {
            let is_same = later.step == kept.step;
            if is_same {
                mem::swap(later, kept);
            }
            is_same
        });
    }

    /// What `stack` held at the ends of `N` equal parts of the time up to `end_ns`, and how long a part is; `now` is what
    /// it holds at the last. `None` if the run was too short to say.
    pub(super) fn of<const N: usize>(
        &self,
        stack: StackId,
        end_ns: u64,
        now: u64,
    ) -> Option<[u64; N]> {
        let run_ns = self.run_ns(end_ns);
        if run_ns / MIN_STEP_NS < N as u64 / 4 {
            return None;
        }
        let mut values = [now; N];
        let n = N as u128;
        for (part, value) in (1..n).zip(&mut values) {
            let step = u128::from(run_ns) * part / n / u128::from(self.step_ns);
            let n_until = self.points.partition_point(|point| u128::from(point.step) <= step);
            let point = n_until.checked_sub(1).and_then(|last| self.points.get(last));
            *value = point.map_or(0, |point| point.of(stack));
        }
        Some(values)
    }

    /// From the first block to `end_ns`, in nanoseconds.
    pub(super) fn run_ns(&self, end_ns: u64) -> u64 {
        end_ns.saturating_sub(self.begin_ns.unwrap_or(end_ns))
    }
}

impl Point {
    fn of(&self, stack: StackId) -> u64 {
        let at = self.held.binary_search_by_key(&stack, |&(stack, _)| stack);
        at.ok().and_then(|at| self.held.get(at)).map_or(0, |&(_, bytes)| bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    /// A stack that holds as many bytes as nanoseconds are over, asked now and then.
    fn grows(until_s: u64, every_ns: u64) -> LiveOverTime {
        let mut over_time = LiveOverTime::default();
        for time_ns in (0..=until_s * S).step_by(every_ns as usize) {
            if over_time.is_due(time_ns) {
                over_time.push(time_ns, vec![(StackId(7), time_ns)]);
            }
        }
        over_time
    }

    /// However long it takes, the moments are few and spread over the whole time.
    #[test]
    fn evenly_spread() {
        // (seconds, milliseconds from event to event)
        let every = [20, 250].map(|ms| [4, 5, 60, 100_000].map(|until_s| (until_s, ms)));
        for (until_s, ms) in every.into_iter().flatten() {
            let every_ns = ms * S / 1000;
            let over_time = grows(until_s, every_ns);
            assert!(over_time.points.len() <= MAX_POINTS);
            let values: [u64; 16] = over_time.of(StackId(7), until_s * S, until_s * S).unwrap();
            for (index, value) in values.into_iter().enumerate() {
                let exact = (index as u64 + 1) * until_s * S / 16;
                let about = format!("{until_s} s, {ms} ms: {index} {value} {exact}");
                assert!(exact.abs_diff(value) <= over_time.step_ns.max(every_ns), "{about}");
            }
            assert_eq!(over_time.of(StackId(8), until_s * S, 0), Some([0; 16]));
        }
    }

    /// Where nothing happens for long, what was held before is held all the time.
    #[test]
    fn silence() {
        let mut over_time = grows(10, S / 10);
        let time_ns = 1000 * S;
        assert!(over_time.is_due(time_ns));
        over_time.push(time_ns, vec![(StackId(7), 77)]);
        assert_eq!(over_time.of(StackId(7), time_ns, 5), Some([77, 77, 77, 5]));
        assert!(!over_time.is_due(time_ns));
        // Time may be anything in a damaged trace.
        assert!(over_time.is_due(u64::MAX));
        over_time.push(u64::MAX, vec![]);
        assert_eq!(over_time.of(StackId(7), u64::MAX, 5), Some([0, 0, 0, 5]));
    }

    /// Every moment but the first is known, also where no even one was ever due.
    #[test]
    fn odd_moments() {
        for until_s in 5..60 {
            let over_time = grows(until_s, 250_300_000);
            let values: [u64; 16] = over_time.of(StackId(7), until_s * S, until_s * S).unwrap();
            let n_unknown = values.iter().filter(|&&value| value == 0).count();
            assert!(n_unknown <= 1, "{until_s} s: {values:?}");
            assert!(values.is_sorted(), "{until_s} s: {values:?}");
        }
    }

    #[test]
    fn too_short() {
        let over_time = grows(1, S / 50);
        assert_eq!(over_time.of::<32>(StackId(7), S - 1, 5), None);
        assert!(over_time.of::<32>(StackId(7), S, 5).is_some());
    }

    /// Of too many stacks those that hold the most are kept.
    #[test]
    fn many_stacks() {
        let mut over_time = LiveOverTime::default();
        over_time.is_due(0);
        over_time.push(S, (0..10_000).map(|n| (StackId(n), u64::from(n))).collect());
        assert_eq!(over_time.points[0].held.len(), MAX_STACKS);
        assert_eq!(over_time.points[0].held[0], (StackId(10_000 - MAX_STACKS as u32), 5904));
    }
}
