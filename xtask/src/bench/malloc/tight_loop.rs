//! What a pair of malloc and free takes under each tool, one pair after the other without a pause: the worst case.
//!
//! In: a bed and tools. Out: a table. The tools take turns, in another order each round, so that a machine that becomes
//! slower slows all alike. A tool's ratio to another is that within a round; what is told is the median over the rounds.
//!
//! The bare price of the traps is measured with memtrace's own probes on the same instructions of the same process, put
//! there by the same means, but with empty programs. memtrace starts the loop itself; under the others it is a child of the
//! process that measures start-ups, whose grandparent bpftrace's script knows.

use std::{fs::File, io::Write};

use anyhow::Context;
use serde_json::json;

use crate::bench::{
    Bed, grouped,
    program::{Program, number},
    quiet,
    said::Said,
    statistics::{Estimate, median},
    table::bar,
    tool::Tool,
};

/// How well memtrace's time must be known: half the width of its 95 % interval over the median.
const HALF_WIDTH: f64 = 0.05;
/// memtrace's time over that of bpftrace's script.
const BAR_OF_MEMLEAK: f64 = 0.25;
/// memtrace's time over that of its probes with empty programs.
const AIM_OF_BARE: f64 = 1.25;

const ALL_TOOLS: [Tool; 9] = [
    Tool::MemtraceBare,
    Tool::MemtraceExact,
    Tool::MemtraceSampled,
    Tool::Bpftrace,
    Tool::AsyncProfiler,
    Tool::AsyncProfilerSampled,
    Tool::Heaptrack,
    Tool::Jemalloc,
    Tool::JemallocSampled,
];

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Length {
    max_rounds: usize,
    /// Of one run of the loop, in milliseconds.
    run_ms: u32,
}

/// One run of the loop.
#[derive(Clone, Debug)]
struct Lap {
    /// The process's CPU time of a pair, in nanoseconds.
    cpu_ns: f64,
    /// Wall time of a pair, in nanoseconds.
    wall_ns: f64,
    /// Pairs, with those of the warm-up.
    n_pairs: u64,
    said: Option<Said>,
}

/// The runs of one tool, one a round.
struct Series {
    tool: Option<Tool>,
    laps: Vec<Lap>,
}

impl Length {
    pub(super) fn of(max_rounds: usize, quick: bool) -> Self {
        if quick { Self { max_rounds: 1, run_ms: 300 } } else { Self { max_rounds, run_ms: 1000 } }
    }
}

/// The tools to measure: those that were chosen, or all.
pub(super) fn tools(chosen: &[Tool]) -> Vec<Tool> {
    if chosen.is_empty() { ALL_TOOLS.to_vec() } else { chosen.to_vec() }
}

/// Measures and returns the table's lines.
pub(super) fn run(bed: &Bed, tools: &[Tool], length: Length) -> anyhow::Result<Vec<String>> {
    let program = Program::compile(bed, "tight_loop", include_str!("tight_loop.c"))?;
    let (installed, absent): (Vec<Tool>, Vec<Tool>) =
        tools.iter().partition(|tool| tool.is_installed());
    let all = [None].into_iter().chain(installed.into_iter().map(Some));
    let mut series: Vec<Series> = all.map(|tool| Series { tool, laps: Vec::new() }).collect();
    let file = bed.folder.join("malloc-loop.jsonl");
    let mut raw =
        File::create(&file).with_context(|| format!("failed to create {}", file.display()))?;
    let (mut n_noisy, n) = (0, series.len());
    for round in 0..length.max_rounds {
        if of_tool(&series, Some(Tool::MemtraceExact)).is_some_and(Series::is_precise) {
            break;
        }
        for turn in 0..n {
            let series = &mut series[(round + turn) % n];
            n_noisy += usize::from(!quiet::wait_until_quiet());
            series.add_lap(bed, &program, length.run_ms)?;
            series.record_last(&mut raw).context("failed to write the raw figures")?;
        }
    }
    let mut lines = table(&series);
    lines.extend(absent.iter().map(|tool| format!("{:<28} not installed", tool.name())));
    if n_noisy > 0 {
        lines.push(format!("{n_noisy} runs began while the machine was busy"));
    }
    lines.extend(series.iter().flat_map(Series::memtrace_lines));
    lines.extend(bars(&series));
    Ok(lines)
}

impl Series {
    fn name(&self) -> &'static str {
        self.tool.map_or("untraced", Tool::name)
    }

    fn add_lap(&mut self, bed: &Bed, program: &Program, run_ms: u32) -> anyhow::Result<()> {
        let target = program.target_of_words([(f64::from(run_ms) / 1e3).to_string()]);
        let said = match self.tool {
            Some(tool) if tool.is_memtrace() => Some(bed.trace(tool, &target)?),
            tool => bed.measure(tool, &target).map(|_| None)?,
        };
        let figures = program.take_figures()?;
        let [pairs, warm_up, cpu_ns, wall_ns] =
            ["pairs", "warm_up", "cpu_ns", "wall_ns"].map(|name| number(&figures, name));
        let pairs = pairs?;
        self.laps.push(Lap {
            cpu_ns: cpu_ns? as f64 / pairs as f64,
            wall_ns: wall_ns? as f64 / pairs as f64,
            n_pairs: pairs + warm_up?,
            said,
        });
        Ok(())
    }

    fn record_last(&self, raw: &mut File) -> std::io::Result<()> {
        let Some(lap) = self.laps.last() else { return Ok(()) };
        let (name, n) = (self.name(), self.laps.len());
        eprintln!("{name}, round {n}: {:.1} ns of CPU a pair", lap.cpu_ns);
        let said = lap.said.as_ref().map(Said::to_json);
        let line = json!({
            "tool": name, "round": n, "cpu_ns": lap.cpu_ns, "wall_ns": lap.wall_ns,
            "pairs": lap.n_pairs, "said": said,
        });
        writeln!(raw, "{line}")
    }

    fn cpu_ns(&self) -> Vec<f64> {
        self.laps.iter().map(|lap| lap.cpu_ns).collect()
    }

    fn is_precise(&self) -> bool {
        Estimate::of(&self.cpu_ns()).is_some_and(|it| it.is_within(HALF_WIDTH * it.median))
    }

    /// The median of the rounds' ratios to another tool.
    fn ratio_to(&self, other: &Series) -> Option<f64> {
        let pairs = self.laps.iter().zip(&other.laps);
        median(&pairs.map(|(own, other)| own.cpu_ns / other.cpu_ns).collect::<Vec<_>>())
    }

    /// What memtrace saw, lost and took. Only of its exact mode: its empty programs see nothing.
    fn memtrace_lines(&self) -> Vec<String> {
        if self.tool != Some(Tool::MemtraceExact) {
            return Vec::new();
        }
        let name = self.name();
        let most = |of: fn(&Said) -> u64| {
            self.laps.iter().filter_map(|lap| lap.said.as_ref()).map(of).max()
        };
        let (Some(lost), Some(left_out), Some(rss), Some(intervals)) = (
            most(Said::n_lost),
            most(|said| said.n_left_out),
            most(|said| said.max_rss_bytes),
            most(|said| said.n_intervals),
        ) else {
            return vec![format!("{name}: nothing in its report")];
        };
        let saids =
            || self.laps.iter().filter_map(|lap| Some((lap.n_pairs as f64, lap.said.as_ref()?)));
        let median_of = |of: fn(f64, &Said) -> f64| {
            median(&saids().map(|(n, said)| of(n, said)).collect::<Vec<_>>()).unwrap_or_default()
        };
        let seen = median_of(|n_pairs, said| said.n_calls("malloc") as f64 / n_pairs);
        let own_ns = median_of(|n_pairs, said| said.cpu_seconds * 1e9 / n_pairs);
        vec![
            format!(
                "{name}: at most {} events lost, {} stacks left out in {intervals} intervals; \
                 {:.2} % of the calls of malloc seen",
                grouped(lost),
                grouped(left_out),
                seen * 100.0
            ),
            format!(
                "{name}: {own_ns:.0} ns of its own CPU a pair, RSS {:.0} MB at most",
                rss as f64 / 1e6
            ),
        ]
    }
}

fn of_tool(series: &[Series], tool: Option<Tool>) -> Option<&Series> {
    series.iter().find(|series| series.tool == tool)
}

fn table(series: &[Series]) -> Vec<String> {
    let mut lines = vec![
        "malloc and free in a loop; CPU time of the process, a pair".to_owned(),
        format!(
            "{:<28} {:>8}  {:<17} {:>8}  {:>10} {:>8} {:>9} {:>6}",
            "", "ns", "95 % interval", "wall ns", "× untraced", "× empty", "× memleak", "rounds"
        ),
    ];
    lines.extend(series.iter().filter_map(|row| {
        let cpu = Estimate::of(&row.cpu_ns())?;
        let wall = median(&row.laps.iter().map(|lap| lap.wall_ns).collect::<Vec<_>>())?;
        let interval = match cpu.interval {
            Some((low, high)) => format!("{low:.1} – {high:.1}"),
            None => format!("({:.1} – {:.1})", cpu.range.0, cpu.range.1),
        };
        let to = |tool| {
            let ratio = of_tool(series, tool).and_then(|other| row.ratio_to(other));
            ratio.map_or(String::new(), |ratio| format!("{ratio:.3}"))
        };
        Some(format!(
            "{:<28} {:>8.1}  {interval:<17} {wall:>8.1}  {:>10} {:>8} {:>9} {:>6}",
            row.name(),
            cpu.median,
            to(None),
            to(Some(Tool::MemtraceBare)),
            to(Some(Tool::Bpftrace)),
            cpu.n_pairs,
        ))
    }));
    if series.iter().any(|row| row.laps.len() < 6) {
        lines.push("(…): smallest and largest; too few rounds for an interval".to_owned());
    }
    lines
}

fn bars(series: &[Series]) -> Vec<String> {
    let exact = of_tool(series, Some(Tool::MemtraceExact));
    let to = |tool| exact.zip(of_tool(series, Some(tool))).and_then(|(own, it)| own.ratio_to(it));
    let show = |ratio: f64| format!("{ratio:.3} ×");
    let bars = [
        ("bar", "of bpftrace's, memleak-like", Tool::Bpftrace, BAR_OF_MEMLEAK),
        ("aim", "of its probes', empty", Tool::MemtraceBare, AIM_OF_BARE),
    ];
    let line = |(kind, whose, tool, most)| {
        Some(bar(kind, &format!("memtrace's time, {whose}"), to(tool)?, most, show))
    };
    bars.into_iter().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::said;

    fn series(tool: Option<Tool>, cpu_ns: &[f64]) -> Series {
        let lap = |ns: &f64| Lap { cpu_ns: *ns, wall_ns: 2.0 * ns, n_pairs: 40, said: None };
        Series { tool, laps: cpu_ns.iter().map(lap).collect() }
    }

    /// The ratio is the median of the rounds', each against what the other tool took in the same round.
    #[test]
    fn ratios_are_of_the_same_round() {
        let all = [
            series(None, &[10.0, 10.0, 20.0]),
            series(Some(Tool::MemtraceBare), &[2000.0, 2000.0, 4000.0]),
            series(Some(Tool::MemtraceExact), &[3000.0, 2400.0, 5200.0]),
            series(Some(Tool::Bpftrace), &[12000.0, 12000.0, 20000.0]),
        ];
        let text = table(&all).join("\n");
        let want =
            "malloc and free in a loop; CPU time of the process, a pair
                                   ns  95 % interval      wall ns  × untraced  × empty × memleak rounds
untraced                         10.0  (10.0 – 20.0)         20.0       1.000    0.005     0.001      3
memtrace's probes, empty       2000.0  (2000.0 – 4000.0)   4000.0     200.000    1.000     0.167      3
memtrace, malloc exact         3000.0  (2400.0 – 5200.0)   6000.0     260.000    1.300     0.250      3
bpftrace, memleak-like        12000.0  (12000.0 – 20000.0)  24000.0    1200.000    6.000     1.000      3
(…): smallest and largest; too few rounds for an interval";
        assert_eq!(text, want);
        let want = [
            "bar: memtrace's time, of bpftrace's, memleak-like: 0.250 × (bar 0.250 ×): met",
            "aim: memtrace's time, of its probes', empty: 1.300 × (aim 1.250 ×): missed",
        ];
        assert_eq!(bars(&all), want);
        assert!(bars(&all[..1]).is_empty(), "what was not measured is not judged");
    }

    /// What memtrace lost is told of the worst round, and how much it saw of what the program did.
    #[test]
    fn what_memtrace_lost() {
        let mut exact = series(Some(Tool::MemtraceExact), &[3000.0, 3000.0]);
        assert_eq!(exact.memtrace_lines(), ["memtrace, malloc exact: nothing in its report"]);
        for (lap, n) in exact.laps.iter_mut().zip([0, 5000]) {
            lap.said =
                Some(said::tests::said(&json!({"ring_full": n, "stacks_left_out": 2 * n}), &[]));
        }
        let want = [
            "memtrace, malloc exact: at most 5,000 events lost, 10,000 stacks left out in 0 intervals; \
             25.00 % of the calls of malloc seen",
            "memtrace, malloc exact: 12500000 ns of its own CPU a pair, RSS 70 MB at most",
        ];
        assert_eq!(exact.memtrace_lines(), want);
    }

    /// Six equal rounds are enough; five, or uneven ones, are not.
    #[test]
    fn when_to_stop() {
        for (ns, want) in
            [(&[9.0; 6][..], true), (&[9.0; 5], false), (&[9.0, 9.0, 9.0, 10.0, 9.0, 9.0], false)]
        {
            assert_eq!(series(None, ns).is_precise(), want, "{ns:?}");
        }
    }
}
