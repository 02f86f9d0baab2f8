//! How an error is told: one line, and one more with the next step where there is one.

use std::{fmt, io::Write, process::ExitCode};

use crate::probes::{Obstacle, is_refusal, one_line};

/// An error with the next step.
#[derive(Debug)]
pub(crate) struct Failure {
    error: anyhow::Error,
    hint: Option<String>,
    code: u8,
}

/// The exit status of an error.
pub(super) const ERROR: u8 = 2;

impl Failure {
    /// `error`, with a next step where there is one.
    pub(crate) fn new(error: impl Into<anyhow::Error>, hint: Option<String>) -> Self {
        Self { error: error.into(), hint, code: ERROR }
    }

    /// The same with another exit status.
    pub(crate) fn with_code(self, code: u8) -> Self {
        Self { code, ..self }
    }

    /// The same, with another exit status where it had none of its own.
    pub(crate) fn or_code(self, code: u8) -> Self {
        if self.code == ERROR { self.with_code(code) } else { self }
    }

    /// Tells it on stderr.
    pub(crate) fn tell(&self) -> ExitCode {
        let Self { error, hint, code } = self;
        let hint = hint.clone().or_else(|| guess_hint(error));
        // Nobody reads stderr: the exit status tells all the same.
        tell(&mut std::io::stderr().lock(), error, hint.as_deref()).ok();
        ExitCode::from(*code)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(error, None)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:#}", self.error)
    }
}

fn tell(out: &mut impl Write, error: &anyhow::Error, hint: Option<&str>) -> std::io::Result<()> {
    writeln!(out, "memtrace: {}", one_line(error))?;
    hint.map_or(Ok(()), |hint| writeln!(out, "hint: {hint}"))
}

/// What stands in the way of tracing knows what to do; other things fail for want of rights.
fn guess_hint(error: &anyhow::Error) -> Option<String> {
    if let Some(obstacle) = error.downcast_ref::<Obstacle>() {
        return Some(obstacle.hint());
    }
    // SAFETY: no preconditions.
    let is_root = unsafe { libc::geteuid() } == 0;
    match (is_refusal(error), is_root) {
        (true, false) => Some("tracing needs root; try it with `sudo`".into()),
        (true, true) => Some("`memtrace doctor` tells what is not allowed here".into()),
        _ => None,
    }
}
