//! What is told of each start while it goes on, and when it is over.

use std::{
    io::{IsTerminal, stderr},
    time::Duration,
};

use super::super::outputs::to_stderr;
use crate::{
    report::{escape, names, units},
    trials::{Failed, Run},
};

/// Columns of the line.
const WIDTH: usize = 79;

/// The line of one start.
pub(super) struct Progress {
    head: String,
    is_quiet: bool,
    is_terminal: bool,
}

impl Progress {
    pub(super) fn of(name: &str, round: u32, n_rounds: u32, is_quiet: bool) -> Self {
        let name = names::clip(&escape::line(name), 40);
        let head = format!("memtrace: round {round} of {n_rounds}, {name}");
        Self { head, is_quiet, is_terminal: stderr().is_terminal() }
    }

    /// It goes on; only someone who watches wants to know.
    pub(super) fn show(&self, time: Duration, rss_bytes: u64) {
        if self.is_terminal && !self.is_quiet {
            let (time, bytes) = (span(time), units::bytes(rss_bytes));
            let line = names::clip(&format!("{}: {time}, RSS {bytes}", self.head), WIDTH);
            to_stderr(&format!("\r{line}\x1b[K"));
        }
    }

    /// It is over.
    pub(super) fn tell_end(&self, result: Result<&Run, &Failed>) {
        if self.is_quiet {
            return;
        }
        let clear = if self.is_terminal { "\r\x1b[K" } else { "" };
        let said = match result {
            Ok(run) => said(run),
            Err(failed) => failed.to_string(),
        };
        to_stderr(&format!("{clear}{}: {said}\n", self.head));
        if let Ok(Run { left, .. }) = result
            && !left.is_empty()
        {
            to_stderr(&format!(
                "memtrace: warning: these processes could not be ended: {left:?}\n"
            ));
        }
    }
}

fn said(run: &Run) -> String {
    let peak = units::bytes(run.peak_rss_bytes);
    let after = run.startup.map(|time| format!(" after {}", span(time))).unwrap_or_default();
    match &run.settled {
        Some(settled) => format!("RSS {}{after}, peak {peak}", units::bytes(settled.rss_bytes)),
        None => format!("ended{after}, peak {peak}"),
    }
}

fn span(time: Duration) -> String {
    units::span(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}
