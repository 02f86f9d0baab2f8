//! Where results go: files that are made before anything else happens, and stdout.

use std::{
    fs::{File, OpenOptions},
    io,
    io::{IsTerminal, Write},
    os::unix::fs::{OpenOptionsExt, fchown},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use super::args::{Color, OutputArgs};
use crate::{
    ledger::Metric,
    report::{flamegraph, flamegraph::FlameGraphError, folded, json, text_by},
    target::launch::User,
    trace::Recording,
};

/// The results that were asked for.
#[derive(Debug)]
pub(crate) struct Outputs {
    folded: Option<Output>,
    flamegraph: Option<Output>,
    json: Option<Output>,
}

#[derive(Debug)]
enum Output {
    Stdout,
    File(PathBuf, File),
}

impl Outputs {
    /// Makes the files, so that one that can't be written is told of before any work is done.
    pub(crate) fn open(args: &OutputArgs) -> Result<Self> {
        let paths = [&args.folded, &args.flamegraph, &args.json];
        if paths.iter().filter(|path| path.as_deref().is_some_and(is_stdout)).count() > 1 {
            bail!("only one output can be `-`: they would be mixed up on stdout");
        }
        let open = |path: &Option<PathBuf>| path.as_deref().map(Output::open).transpose();
        Ok(Self {
            folded: open(&args.folded)?,
            flamegraph: open(&args.flamegraph)?,
            json: open(&args.json)?,
        })
    }

    /// Writes everything; the report itself goes to stdout unless that is taken.
    pub(crate) fn write(self, recording: &Recording, args: &OutputArgs) -> Result<()> {
        let is_stdout_taken = [&self.folded, &self.flamegraph, &self.json]
            .iter()
            .any(|output| matches!(output, Some(Output::Stdout)));
        let metric = args.metric;
        // All are written, whatever becomes of one of them.
        let results = [
            written(self.folded, |out| Ok(folded::write(recording, metric, out)?)),
            written(self.json, |out| Ok(json::write(recording, out)?)),
            written(self.flamegraph, |out| flame_graph(recording, metric, out)),
        ];
        if !is_stdout_taken {
            to_stdout(&text_by(recording, metric, colors(args.color, &io::stdout())))?;
        } else if !args.quiet {
            to_stderr(&text_by(recording, metric, colors(args.color, &io::stderr())));
        }
        results.into_iter().collect()
    }
}

impl Output {
    fn open(path: &Path) -> Result<Self> {
        if is_stdout(path) {
            return Ok(Self::Stdout);
        }
        Ok(Self::File(path.to_path_buf(), create(path)?))
    }
}

/// Lets `write` write to `output`, if it was asked for.
fn written(output: Option<Output>, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    match output {
        None => Ok(()),
        Some(Output::Stdout) => {
            enough_is_no_error(write(&mut io::stdout().lock())).context("failed to write to stdout")
        }
        Some(Output::File(path, mut file)) => {
            write(&mut file).with_context(|| format!("failed to write {}", path.display()))
        }
    }
}

/// A reader that has gone has had enough.
fn enough_is_no_error(result: Result<()>) -> Result<()> {
    let is_broken_pipe = |error: &anyhow::Error| {
        error.chain().any(|cause| {
            cause
                .downcast_ref::<io::Error>()
                .is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe)
        })
    };
    result.or_else(|error| if is_broken_pipe(&error) { Ok(()) } else { Err(error) })
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

/// Makes a file that only its owner can read: the user who called sudo, if memtrace was called so.
pub(crate) fn create(path: &Path) -> Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    let file = file.with_context(|| format!("failed to create {}", path.display()))?;
    let is_ordinary = file.metadata().is_ok_and(|metadata| metadata.is_file());
    if let Some(user) = User::behind_sudo().ok().flatten().filter(|_| is_ordinary) {
        let (uid, gid) = user.ids();
        fchown(&file, Some(uid), Some(gid))
            .with_context(|| format!("failed to give {} to {}", path.display(), user.name))?;
    }
    Ok(file)
}

/// Writes to stdout.
pub(crate) fn to_stdout(text: &str) -> Result<()> {
    written(Some(Output::Stdout), |out| Ok(out.write_all(text.as_bytes())?))
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

fn is_stdout(path: &Path) -> bool {
    path == Path::new("-")
}
