//! The tools that are measured, and how each is put on the target.
//!
//! In: a tool and a bed. Out: one measured run of the target under it, or untraced.

use std::{
    env, fs,
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, bail};
use clap::ValueEnum;
use serde_json::Value;

use super::{
    Bed, async_profiler, clean_command, process,
    timed::{Timing, seconds_between},
};
use crate::{bpf_toolchain::Places, demo::JAVA};

/// A tool that tells where memory comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tool {
    /// memtrace with default settings.
    Memtrace,
    /// strace of the calls that obtain and return memory.
    Strace,
    /// A bpftrace script that does what bcc's memleak does.
    Bpftrace,
    /// async-profiler as an agent, every malloc.
    AsyncProfiler,
    /// async-profiler as an agent, a sample each 512 KiB.
    AsyncProfilerSampled,
}

/// One run of the target.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// What the target took.
    pub(crate) timing: Timing,
    /// What memtrace took, if it was the tool.
    pub(crate) memtrace: Option<Tracer>,
}

/// What memtrace itself took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Tracer {
    /// From memtrace's start to the target's exec.
    pub(crate) start_seconds: f64,
    /// From the target's end to memtrace's.
    pub(crate) report_seconds: f64,
    /// CPU time, as the kernel accounted it.
    pub(crate) cpu_seconds: f64,
    /// CPU time and largest RSS, as memtrace's own report says.
    pub(crate) reported: Option<(f64, u64)>,
}

impl Tool {
    /// The tool's row in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memtrace => "memtrace",
            Self::Strace => "strace -f, memory calls",
            Self::Bpftrace => "bpftrace, memleak-like",
            Self::AsyncProfiler => "async-profiler, every call",
            Self::AsyncProfilerSampled => "async-profiler, 512 KiB",
        }
    }

    /// Whether it can run here.
    pub(crate) fn is_installed(self) -> bool {
        let places = Places::of_this_machine();
        match self {
            Self::Memtrace => true,
            Self::Strace => places.program("strace").is_some(),
            Self::Bpftrace => places.program("bpftrace").is_some(),
            Self::AsyncProfiler | Self::AsyncProfilerSampled => places.program("mvn").is_some(),
        }
    }

    /// The words in front of the target's command line.
    fn prefix(self, bed: &Bed) -> Vec<String> {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        match self {
            Self::Memtrace => {
                words(&[&path(&bed.memtrace), "--json", &path(&bed.memtrace_json()), "--"])
            }
            Self::Strace => {
                let calls = "trace=mmap,munmap,mremap,mprotect,brk,madvise";
                words(&[
                    "strace",
                    "-f",
                    "-qq",
                    "-o",
                    &path(&bed.folder.join("strace.txt")),
                    "-e",
                    calls,
                ])
            }
            Self::Bpftrace | Self::AsyncProfiler | Self::AsyncProfilerSampled => Vec::new(),
        }
    }

    /// The JVM option that loads the tool into the target; the tool is fetched if need be.
    pub(super) fn agent(self, bed: &Bed) -> anyhow::Result<Option<String>> {
        let interval = match self {
            Self::AsyncProfiler => 0,
            Self::AsyncProfilerSampled => 524_288,
            Self::Memtrace | Self::Strace | Self::Bpftrace => return Ok(None),
        };
        let library = path(&async_profiler::fetch(&bed.folder)?);
        let recording = path(&bed.folder.join("async-profiler.jfr"));
        Ok(Some(format!("-agentpath:{library}=start,nativemem={interval},file={recording}")))
    }
}

impl Bed {
    fn memtrace_json(&self) -> PathBuf {
        self.folder.join("memtrace.json")
    }

    /// Runs the target once, traced by `tool` or untraced.
    pub(crate) fn measure(&self, tool: Option<Tool>) -> anyhow::Result<Run> {
        let beside = match tool {
            Some(Tool::Bpftrace) => Some(Beside::start_bpftrace(&self.folder)?),
            _ => None,
        };
        let run = self.measure_alone(tool);
        let ended = beside.map_or(Ok(()), Beside::stop);
        let run = run?;
        ended.map(|()| run)
    }

    fn measure_alone(&self, tool: Option<Tool>) -> anyhow::Result<Run> {
        let timing_file = self.folder.join("timing.json");
        let log = self.folder.join("last-run.log");
        for stale in [&timing_file, &self.memtrace_json()] {
            // Not there is as good as removed; what a run failed to write must not look written.
            let _ = fs::remove_file(stale);
        }
        let mut command = self.command(tool, &timing_file)?;
        let output =
            File::create(&log).with_context(|| format!("failed to create {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);

        let start_ns = process::now_ns();
        let child = command.spawn().context("failed to start the measured command")?;
        let (status, usage) = process::wait(&child)?;
        let end_ns = process::now_ns();
        if !status.success() {
            bail!("the measured command ended with {status}; what it said is in {}", log.display());
        }
        let timing = Timing::read(&timing_file)?;
        let memtrace = (tool == Some(Tool::Memtrace)).then(|| Tracer {
            start_seconds: seconds_between(start_ns, timing.exec_ns),
            report_seconds: seconds_between(timing.end_ns, end_ns),
            // wait4 counts what memtrace waited for: the measuring process and the target.
            cpu_seconds: (usage.cpu_seconds - timing.usage.cpu_seconds - timing.own_cpu_seconds)
                .max(0.0),
            reported: fs::read_to_string(self.memtrace_json()).ok().as_deref().and_then(parse_self),
        });
        Ok(Run { timing, memtrace })
    }

    /// The tool's prefix, the measuring process, and the target.
    fn command(&self, tool: Option<Tool>, timing_file: &Path) -> anyhow::Result<Command> {
        let mut words = tool.map(|tool| tool.prefix(self)).unwrap_or_default();
        let xtask = env::current_exe().context("failed to find the running program")?;
        words.extend([path(&xtask), "__timed".to_owned(), path(timing_file), "--".to_owned()]);
        words.push(JAVA[0].to_owned());
        words.extend(tool.map_or(Ok(None), |tool| tool.agent(self))?);
        words.extend(JAVA[1..].iter().map(|word| (*word).to_owned()));
        words.push(path(&self.jar));
        let mut command = clean_command(&words[0]);
        command.args(&words[1..]);
        Ok(command)
    }
}

/// A tool that runs beside the target rather than around it.
struct Beside {
    child: Child,
}

impl Beside {
    /// Starts the script and waits until its probes are attached.
    fn start_bpftrace(folder: &Path) -> anyhow::Result<Self> {
        let script = folder.join("memleak.bt");
        fs::write(&script, include_str!("memleak.bt"))
            .with_context(|| format!("failed to write {}", script.display()))?;
        let mut child = clean_command("bpftrace")
            .arg(&script)
            .arg(std::process::id().to_string())
            .env("BPFTRACE_MAP_KEYS_MAX", "1000000")
            .stdout(Stdio::piped())
            // It grumbles on detaching where tracefs is not mounted; its figures are not used.
            .stderr(Stdio::null())
            .spawn()
            .context("failed to start bpftrace")?;
        let output = child.stdout.take().context("failed to read from bpftrace")?;
        let mut lines = BufReader::new(output).lines();
        if !lines.any(|line| line.is_ok_and(|line| line == "attached")) {
            process::wait(&child)?;
            bail!("failed to attach bpftrace: it ended before its probes were in place");
        }
        // Keeps the pipe drained, so that its closing lines do not stop it.
        std::thread::spawn(move || lines.count());
        Ok(Self { child })
    }

    fn stop(self) -> anyhow::Result<()> {
        process::ask_to_end(&self.child);
        process::wait(&self.child).context("failed to wait for bpftrace")?;
        Ok(())
    }
}

/// CPU seconds and largest RSS in memtrace's JSON report.
fn parse_self(json: &str) -> Option<(f64, u64)> {
    let report: Value = serde_json::from_str(json).ok()?;
    let own = &report["self"];
    Some((own["cpu_seconds"].as_f64()?, own["max_rss_bytes"].as_u64()?))
}

fn path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bed() -> Bed {
        Bed { memtrace: "/m/memtrace".into(), jar: "/m/demo.jar".into(), folder: "/m/bench".into() }
    }

    fn words(tool: Option<Tool>) -> Vec<String> {
        let command = bed().command(tool, Path::new("/m/t")).unwrap();
        let program = command.get_program().to_string_lossy().into_owned();
        std::iter::once(program)
            .chain(command.get_args().map(|word| word.to_string_lossy().into_owned()))
            .collect()
    }

    /// Whatever the tool, the target's command line is the same, measured by the same process.
    #[test]
    fn every_tool_runs_the_same_target() {
        let untraced = words(None);
        assert_eq!(untraced[1..5], ["__timed", "/m/t", "--", "java"]);
        assert_eq!(untraced[untraced.len() - 2..], ["-jar", "/m/demo.jar"]);
        for tool in [Tool::Memtrace, Tool::Strace, Tool::Bpftrace] {
            let traced = words(Some(tool));
            assert!(traced.ends_with(&untraced), "{traced:?}");
        }
        assert_eq!(
            words(Some(Tool::Memtrace))[..4],
            ["/m/memtrace", "--json", "/m/bench/memtrace.json", "--"]
        );
        assert_eq!(words(Some(Tool::Bpftrace)), untraced, "runs beside the target");
    }

    /// The figures are taken whole or not at all.
    #[test]
    fn self_figures() {
        let cases = [
            (
                r#"{"self": {"cpu_seconds": 0.5, "max_rss_bytes": 70000000}}"#,
                Some((0.5, 70_000_000)),
            ),
            (r#"{"self": {"cpu_seconds": 0.5}}"#, None),
            (r#"{"schema": 1}"#, None),
            ("", None),
        ];
        for (json, want) in cases {
            assert_eq!(parse_self(json), want, "{json}");
        }
    }
}
