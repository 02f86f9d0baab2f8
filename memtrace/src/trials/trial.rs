//! Having a JVM give memory back, because the user asked for it by name, and what came of it.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{before, returns::Prediction};
use crate::{
    attach::{self, AttachError},
    footprint::{self, Footprint, ResidentError, RowKind},
    target,
};

/// How long a collector may go on giving back after it has answered (G1 does so in the background since JDK 16).
const MAX_RETURNING: Duration = Duration::from_secs(10);
/// So long nothing is to be given back any more.
const QUIET: Duration = Duration::from_millis(700);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// What the JVM says is a line or two.
const MAX_SAID_CHARS: usize = 300;
/// A trim is as predicted if it is off by no more than this, or by two percent.
const MAX_OFF_BYTES: u64 = 1 << 20;

/// What a JVM is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// To return what malloc has free.
    Trim,
    /// To collect its heap.
    Collect,
}

impl Act {
    /// The JVM's own name for it.
    #[must_use]
    pub fn command(self) -> &'static str {
        match self {
            Self::Trim => "System.trim_native_heap",
            Self::Collect => "GC.run",
        }
    }

    /// As the user names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Trim => "trim",
            Self::Collect => "gc",
        }
    }

    /// What it does to the process.
    #[must_use]
    pub fn costs(self) -> &'static str {
        match self {
            Self::Trim => {
                "malloc_trim(0) locks one arena after the other: who calls malloc there waits, and pages that are needed \
                 again are faulted in anew"
            }
            Self::Collect => {
                "a full collection: with most collectors all Java threads stand still until it is over, which may be \
                 seconds for a large heap"
            }
        }
    }

    /// The rows that it is about.
    fn rows(self) -> &'static [RowKind] {
        match self {
            Self::Trim => &[
                RowKind::MallocLive,
                RowKind::MallocReturnable,
                RowKind::MallocKept,
                RowKind::MallocFragments,
            ],
            Self::Collect => &[RowKind::JavaHeapUsed, RowKind::JavaHeapUnused, RowKind::Gc],
        }
    }

    fn bytes(self, footprint: &Footprint) -> i64 {
        let sum: u64 = self.rows().iter().map(|&kind| footprint.resident(kind)).sum();
        i64::try_from(sum).unwrap_or(i64::MAX)
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Trial {
    /// What the JVM was asked for.
    pub act: Act,
    /// What it was to return, where that could be told.
    pub prediction: Option<Prediction>,
    /// How long it took to answer.
    pub took: Duration,
    /// What it answered.
    pub jvm_says: String,
    /// Before.
    pub before: Footprint,
    /// After.
    pub after: Footprint,
}

impl Trial {
    /// Resident bytes that the rows in question have less than before; below 0, more.
    #[must_use]
    pub fn returned_bytes(&self) -> i64 {
        self.act.bytes(&self.before).saturating_sub(self.act.bytes(&self.after))
    }

    /// By how much more than predicted was returned; below 0, less.
    #[must_use]
    pub fn off_bytes(&self) -> Option<i64> {
        let Prediction { from_bytes, to_bytes, .. } = self.prediction.as_ref()?;
        let returned = self.returned_bytes();
        Some(returned - returned.clamp(*from_bytes, (*to_bytes).max(*from_bytes)))
    }

    /// Whether it came as predicted.
    #[must_use]
    pub fn is_as_predicted(&self) -> Option<bool> {
        let off = self.off_bytes()?.unsigned_abs();
        let two_percent = self.returned_bytes().unsigned_abs() / 50;
        let allowed = if self.act == Act::Trim { MAX_OFF_BYTES.max(two_percent) } else { 0 };
        Some(off <= allowed)
    }
}

/// Why it was not done, or not measured.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The JVM can't be asked.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// It has no such command.
    #[error("the JVM of process {pid} ({version}) has no command {command}")]
    NoCommand {
        /// The process.
        pid: u32,
        /// The JVM's version.
        version: String,
        /// What it lacks.
        command: &'static str,
    },
    /// It ignores such requests.
    #[error("process {pid} runs with -XX:+DisableExplicitGC: it does not collect when asked")]
    Disabled {
        /// The process.
        pid: u32,
    },
    /// What is resident could not be told.
    #[error(transparent)]
    Unmeasured(#[from] ResidentError),
}

impl TrialError {
    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Attach(error) => error.hint().map(str::to_owned),
            Self::NoCommand { .. } => Some(
                "JDK 18 and newer have it on Linux, and updates of 17 since 17.0.9; start with less to give back instead: \
                 `memtrace compare --with MALLOC_ARENA_MAX=2 -- COMMAND`"
                    .to_owned(),
            ),
            Self::Disabled { .. } => Some("restart it without -XX:+DisableExplicitGC".to_owned()),
            Self::Unmeasured(ResidentError::NoPermission(_)) => Some("try it with sudo".to_owned()),
            Self::Unmeasured(_) => None,
        }
    }
}

/// Asks the JVM `pid` for `act`; what is predicted is told before it is asked. `now_ns` is the clock of footprints.
///
/// # Errors
///
/// Where it can't be asked, refuses, or what is resident can't be told; after `timeout` it may still do it.
pub fn perform(
    act: Act,
    pid: u32,
    timeout: Duration,
    now_ns: &dyn Fn() -> u64,
    predicted: &mut dyn FnMut(Option<&Prediction>),
) -> Result<Trial, TrialError> {
    // Its first answer costs a JVM a thread, which is not to be seen as a difference.
    let commands = attach::command(pid, "jcmd", &["help"], timeout)?;
    let command = act.command();
    if !commands.lines().any(|line| line.trim() == command) {
        let version = target::JavaHome::of_process(pid).and_then(|home| home.version());
        let version = version.unwrap_or_else(|| "unknown version".to_owned());
        return Err(TrialError::NoCommand { pid, version, command });
    }
    let before = footprint::take(pid, now_ns())?;
    let prediction = match act {
        Act::Trim => before.malloc.as_ref().map(|malloc| of_trim(malloc.trim_returns_bytes)),
        Act::Collect => {
            let known = before::look(pid, &before);
            if known.as_ref().is_some_and(|known| known.is_disabled) {
                return Err(TrialError::Disabled { pid });
            }
            known.and_then(|known| known.prediction)
        }
    };
    predicted(prediction.as_ref());
    let asked = Instant::now();
    let said = attach::command(pid, "jcmd", &[command], timeout)?;
    let took = asked.elapsed();
    if act == Act::Collect {
        wait_for_returns(pid);
    }
    let after = footprint::take(pid, now_ns())?;
    let said: String = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let jvm_says = said.chars().take(MAX_SAID_CHARS).collect();
    Ok(Trial { act, prediction, took, jvm_says, before, after })
}

fn of_trim(bytes: u64) -> Prediction {
    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
    let rests_on = "whole pages of free chunks, page by page; the main arena's top".to_owned();
    Prediction { from_bytes: bytes, to_bytes: bytes, rests_on }
}

/// Waits until memory has not shrunk for a moment.
fn wait_for_returns(pid: u32) {
    let began = Instant::now();
    let (mut least, mut since) = (target::memory(pid).rss_bytes, Instant::now());
    while since.elapsed() < QUIET && began.elapsed() < MAX_RETURNING {
        thread::sleep(LOOK_EVERY);
        let now = target::memory(pid).rss_bytes;
        if now < least {
            (least, since) = (now, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::footprint::Row;

    fn footprint(kind: RowKind, mib: u64) -> Footprint {
        let row = Row { kind, resident_bytes: mib << 20, swap_bytes: 0 };
        Footprint { rows: vec![row], ..Footprint::default() }
    }

    /// What is returned, against what was predicted, in MiB.
    #[test]
    fn verdicts() {
        let (trim, gc) = ((Act::Trim, RowKind::MallocLive), (Act::Collect, RowKind::JavaHeapUsed));
        // (act, before, after, predicted, off, as predicted)
        let cases = [
            (trim, 100, 40, Some((60, 60)), Some(0), Some(true)),
            (trim, 100, 40, Some((59, 59)), Some(1), Some(true)),
            (trim, 1000, 400, Some((611, 611)), Some(-11), Some(true)),
            (trim, 1000, 400, Some((620, 620)), Some(-20), Some(false)),
            (trim, 10, 12, Some((0, 0)), Some(-2), Some(false)),
            (trim, 10, 8, None, None, None),
            (gc, 100, 40, Some((50, 70)), Some(0), Some(true)),
            (gc, 100, 40, Some((61, 70)), Some(-1), Some(false)),
            (gc, 100, 110, Some((-20, 0)), Some(0), Some(true)),
        ];
        for ((act, kind), before, after, predicted, off, as_predicted) in cases {
            let mib = |n: i64| n << 20;
            let prediction = predicted.map(|(from, to)| Prediction {
                from_bytes: mib(from),
                to_bytes: mib(to),
                rests_on: String::new(),
            });
            let (before, after) = (footprint(kind, before), footprint(kind, after));
            let took = Duration::ZERO;
            let trial = Trial { act, prediction, took, jvm_says: String::new(), before, after };
            assert_eq!(trial.off_bytes(), off.map(mib), "{trial:?}");
            assert_eq!(trial.is_as_predicted(), as_predicted, "{trial:?}");
        }
    }
}
