//! What can be typed of a trial.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::units;

const EXIT_STATUS: &str = "\
Exit status:
  0 it was done and measured, whatever it returned; 2 an error, or the JVM has no such command.";

#[derive(Debug, Args)]
#[command(after_help = EXIT_STATUS)]
pub(crate) struct TryArgs {
    /// What the JVM is asked for
    #[arg(value_enum, value_name = "trim|gc")]
    pub(crate) what: TryWhat,

    /// The process
    #[arg(value_name = "PID")]
    pub(crate) pid: u32,

    /// Wait so long for the JVM's answer
    ///
    /// It may do what it was asked for all the same, later.
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = units::parse_time)]
    pub(crate) timeout: Duration,

    /// Write everything as JSON to this file, `-` for stdout
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Do not tell what it costs and what is predicted before it is done
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// What a JVM can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TryWhat {
    /// Return the pages that malloc has free (System.trim_native_heap, JDK 17.0.9 or newer)
    Trim,
    /// Collect the whole Java heap (GC.run)
    Gc,
}
