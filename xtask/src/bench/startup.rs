//! `cargo xtask bench startup`: the demo application's start-up, traced against untraced.
//!
//! In: a bed with everything built. Out: a table. Each traced run has an untraced one beside it,
//! and their order changes from pair to pair, so that a machine that becomes slower or warmer
//! slows both alike. The result is the median of the pairs' ratios. What has a bar gets pairs until
//! that median is known well enough; the other tools are there to compare with, and a few are enough.

use std::{
    fs::File,
    io::{self, Write},
    path::PathBuf,
};

use anyhow::Context;
use serde_json::json;

use super::{
    Bed, bystander, quiet,
    run::Run,
    said::Said,
    statistics::Estimate,
    table::{self, Report, Row},
    target::Target,
    tool::Tool,
};

/// How well the ratio must be known: half the width of its 95 % interval.
const HALF_WIDTH: f64 = 0.02;

const ALL_TOOLS: [Tool; 11] = [
    Tool::Memtrace,
    Tool::MemtraceExact,
    Tool::MemtraceSampled,
    Tool::MemtraceBare,
    Tool::Strace,
    Tool::Bpftrace,
    Tool::AsyncProfiler,
    Tool::AsyncProfilerSampled,
    Tool::Heaptrack,
    Tool::Jemalloc,
    Tool::JemallocSampled,
];

/// What to measure and how long.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Measure only this tool; may be given several times
    #[arg(long = "tool", value_name = "TOOL")]
    tools: Vec<Tool>,

    /// Stop after this many pairs of memtrace in each of its modes, however wide the interval
    #[arg(long, value_name = "N", default_value_t = 160)]
    max_pairs: usize,

    /// Run this many pairs of each other tool
    #[arg(long, value_name = "N", default_value_t = 3)]
    peer_pairs: usize,

    /// Run one pair of each, as a trial of the benchmark itself
    #[arg(long)]
    quick: bool,

    /// Measure this memtrace in place of the one built from the sources
    #[arg(long, value_name = "FILE")]
    pub(super) memtrace: Option<PathBuf>,
}

/// The pairs of one tool.
struct Series {
    tool: Tool,
    pairs: Vec<Pair>,
}

/// A run with the tool and one without.
struct Pair {
    untraced: Run,
    traced: Run,
}

/// Fetches what the tools to be measured are made of.
pub(crate) fn prepare(bed: &Bed, options: &Options) -> anyhow::Result<()> {
    let mut installed = options.chosen().into_iter().filter(|tool| tool.is_installed());
    installed.try_for_each(|tool| tool.prepare(bed))
}

/// Measures and prints.
pub(crate) fn run(bed: &Bed, demo: &Target, options: &Options) -> anyhow::Result<()> {
    let (mut series, absent): (Vec<_>, Vec<_>) = options
        .chosen()
        .into_iter()
        .map(|tool| Series { tool, pairs: Vec::new() })
        .partition(|series| series.tool.is_installed());
    let raw = bed.folder.join("startup.jsonl");
    let mut raw =
        File::create(&raw).with_context(|| format!("failed to create {}", raw.display()))?;
    let mut n_noisy = 0;

    eprintln!("Warming up.");
    bed.measure(None, demo)?;
    while series.iter().any(|series| series.wants_more(options)) {
        for series in series.iter_mut().filter(|series| series.wants_more(options)) {
            n_noisy += series.add_pair(bed, demo)?;
            series.record_last(&mut raw).context("failed to write the raw figures")?;
        }
    }
    let bystander = match options.chosen().contains(&Tool::Memtrace) {
        true => Some(bystander::measure(&bed.memtrace)?),
        false => None,
    };
    let report = Report {
        rows: series.iter().filter_map(Series::row).collect(),
        absent: absent.iter().map(|series| series.tool.name()).collect(),
        untraced: series
            .iter()
            .flat_map(|series| &series.pairs)
            .map(|pair| pair.untraced.clone())
            .collect(),
        bystander,
        n_noisy,
        half_width: HALF_WIDTH,
    };
    write!(io::stdout().lock(), "{}", table::format(&report)).context("failed to write the table")
}

impl Options {
    fn chosen(&self) -> Vec<Tool> {
        if self.tools.is_empty() { ALL_TOOLS.to_vec() } else { self.tools.clone() }
    }
}

impl Series {
    fn wants_more(&self, options: &Options) -> bool {
        let n = self.pairs.len();
        match (options.quick, self.tool) {
            (true, _) => n < 1,
            (false, tool) if tool.bars().is_some() => n < options.max_pairs && !self.is_precise(),
            (false, _) => n < options.peer_pairs,
        }
    }

    /// Whether wall and CPU are both known well enough.
    fn is_precise(&self) -> bool {
        self.row().is_some_and(|Row { wall, cpu, .. }| {
            wall.is_within(HALF_WIDTH) && cpu.is_within(HALF_WIDTH)
        })
    }

    fn row(&self) -> Option<Row> {
        let ratios = |of: fn(&Run) -> f64| -> Vec<f64> {
            self.pairs.iter().map(|pair| of(&pair.traced) / of(&pair.untraced)).collect()
        };
        Some(Row {
            name: self.tool.name(),
            wall: Estimate::of(&ratios(|run| run.timing.wall_seconds()))?,
            cpu: Estimate::of(&ratios(|run| run.timing.usage.cpu_seconds))?,
            bars: self.tool.bars(),
            traced: self.pairs.iter().map(|pair| pair.traced.clone()).collect(),
        })
    }

    /// Runs a pair; returns how many of its runs began on a busy machine.
    fn add_pair(&mut self, bed: &Bed, demo: &Target) -> anyhow::Result<usize> {
        let mut n_noisy = 0;
        let mut measure = |tool| {
            n_noisy += usize::from(!quiet::wait_until_quiet());
            bed.measure(tool, demo)
        };
        let (untraced, traced) = if self.pairs.len().is_multiple_of(2) {
            let untraced = measure(None)?;
            (untraced, measure(Some(self.tool))?)
        } else {
            let traced = measure(Some(self.tool))?;
            (measure(None)?, traced)
        };
        self.pairs.push(Pair { untraced, traced });
        Ok(n_noisy)
    }

    /// Says what the last pair gave, to the user and to the file of raw figures.
    fn record_last(&self, raw: &mut File) -> io::Result<()> {
        let Some(Pair { untraced, traced }) = self.pairs.last() else { return Ok(()) };
        let [wall, traced_wall] = [untraced, traced].map(|run| run.timing.wall_seconds());
        let [cpu, traced_cpu] = [untraced, traced].map(|run| run.timing.usage.cpu_seconds);
        eprintln!(
            "{}, pair {}: wall {wall:.2} -> {traced_wall:.2} s, CPU {cpu:.2} -> {traced_cpu:.2} s",
            self.tool.name(),
            self.pairs.len(),
        );
        let said = traced.memtrace.as_ref().and_then(|tracer| tracer.said.as_ref());
        let line = json!({
            "tool": self.tool.name(), "pair": self.pairs.len(),
            "wall_seconds": [wall, traced_wall], "cpu_seconds": [cpu, traced_cpu],
            "said": said.map(Said::to_json),
        });
        writeln!(raw, "{line}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{process::Usage, timed::Timing};

    fn run(wall_seconds: f64, cpu_seconds: f64) -> Run {
        let usage = Usage { cpu_seconds, max_rss_bytes: 1 };
        let timing =
            Timing { exec_ns: 0, end_ns: (wall_seconds * 1e9) as u64, usage, own_cpu_seconds: 0.0 };
        Run { timing, memtrace: None }
    }

    fn series(tool: Tool, ratios: &[f64]) -> Series {
        let pair = |ratio: &f64| Pair { untraced: run(8.0, 10.0), traced: run(8.0 * ratio, 10.0) };
        Series { tool, pairs: ratios.iter().map(pair).collect() }
    }

    fn options(quick: bool) -> Options {
        Options { tools: Vec::new(), max_pairs: 12, peer_pairs: 3, quick, memtrace: None }
    }

    /// memtrace is measured until the interval is narrow or the pairs are used up, others thrice.
    #[test]
    fn when_to_stop() {
        let steady = [1.03; 6];
        let shaky = [1.0, 1.1, 1.0, 1.1, 1.0, 1.1];
        let cases: [(Tool, &[f64], bool, bool); 9] = [
            (Tool::Memtrace, &[], false, true),
            (Tool::Memtrace, &steady[..5], false, true), // too few for an interval
            (Tool::Memtrace, &steady, false, false),
            (Tool::Memtrace, &shaky, false, true),
            (Tool::Memtrace, &[shaky, shaky].concat(), false, false),
            (Tool::Strace, &[6.0, 6.5], false, true),
            (Tool::Strace, &[6.0, 6.5, 7.0], false, false),
            (Tool::Memtrace, &[1.03], true, false),
            (Tool::MemtraceExact, &shaky, false, true),
        ];
        for (tool, ratios, quick, want) in cases {
            let series = series(tool, ratios);
            assert_eq!(series.wants_more(&options(quick)), want, "{tool:?} {ratios:?} {quick}");
        }
    }

    /// The ratio of each pair counts, not the ratio of medians.
    #[test]
    fn rows_are_ratios() {
        let row = series(Tool::Memtrace, &[1.0, 1.5, 1.25]).row().unwrap();
        assert_eq!((row.wall.median, row.cpu.median), (1.25, 1.0));
        assert!(series(Tool::Memtrace, &[]).row().is_none());
    }
}
