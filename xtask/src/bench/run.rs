//! One measured run of a target, under a tool or untraced.
//!
//! In: a bed, a tool, a target. Out: what the target took, and what memtrace took if it was the tool.

use std::{
    env, fs,
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};

use super::{
    Bed,
    beside::Beside,
    clean_command, path, process,
    said::Said,
    target::Target,
    timed::{Timing, seconds_between},
    tool::Tool,
};

/// One run of the target.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// What the target took.
    pub(crate) timing: Timing,
    /// What memtrace took, if it was the tool.
    pub(crate) memtrace: Option<Tracer>,
}

/// What memtrace itself took.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tracer {
    /// From memtrace's start to the target's exec.
    pub(crate) start_seconds: f64,
    /// From the target's end to memtrace's.
    pub(crate) report_seconds: f64,
    /// CPU time, as the kernel accounted it.
    pub(crate) cpu_seconds: f64,
    /// What memtrace's own report says.
    pub(crate) said: Option<Said>,
}

impl Tracer {
    /// CPU time: the larger of both accounts, so that neither can flatter.
    pub(crate) fn most_cpu_seconds(&self) -> f64 {
        self.said.as_ref().map_or(self.cpu_seconds, |said| said.cpu_seconds.max(self.cpu_seconds))
    }
}

impl Bed {
    /// Where memtrace writes what it says.
    pub(super) fn memtrace_json(&self) -> PathBuf {
        self.folder.join("memtrace.json")
    }

    /// The target's output, and the tool's.
    fn log(&self) -> PathBuf {
        self.folder.join("last-run.log")
    }

    /// Runs the target once, traced by `tool` or untraced.
    pub(crate) fn measure(&self, tool: Option<Tool>, target: &Target) -> anyhow::Result<Run> {
        let beside = tool.map_or(Ok(None), |tool| Beside::start(tool, self))?;
        let run = self.measure_alone(tool, target);
        let ended = beside.map_or(Ok(()), Beside::stop);
        let run = run?;
        ended.map(|()| run)
    }

    /// Runs the target under memtrace with nothing around it whose blocks would be counted with the target's; returns
    /// what memtrace says.
    pub(crate) fn trace(&self, tool: Tool, target: &Target) -> anyhow::Result<Said> {
        let mut words = tool.memtrace(self);
        words.extend(target.words(None));
        self.finish(command(&words))?;
        self.said()
    }

    fn measure_alone(&self, tool: Option<Tool>, target: &Target) -> anyhow::Result<Run> {
        let timing_file = self.folder.join("timing.json");
        // Not there is as good as removed; what a run failed to write must not look written.
        let _ = fs::remove_file(&timing_file);
        let command = self.command(tool, target, &timing_file)?;
        let start_ns = process::now_ns();
        let usage = self.finish(command)?;
        let end_ns = process::now_ns();
        let timing = Timing::read(&timing_file)?;
        let memtrace = tool.is_some_and(Tool::is_memtrace).then(|| Tracer {
            start_seconds: seconds_between(start_ns, timing.exec_ns),
            report_seconds: seconds_between(timing.end_ns, end_ns),
            // wait4 counts what memtrace waited for: the measuring process and the target.
            cpu_seconds: (usage.cpu_seconds - timing.usage.cpu_seconds - timing.own_cpu_seconds)
                .max(0.0),
            said: self.said().ok(),
        });
        Ok(Run { timing, memtrace })
    }

    fn said(&self) -> anyhow::Result<Said> {
        let file = self.memtrace_json();
        let report =
            File::open(&file).with_context(|| format!("failed to open {}", file.display()))?;
        Said::read(report).with_context(|| format!("failed to read {}", file.display()))
    }

    /// Runs a command to its end, which must be a success; returns what it used.
    fn finish(&self, mut command: Command) -> anyhow::Result<process::Usage> {
        let log = self.log();
        let _ = fs::remove_file(self.memtrace_json());
        let output =
            File::create(&log).with_context(|| format!("failed to create {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().context("failed to start the measured command")?;
        let (status, usage) = process::wait(&child)?;
        if !status.success() {
            bail!("the measured command ended with {status}; what it said is in {}", log.display());
        }
        Ok(usage)
    }

    /// The tool's words, the measuring process, and the target.
    fn command(
        &self,
        tool: Option<Tool>,
        target: &Target,
        timing_file: &Path,
    ) -> anyhow::Result<Command> {
        let harness = tool.map(|tool| tool.harness(self, target)).transpose()?.unwrap_or_default();
        let mut words = harness.before;
        let xtask = env::current_exe().context("failed to find the running program")?;
        words.extend([path(&xtask), "__timed".to_owned()]);
        words.extend(harness.variables.into_iter().flat_map(|it| ["--set".to_owned(), it]));
        words.extend([path(timing_file), "--".to_owned()]);
        words.extend(target.words(harness.agent));
        Ok(command(&words))
    }
}

fn command(words: &[String]) -> Command {
    let mut command = clean_command(&words[0]);
    command.args(&words[1..]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(tool: Option<Tool>) -> Vec<String> {
        let bed = Bed { memtrace: "/m/memtrace".into(), folder: "/m/bench".into() };
        let target = Target::demo(Path::new("/m/demo.jar"));
        let command = bed.command(tool, &target, Path::new("/m/t")).unwrap();
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
        for tool in [Tool::Memtrace, Tool::MemtraceExact, Tool::Strace, Tool::Bpftrace] {
            let traced = words(Some(tool));
            assert!(traced.ends_with(&untraced), "{traced:?}");
        }
        for tool in [Tool::Heaptrack, Tool::Jemalloc, Tool::JemallocSampled] {
            let traced = words(Some(tool));
            assert_eq!(traced[..2], untraced[..2], "the measuring process is not preloaded");
            assert!(traced[3].starts_with("LD_PRELOAD=") && traced.ends_with(&untraced[2..]));
        }
        let json = ["--json", "/m/bench/memtrace.json", "--"];
        assert_eq!(words(Some(Tool::Memtrace))[..4], [&["/m/memtrace"], &json[..]].concat());
        let exact = ["/m/memtrace", "--malloc", "exact"];
        assert_eq!(words(Some(Tool::MemtraceExact))[..6], [&exact, &json[..]].concat());
        assert_eq!(words(Some(Tool::Bpftrace)), untraced, "runs beside the target");
    }
}
