//! Whether memory has settled.
//!
//! In: how much was resident, and when. Out: since when it has not changed.

use std::{collections::VecDeque, time::Duration};

/// So long nothing may change.
pub const SETTLING_TIME: Duration = Duration::from_secs(5);
/// Less than this is no change.
pub const MAX_CHANGE_PERCENT: u64 = 1;

/// What was resident in the last seconds.
#[derive(Debug, Default)]
pub(super) struct Settling {
    samples: VecDeque<(Duration, u64)>,
}

impl Settling {
    /// Takes note of what is resident at `time` after the start. Tells since when it has been as much, if for long enough.
    pub(super) fn add(&mut self, time: Duration, bytes: u64) -> Option<Duration> {
        self.samples.push_back((time, bytes));
        let begin = time.checked_sub(SETTLING_TIME)?;
        // The newest one that is old enough stays.
        while self.samples.get(1).is_some_and(|&(time, _)| time <= begin) {
            self.samples.pop_front();
        }
        let since = self.samples.front().map(|&(time, _)| time).filter(|&time| time <= begin)?;
        (self.change_per_mille() < 10 * MAX_CHANGE_PERCENT).then_some(since)
    }

    /// By how much it changed in the last seconds, in thousandths.
    pub(super) fn change_per_mille(&self) -> u64 {
        let bytes = || self.samples.iter().map(|&(_, bytes)| bytes);
        let (least, most) = (bytes().min().unwrap_or(0), bytes().max().unwrap_or(0));
        ((most - least).saturating_mul(1000)).checked_div(most).unwrap_or(1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When memory counts as settled, looked at each second.
    #[test]
    fn settled() {
        // (bytes at each second, the second at which it had settled and since when)
        type Case = (&'static [u64], Option<(u64, u64)>);
        let cases: [Case; 6] = [
            (&[1000; 9], Some((5, 0))),
            (&[1000; 5], None),
            (&[10, 500, 900, 1000, 1000, 1001, 1002, 1003, 1004], Some((8, 3))),
            (&[1000, 1010, 1020, 1030, 1040, 1050, 1060], None),
            (&[1000, 1000, 1000, 1000, 1000, 500, 500, 500], None),
            (&[0; 9], None),
        ];
        for (bytes, expected) in cases {
            let mut settling = Settling::default();
            let mut add = |(second, &bytes): (u64, &u64)| {
                let since = settling.add(Duration::from_secs(second), bytes)?;
                Some((second, since.as_secs()))
            };
            assert_eq!((0..).zip(bytes).find_map(&mut add), expected, "{bytes:?}");
        }
    }
}
