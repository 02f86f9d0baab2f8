//! One look after the other.
//!
//! In: a process. Out: how long each look took, from memtrace's start to its end, and the most memory that one took.

use std::{process::Stdio, thread::sleep, time::Duration};

use anyhow::{Context, bail};

use crate::bench::{Bed, clean_command, process, quiet, statistics, table::bar};

/// Seconds that a look at the demo application may take.
pub(super) const DEMO_BAR_SECONDS: f64 = 0.3;
/// Seconds that a look at 1 GB of small blocks may take.
pub(super) const HEAP_BAR_SECONDS: f64 = 1.5;
/// Bytes that memtrace may take.
const BAR_BYTES: f64 = 100e6;
/// Between two looks: never one right behind the other, for the target's sake.
const REST: Duration = Duration::from_millis(300);

/// What looks took.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Looks {
    seconds: Vec<f64>,
    max_rss_bytes: u64,
    n_noisy: usize,
}

impl Looks {
    /// Looks at process `pid` so many times, after once to warm up.
    pub(super) fn at(bed: &Bed, pid: u32, n: usize) -> anyhow::Result<Self> {
        look(bed, pid)?;
        let mut looks = Self { seconds: Vec::new(), max_rss_bytes: 0, n_noisy: 0 };
        for _ in 0..n {
            looks.n_noisy += usize::from(!quiet::wait_until_quiet());
            let (seconds, rss) = look(bed, pid)?;
            looks.seconds.push(seconds);
            looks.max_rss_bytes = looks.max_rss_bytes.max(rss);
            sleep(REST);
        }
        Ok(looks)
    }

    /// What is to be said.
    pub(super) fn lines(&self, what: &str, bar_seconds: f64) -> Vec<String> {
        let median = statistics::median(&self.seconds).unwrap_or(f64::INFINITY);
        let worst = self.seconds.iter().copied().fold(0.0, f64::max);
        let seconds = |seconds: f64| format!("{seconds:.3} s");
        let bytes = |bytes: f64| format!("{:.0} MB", bytes / 1e6);
        vec![
            format!(
                "A footprint of {what}: median {median:.3} s, worst {worst:.3} s of {}{}",
                self.seconds.len(),
                match self.n_noisy {
                    0 => String::new(),
                    n => format!("; {n} began on a busy machine"),
                }
            ),
            bar("bar", "median", median, bar_seconds, seconds),
            bar("bar", "memtrace's RSS", self.max_rss_bytes as f64, BAR_BYTES, bytes),
        ]
    }
}

/// One look: the seconds that it took, and memtrace's largest RSS.
pub(super) fn look(bed: &Bed, pid: u32) -> anyhow::Result<(f64, u64)> {
    let began = process::now_ns();
    let memtrace = clean_command(&bed.memtrace)
        .args(["footprint", &pid.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .context("failed to start memtrace")?;
    let (status, usage) = process::wait(&memtrace).context("failed to wait for memtrace")?;
    let seconds = process::now_ns().saturating_sub(began) as f64 / 1e9;
    if !status.success() {
        bail!("memtrace ended with {status}");
    }
    Ok((seconds, usage.max_rss_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The median is judged, the worst only told; what is exactly the bar has met it.
    #[test]
    fn judged() {
        let looks = Looks { seconds: vec![0.3, 0.1, 9.0], max_rss_bytes: 100_000_001, n_noisy: 1 };
        let want = [
            "A footprint of x: median 0.300 s, worst 9.000 s of 3; 1 began on a busy machine",
            "bar: median: 0.300 s (bar 0.300 s): met",
            "bar: memtrace's RSS: 100 MB (bar 100 MB): missed",
        ];
        assert_eq!(looks.lines("x", 0.3), want);
    }

    /// What could not be looked at is an error, never a fast look.
    #[test]
    fn failures() {
        let bed = Bed { memtrace: "/bin/false".into(), folder: "/nowhere".into() };
        let error = look(&bed, 1).unwrap_err();
        assert!(error.to_string().contains("memtrace ended with"), "{error}");
    }
}
