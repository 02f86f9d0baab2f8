//! Waits until nothing else runs.
//!
//! In: `/proc/stat`. Out: whether the machine was quiet before a run; a run that began on a busy
//! machine is counted and not thrown away, since what is thrown away by its result biases it.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

const SAMPLE: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(5);
const QUIET_SHARE: f64 = 0.9;

/// CPU time since boot, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticks {
    idle: u64,
    all: u64,
}

/// Waits for a quiet machine, at most five seconds; says whether it became quiet.
pub(crate) fn wait_until_quiet() -> bool {
    let start = Instant::now();
    loop {
        let before = ticks();
        thread::sleep(SAMPLE);
        match (before, ticks()) {
            (Some(before), Some(after)) if idle_share(before, after) > QUIET_SHARE => return true,
            _ if start.elapsed() >= PATIENCE => return false,
            _ => {}
        }
    }
}

fn ticks() -> Option<Ticks> {
    parse_ticks(&fs::read_to_string("/proc/stat").ok()?)
}

/// The first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal, …
fn parse_ticks(text: &str) -> Option<Ticks> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    // guest and guest_nice, after the eighth, are part of user and nice already.
    let fields: Vec<u64> =
        line.split_whitespace().take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
    Some(Ticks { idle: fields.get(3)? + fields.get(4)?, all: fields.iter().sum() })
}

fn idle_share(before: Ticks, after: Ticks) -> f64 {
    let all = after.all.saturating_sub(before.all);
    let idle = after.idle.saturating_sub(before.idle);
    if all == 0 { 1.0 } else { idle as f64 / all as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_read() {
        let text = "cpu  100 5 20 800 50 3 2 20 77 0\ncpu0 1 2 3\n";
        assert_eq!(parse_ticks(text), Some(Ticks { idle: 850, all: 1000 }));
        for broken in ["", "intr 1 2 3", "cpu  1 2 x 4 5", "cpu  1 2 3"] {
            assert_eq!(parse_ticks(broken), None, "{broken:?}");
        }
        assert!(ticks().is_some(), "this machine's own");
    }

    #[test]
    fn share_is_of_the_time_between() {
        let before = Ticks { idle: 900, all: 1000 };
        let cases = [(Ticks { idle: 995, all: 1100 }, 0.95), (Ticks { idle: 910, all: 1100 }, 0.1)];
        for (after, want) in cases {
            assert!((idle_share(before, after) - want).abs() < 1e-9, "{after:?}");
        }
        assert_eq!(idle_share(before, before), 1.0, "no tick passed");
    }
}
