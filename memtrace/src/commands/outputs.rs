//! Where results go: files that are known to be writable before anything else happens, and stdout.

mod place;

use std::{
    io,
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use self::place::{Identity, Place};
use super::{args::Color, args::OutputArgs, jstack};
use crate::{
    ledger::Metric,
    report::{flamegraph, flamegraph::FlameGraphError, folded, json, text_by},
    trace::Recording,
};

pub(crate) use place::{Beginning, create, is_stdout};

/// One result that goes to a file of its own.
#[derive(Debug)]
pub(crate) struct Output(Place);

impl Output {
    /// Checks that `path` can be written to.
    pub(crate) fn find(path: &Path) -> Result<Self> {
        Place::find(path).map(Self)
    }

    /// Lets `write` write to it.
    pub(crate) fn write(self, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
        self.0.write(write)
    }
}

/// The results that were asked for.
#[derive(Debug)]
pub(crate) struct Outputs {
    folded: Option<Place>,
    flamegraph: Option<Place>,
    json: Option<Place>,
    is_stdout_taken: bool,
}

/// The trace file that there is besides the results.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trace<'a> {
    /// It is read.
    Read(&'a Path),
    /// It is written, if it was asked for; of a command that is started, or of a process.
    Recorded { path: Option<&'a Path>, of_command: bool },
}

impl Outputs {
    /// Checks that everything can be written, so that what can't is told of before any work is done.
    pub(crate) fn open(args: &OutputArgs, trace: Trace<'_>) -> Result<Self> {
        let find = |path: &Option<PathBuf>| path.as_deref().map(Place::find).transpose();
        let is_stdout_taken = check_stdout(args, trace)?;
        check_apart(args, trace, is_stdout_taken)?;
        Ok(Self {
            folded: find(&args.folded)?,
            flamegraph: find(&args.flamegraph)?,
            json: find(&args.json)?,
            is_stdout_taken,
        })
    }

    /// Writes everything; the report itself goes to stdout unless that is taken.
    pub(crate) fn write(self, recording: &Recording, args: &OutputArgs) -> Result<()> {
        let metric = args.metric;
        // All are written, whatever becomes of one of them.
        let results = [
            written(self.folded, |out| Ok(folded::write(recording, metric, out)?)),
            written(self.json, |out| Ok(json::write(recording, out)?)),
            written(self.flamegraph, |out| flame_graph(recording, metric, out)),
        ];
        if !self.is_stdout_taken {
            to_stdout(&text_by(recording, metric, colors(args.color, &io::stdout())))?;
        } else if !args.quiet {
            to_stderr(&text_by(recording, metric, colors(args.color, &io::stderr())));
        }
        results.into_iter().collect()
    }
}

/// What is written, by option.
fn written_paths<'a>(
    args: &'a OutputArgs,
    trace: Trace<'a>,
) -> [(&'static str, Option<&'a Path>); 4] {
    let recorded = match trace {
        Trace::Read(_) => None,
        Trace::Recorded { path, .. } => path,
    };
    [
        ("--output", recorded),
        ("--folded", args.folded.as_deref()),
        ("--flamegraph", args.flamegraph.as_deref()),
        ("--json", args.json.as_deref()),
    ]
}

/// Tells whether stdout is taken by an output; it has room for one.
fn check_stdout(args: &OutputArgs, trace: Trace<'_>) -> Result<bool> {
    let paths = written_paths(args, trace);
    let n = paths.iter().filter(|(_, path)| path.is_some_and(is_stdout)).count();
    if n > 1 {
        bail!("only one output can be `-`: they would be mixed up on stdout");
    }
    if let Trace::Recorded { path, of_command } = trace
        && path.is_some_and(is_stdout)
    {
        if of_command {
            bail!("`--output -` goes with --pid only: a started command writes to stdout, too");
        }
        if io::stdout().is_terminal() {
            bail!("a trace is no text: `--output -` wants stdout to be a file or a pipe");
        }
    }
    Ok(n > 0)
}

/// No file is written twice, and none is written that is read.
fn check_apart(args: &OutputArgs, trace: Trace<'_>, is_stdout_taken: bool) -> Result<()> {
    let mut known: Vec<(String, Identity)> = Vec::new();
    let mut add = |what: String, path: &Path, is_written: bool| {
        let Some(identity) = Identity::of(path) else { return Ok(()) };
        if let Some((other, _)) = known.iter().find(|(_, other)| is_written && *other == identity) {
            bail!("{other} and {what} are the same file");
        }
        known.push((what, identity));
        Ok(())
    };
    if let Trace::Read(path) = trace {
        add(format!("the trace {}", path.display()), path, false)?;
    }
    if let Some(path) = args.jstack.as_deref().filter(|path| !jstack::is_attach(path)) {
        add(format!("`--jstack {}`", path.display()), path, false)?;
    }
    if !is_stdout_taken {
        add("stdout".into(), Path::new("/proc/self/fd/1"), false)?;
    }
    for (option, path) in written_paths(args, trace) {
        if let Some(path) = path.filter(|path| !is_stdout(path)) {
            add(format!("`{option} {}`", path.display()), path, true)?;
        }
    }
    Ok(())
}

/// Lets `write` write to `place`, if it was asked for.
fn written(place: Option<Place>, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    place.map_or(Ok(()), |place| place.write(write))
}

/// An empty picture is no failure of the trace.
fn flame_graph(recording: &Recording, metric: Metric, out: &mut dyn Write) -> Result<()> {
    match flamegraph::write(recording, metric, out) {
        Err(error @ FlameGraphError::Empty(_)) => {
            to_stderr(&format!("memtrace: no flame graph was drawn: {error}\n"));
            Ok(())
        }
        Err(FlameGraphError::Write(error)) => Err(error.into()),
        result => Ok(result?),
    }
}

/// Writes to stdout.
pub(crate) fn to_stdout(text: &str) -> Result<()> {
    to_stdout_by(|out| Ok(out.write_all(text.as_bytes())?))
}

/// Lets `write` write to stdout.
pub(crate) fn to_stdout_by(write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    Place::Stdout.write(write)
}

/// Lets `write` write to `out`, or to stdout, again and again: tells whether somebody still reads there.
pub(crate) fn while_read(
    out: Option<&mut dyn Write>,
    write: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<bool> {
    let result = match out {
        Some(out) => write(out),
        None => write(&mut io::stdout().lock()),
    };
    place::while_read(result).context("failed to write what was seen")
}

/// Writes to stderr, where nobody may be listening.
pub(crate) fn to_stderr(text: &str) {
    io::stderr().lock().write_all(text.as_bytes()).ok();
}

/// Whether a report to `stream` is colored.
pub(crate) fn colors(color: Color, stream: &impl IsTerminal) -> bool {
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => {
            stream.is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        }
    }
}
