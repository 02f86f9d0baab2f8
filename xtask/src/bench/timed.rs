//! `xtask __timed FILE -- COMMAND`: runs a program and writes down what it used.
//!
//! In: a command. Out: one line of JSON in FILE, and the command's own exit status. Every variant
//! of a benchmark runs its target through this one, so that each is measured by the same means,
//! from the target's exec to its end, and without what the tracer does before and after.

use std::{
    fs, io,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode, ExitStatus},
};

use anyhow::Context;
use serde_json::{Value, json};

use super::process::{Usage, now_ns, wait};

/// What to run and where to write.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Set this variable in the environment of the program; may be given several times
    #[arg(long = "set", value_name = "NAME=VALUE")]
    variables: Vec<String>,

    /// Write the measurement to this file
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// The program and its arguments
    #[arg(value_name = "COMMAND", last = true, required = true)]
    command: Vec<String>,
}

/// What one run of the target took. Times are of the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Timing {
    /// When the target's program began.
    pub(crate) exec_ns: u64,
    /// When it had ended.
    pub(crate) end_ns: u64,
    /// What it used.
    pub(crate) usage: Usage,
    /// What the measuring process used itself.
    pub(crate) own_cpu_seconds: f64,
}

/// Runs the command, measures it, and passes its exit status on.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let program = &options.command[0];
    let child = Command::new(program)
        .args(&options.command[1..])
        .envs(options.variables.iter().filter_map(|it| it.split_once('=')))
        .spawn()
        .with_context(|| format!("failed to start {program}"))?;
    // `spawn` returns once the child has called exec: it waits to learn whether that failed.
    let exec_ns = now_ns();
    let (status, usage) = wait(&child).with_context(|| format!("failed to wait for {program}"))?;
    let own_cpu_seconds = Usage::of_this_process().cpu_seconds;
    Timing { exec_ns, end_ns: now_ns(), usage, own_cpu_seconds }
        .write(&options.file)
        .with_context(|| format!("failed to write {}", options.file.display()))?;
    Ok(exit_code(status))
}

impl Timing {
    /// Seconds from exec to the end.
    pub(crate) fn wall_seconds(&self) -> f64 {
        seconds_between(self.exec_ns, self.end_ns)
    }

    fn write(&self, file: &Path) -> io::Result<()> {
        let Self { exec_ns, end_ns, usage, own_cpu_seconds } = self;
        let line = json!({
            "exec_ns": exec_ns,
            "end_ns": end_ns,
            "cpu_seconds": usage.cpu_seconds,
            "max_rss_bytes": usage.max_rss_bytes,
            "own_cpu_seconds": own_cpu_seconds,
        });
        fs::write(file, format!("{line}\n"))
    }

    /// The timing that a measured run left.
    pub(crate) fn read(file: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(file).with_context(|| {
            format!("failed to read {}: the target did not run", file.display())
        })?;
        Self::parse(&text).with_context(|| format!("failed to parse {}", file.display()))
    }

    fn parse(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        Some(Self {
            exec_ns: value["exec_ns"].as_u64()?,
            end_ns: value["end_ns"].as_u64()?,
            usage: Usage {
                cpu_seconds: value["cpu_seconds"].as_f64()?,
                max_rss_bytes: value["max_rss_bytes"].as_u64()?,
            },
            own_cpu_seconds: value["own_cpu_seconds"].as_f64()?,
        })
    }
}

/// Seconds from one time of the monotonic clock to another; 0 if they are the other way round.
pub(crate) fn seconds_between(from_ns: u64, to_ns: u64) -> f64 {
    to_ns.saturating_sub(from_ns) as f64 / 1e9
}

/// The status as a shell gives it: 128 + N for a death by signal N.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written is what is read; a torn file is not a timing.
    #[test]
    fn timings_survive_the_file() {
        let timing = Timing {
            exec_ns: 1_000_000_000,
            end_ns: 3_500_000_000,
            usage: Usage { cpu_seconds: 4.25, max_rss_bytes: 700_000_000 },
            own_cpu_seconds: 0.125,
        };
        let file = std::env::temp_dir().join(format!("memtrace-timing-{}", std::process::id()));
        timing.write(&file).unwrap();
        assert_eq!(Timing::read(&file).unwrap(), timing);
        assert_eq!(timing.wall_seconds(), 2.5);
        fs::write(&file, r#"{"exec_ns": 1, "end"#).unwrap();
        assert!(Timing::read(&file).is_err());
        fs::remove_file(&file).unwrap();
        assert!(Timing::read(&file).is_err());
    }

    /// A sleeping command takes wall time and no CPU; a working one takes both.
    #[test]
    fn sleeping_is_not_work() {
        let file = std::env::temp_dir().join(format!("memtrace-timed-{}", std::process::id()));
        let work = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        for (script, is_busy) in [("sleep 0.3", false), (work, true)] {
            let command = ["sh", "-c", script].map(str::to_owned).to_vec();
            run(&Options { variables: Vec::new(), file: file.clone(), command }).unwrap();
            let timing = Timing::read(&file).unwrap();
            let busy = timing.usage.cpu_seconds > timing.wall_seconds() * 0.3;
            assert_eq!(busy, is_busy, "{script}: {timing:?}");
            assert!(timing.usage.max_rss_bytes > 100_000, "{timing:?}");
        }
        fs::remove_file(&file).unwrap();
    }

    /// The program gets the variables, up to the first `=` their names.
    #[test]
    fn variables_are_the_programs() {
        let file = std::env::temp_dir().join(format!("memtrace-set-{}", std::process::id()));
        let command = ["sh", "-c", "[ \"$SOME_NAME\" = a=b ]"].map(str::to_owned).to_vec();
        for (variables, code) in [(vec!["SOME_NAME=a=b".to_owned()], 0), (Vec::new(), 1)] {
            let options = Options { variables, file: file.clone(), command: command.clone() };
            assert_eq!(run(&options).unwrap(), ExitCode::from(code));
        }
        fs::remove_file(&file).unwrap();
    }
}
