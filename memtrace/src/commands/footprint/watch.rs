//! `memtrace footprint PID --watch TIME`: the table once, and then what changed, until Ctrl-C, the process's end, or until
//! nobody reads it any more.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    runtime, select,
    signal::unix::{SignalKind, signal},
    time::sleep,
};

use super::{
    super::{failure::Failure, outputs},
    about, json, take,
};
use crate::{
    footprint::Wanted,
    report::{
        footprint::{FootprintNow, by_name, changes, write_changes, write_text},
        units,
    },
    target,
};

/// Where lines of JSON go.
enum Lines {
    None,
    Stdout,
    File(File),
}

impl Lines {
    fn find(path: Option<&Path>) -> Result<Self> {
        match path {
            None => Ok(Self::None),
            Some(path) if outputs::is_stdout(path) => Ok(Self::Stdout),
            Some(path) => outputs::create(path).map(Self::File),
        }
    }

    /// Tells whether somebody still reads them.
    fn write(&mut self, now: &FootprintNow) -> Result<bool> {
        let line = |out: &mut dyn Write| Ok(json::write_footprint_line(now, out)?);
        match self {
            Self::None => Ok(true),
            Self::Stdout => outputs::while_read(None, line),
            Self::File(file) => outputs::while_read(Some(file), line),
        }
    }
}

pub(super) fn run(
    pid: u32,
    wanted: Wanted,
    every: Duration,
    path: Option<&Path>,
) -> Result<ExitCode, Failure> {
    let mut lines = Lines::find(path)?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("failed to set up waiting")?;
    let mut watched = Watched { is_quiet: matches!(lines, Lines::Stdout), last: None };
    let target = about(pid);
    runtime.block_on(async {
        let mut interrupt =
            signal(SignalKind::interrupt()).context("failed to wait for signals")?;
        let mut terminate =
            signal(SignalKind::terminate()).context("failed to wait for signals")?;
        loop {
            let footprint = match take(pid, wanted) {
                // It may have ended between two looks, but not before the first.
                Err(_) if watched.last.is_some() && !target::is_alive(pid) => break,
                footprint => footprint?,
            };
            let now = FootprintNow { target: target.clone(), footprint };
            if !(lines.write(&now)? && watched.show(now)?) {
                break;
            }
            select! {
                () = sleep(every) => {}
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
            }
            if !target::is_alive(pid) {
                break;
            }
        }
        Ok::<(), Failure>(())
    })?;
    Ok(ExitCode::SUCCESS)
}

struct Watched {
    /// Whether stdout is taken.
    is_quiet: bool,
    last: Option<FootprintNow>,
}

impl Watched {
    /// Tells whether somebody still reads it.
    fn show(&mut self, now: FootprintNow) -> Result<bool> {
        let is_read = self.is_quiet || outputs::while_read(None, |out| Ok(self.write(&now, out)?))?;
        self.last = Some(now);
        Ok(is_read)
    }

    fn write(&self, now: &FootprintNow, out: &mut dyn Write) -> io::Result<()> {
        let Some(last) = &self.last else { return write_text(now, out) };
        let (before, after) = (&last.footprint, &now.footprint);
        let span = units::span(after.time_ns.saturating_sub(before.time_ns));
        writeln!(out, "\nafter {span}")?;
        let changes = changes(&by_name(before), &by_name(after));
        write_changes(&changes, (before.rss_bytes, after.rss_bytes), out)
    }
}
