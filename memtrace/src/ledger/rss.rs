//! Resident bytes over time.

use serde::{Deserialize, Serialize};

/// Samples that are kept; when there are more, every second one is dropped and later ones are taken half as often.
const MAX_SAMPLES: usize = 7200;

/// Resident and swapped bytes of the traced processes at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// When, in nanoseconds of the monotonic clock.
    pub time_ns: u64,
    /// Resident bytes.
    pub rss_bytes: u64,
    /// Swapped bytes.
    pub swap_bytes: u64,
}

/// Samples, evenly thinned.
#[derive(Debug)]
pub struct Rss {
    samples: Vec<Sample>,
    every: u64,
    n_seen: u64,
    last: Option<Sample>,
    peak: Option<Sample>,
}

impl Default for Rss {
    fn default() -> Self {
        Self { samples: Vec::new(), every: 1, n_seen: 0, last: None, peak: None }
    }
}

impl Rss {
    pub(super) fn push(&mut self, sample: Sample) {
        if self.samples.len() >= MAX_SAMPLES {
            let mut keep = false;
            self.samples.retain(|_| {
                keep = !keep;
                keep
            });
            self.every *= 2;
        }
        if self.n_seen.is_multiple_of(self.every) {
            self.samples.push(sample);
        }
        self.n_seen += 1;
        self.last = Some(sample);
        if self.peak.is_none_or(|peak| sample.rss_bytes > peak.rss_bytes) {
            self.peak = Some(sample);
        }
    }

    /// The samples that were kept, the oldest first.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// The newest sample.
    pub fn last(&self) -> Option<Sample> {
        self.last
    }

    /// The sample with the most resident bytes.
    pub fn peak(&self) -> Option<Sample> {
        self.peak
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A week of samples stays within the limit, in order, with the first one and the peak.
    #[test]
    fn a_week() {
        let mut rss = Rss::default();
        for second in 0..7 * 86_400_u64 {
            let rss_bytes = if second == 4711 { 1 << 30 } else { second };
            rss.push(Sample { time_ns: second * 1_000_000_000, rss_bytes, swap_bytes: 0 });
        }
        let samples = rss.samples();
        assert!(
            samples.len() <= MAX_SAMPLES && samples.len() > MAX_SAMPLES / 4,
            "{}",
            samples.len()
        );
        assert!(samples.is_sorted_by_key(|sample| sample.time_ns) && samples[0].time_ns == 0);
        assert_eq!(rss.peak().map(|sample| sample.rss_bytes), Some(1 << 30));
        assert_eq!(rss.last().map(|sample| sample.rss_bytes), Some(7 * 86_400 - 1));
    }
}
