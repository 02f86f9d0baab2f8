//! Whether a thread ran between two looks at it.

use std::path::Path;

use super::proc::{self, status_field, status_number};

/// What the kernel says of a thread's turns at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Whether it runs, or could.
    pub is_running: bool,
    /// How often it has left a processor.
    n_switches: u64,
}

impl Schedule {
    /// That of thread `tid` of process `pid`; `None` where it has ended.
    pub fn of(pid: u32, tid: u32) -> Option<Self> {
        Self::parse(&proc::text_of(Path::new(&format!("/proc/{pid}/task/{tid}/status"))))
    }

    /// Whether the thread stood still from `before` on, for a later look `self`: one that ran has left a processor since,
    /// or runs still.
    #[must_use]
    pub fn is_unchanged_since(&self, before: &Self) -> bool {
        !self.is_running && self == before
    }

    fn parse(status: &str) -> Option<Self> {
        let state = status_field(status, "State:")?;
        let n_asked = status_number(status, "voluntary_ctxt_switches:")?;
        let n_forced = status_number(status, "nonvoluntary_ctxt_switches:")?;
        Some(Self {
            is_running: state.starts_with('R'),
            n_switches: n_asked.wrapping_add(n_forced),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only a thread that waited all the time has not run.
    #[test]
    fn unchanged() {
        let of = |state: &str, asked: u64, forced: u64| {
            let status = format!(
                "Name:\tx\nState:\t{state}\nvoluntary_ctxt_switches:\t{asked}\n\
                 nonvoluntary_ctxt_switches:\t{forced}\n"
            );
            Schedule::parse(&status).unwrap()
        };
        let before = of("S (sleeping)", 7, 1);
        let cases = [
            (of("S (sleeping)", 7, 1), true),
            (of("S (sleeping)", 8, 1), false),
            (of("S (sleeping)", 7, 2), false),
            (of("R (running)", 7, 1), false),
        ];
        for (after, is_unchanged) in cases {
            assert_eq!(after.is_unchanged_since(&before), is_unchanged, "{after:?}");
        }
        let running = of("R (running)", 7, 1);
        assert!(!running.is_unchanged_since(&running));
        assert_eq!(Schedule::parse("State:\tZ (zombie)\n"), None);
    }

    /// The thread that asks runs.
    #[test]
    fn this_thread() {
        let pid = std::process::id();
        // SAFETY: no preconditions.
        let tid = unsafe { libc::gettid() }.cast_unsigned();
        assert!(Schedule::of(pid, tid).unwrap().is_running);
        assert_eq!(Schedule::of(pid, u32::MAX - 1), None);
    }
}
