//! What can be typed of a comparison.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::units;

const EXIT_STATUS: &str = "\
Examples:
  memtrace compare --with MALLOC_ARENA_MAX=2 -- java -jar app.jar
  memtrace compare --with LD_PRELOAD=/usr/lib/libjemalloc.so.2 --with '-XX:+UseSerialGC -Xmx512m' \\
      --until 'Started App' -- java -jar app.jar

Exit status:
  0 every start was measured, 2 an error, or none could be measured,
  3 some starts failed, or Ctrl-C ended it early: what was measured is printed.";

#[derive(Debug, Args)]
#[command(after_help = EXIT_STATUS)]
pub(crate) struct CompareArgs {
    /// Start it under these settings, too
    ///
    /// A variable of the environment (NAME=VALUE), an option of the JVM (begins with `-`), or several with blanks between,
    /// quoted as in a shell where they have blanks themselves. Options are put behind `java`; where the command is something
    /// else its JVMs get them by the variable JAVA_TOOL_OPTIONS. May be given several times, a variant each.
    #[arg(long = "with", value_name = "SETTING…", required = true, allow_hyphen_values = true)]
    pub(crate) settings: Vec<String>,

    /// Start each variant so many times
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) runs: u32,

    /// Follow each start until this is seen in its output, or for this time
    ///
    /// What can be read as a time (30s, 5m) is one. Without this, until resident memory changes by less than 1 % in 5 s.
    #[arg(long, value_name = "TEXT|TIME")]
    pub(crate) until: Option<String>,

    /// Give up a start that is not there after this time
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = units::parse_time)]
    pub(crate) timeout: Duration,

    /// Keep what the command prints, a file for each start, in this folder
    ///
    /// Without this it is dropped but for the last lines of a start that fails.
    #[arg(long, value_name = "DIR")]
    pub(crate) logs: Option<PathBuf>,

    /// Write everything as JSON to this file, `-` for stdout
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Run the command as this user
    ///
    /// Under sudo the default is the user who called it.
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<String>,

    /// Tell nothing of single starts
    #[arg(short, long)]
    pub(crate) quiet: bool,

    /// The command to start, and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}
