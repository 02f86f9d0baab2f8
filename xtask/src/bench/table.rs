//! The start-up benchmark's result as text.
//!
//! In: estimates and memtrace's own figures. Out: the table, with each bar as met or missed.
//! Computes medians and shares only; measures nothing and prints nothing.

use std::fmt::Write;

use super::{
    bystander::Bystander,
    grouped,
    run::{Run, Tracer},
    said::Said,
    statistics::{Estimate, median},
};

/// Everything that was measured.
pub(crate) struct Report {
    /// One a tool, in the order to print.
    pub(crate) rows: Vec<Row>,
    /// Tools that are not installed.
    pub(crate) absent: Vec<&'static str>,
    /// Every untraced run.
    pub(crate) untraced: Vec<Run>,
    /// What others on the host pay.
    pub(crate) bystander: Option<Bystander>,
    /// How many runs began on a busy machine.
    pub(crate) n_noisy: usize,
    /// How well a ratio with a bar should be known.
    pub(crate) half_width: f64,
}

/// One tool's ratios.
#[derive(Debug)]
pub(crate) struct Row {
    /// The tool.
    pub(crate) name: &'static str,
    /// Wall time, traced over untraced.
    pub(crate) wall: Estimate,
    /// CPU time of the target, traced over untraced.
    pub(crate) cpu: Estimate,
    /// What it may cost.
    pub(crate) bars: Option<Bars>,
    /// Its runs.
    pub(crate) traced: Vec<Run>,
}

/// What a tool may cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bars {
    /// The target's wall and CPU time, traced over untraced.
    pub(crate) ratio: f64,
    /// A better ratio, which is wanted.
    pub(crate) aim: Option<f64>,
    /// Its own RSS.
    pub(crate) rss_bytes: Option<f64>,
    /// Its own CPU time over the target's.
    pub(crate) cpu_share: Option<f64>,
    /// Whether it must lose no event and leave no stack out.
    pub(crate) is_lossless: bool,
}

/// The whole table.
pub(crate) fn format(report: &Report) -> String {
    let mut lines = vec![format!(
        "{:<28} {:>7}  {:<15} {:>7}  {:<15} {:>5} {:>8} {:>8}",
        "", "wall ×", "95 % interval", "CPU ×", "95 % interval", "pairs", "lost", "left out"
    )];
    lines.extend(untraced_line(&report.untraced));
    lines.extend(report.rows.iter().map(row_line));
    lines.extend(report.absent.iter().map(|name| format!("{name:<28} not installed")));
    lines.push(String::new());
    let is_wide = |row: &&Row| {
        let precise = [row.wall, row.cpu].iter().all(|ratio| ratio.is_within(report.half_width));
        row.bars.is_some() && !precise
    };
    for row in report.rows.iter().filter(is_wide) {
        lines.push(format!("{}: the interval is wider than ± {}", row.name, report.half_width));
    }
    if report.rows.iter().any(|row| row.wall.interval.is_none()) {
        lines.push("(…): smallest and largest ratio; too few pairs for an interval".to_owned());
    }
    if report.rows.iter().any(|row| row.saids().next().is_some()) {
        lines.push("lost: events; left out: stacks of blocks; of the run with the most".to_owned());
    }
    if report.n_noisy > 0 {
        lines.push(format!("{} runs began while the machine was busy", report.n_noisy));
    }
    if let Some(Bystander { without_ns, with_ns }) = report.bystander {
        lines.push(format!(
            "other processes: getppid takes {without_ns:.0} ns, {with_ns:.0} ns while memtrace \
             traces another process"
        ));
    }
    lines.extend(report.rows.iter().flat_map(memtrace_lines));
    lines.extend(report.rows.iter().flat_map(bar_lines));
    let mut text = String::new();
    for line in lines {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn untraced_line(runs: &[Run]) -> Option<String> {
    let of = |value: fn(&Run) -> f64| median(&runs.iter().map(value).collect::<Vec<_>>());
    let (wall, cpu) =
        (of(|run| run.timing.wall_seconds())?, of(|run| run.timing.usage.cpu_seconds)?);
    let (wall, cpu) = (format!("{wall:.2} s"), format!("{cpu:.2} s"));
    Some(format!("{:<28} {wall:>7}  {:<15} {cpu:>7}  {:<15} {:>5}", "untraced", "", "", runs.len()))
}

fn row_line(row: &Row) -> String {
    let Row { name, wall, cpu, .. } = row;
    let most = |of: fn(&Said) -> u64| row.saids().map(of).max().map(grouped).unwrap_or_default();
    format!(
        "{name:<28} {:>7.3}  {:<15} {:>7.3}  {:<15} {:>5} {:>8} {:>8}",
        wall.median,
        interval(wall),
        cpu.median,
        interval(cpu),
        wall.n_pairs,
        most(Said::n_lost),
        most(|said| said.n_left_out),
    )
}

fn interval(estimate: &Estimate) -> String {
    match estimate.interval {
        Some((low, high)) => format!("{low:.3} – {high:.3}"),
        None => format!("({:.3} – {:.3})", estimate.range.0, estimate.range.1),
    }
}

impl Row {
    fn tracers(&self) -> impl Iterator<Item = (&Tracer, &Run)> {
        self.traced.iter().filter_map(|run| Some((run.memtrace.as_ref()?, run)))
    }

    fn saids(&self) -> impl Iterator<Item = &Said> {
        self.tracers().filter_map(|(tracer, _)| tracer.said.as_ref())
    }

    fn median_of(&self, value: impl Fn(&Tracer, &Run) -> Option<f64>) -> Option<f64> {
        median(&self.tracers().filter_map(|(tracer, run)| value(tracer, run)).collect::<Vec<_>>())
    }

    fn most_rss_bytes(&self) -> Option<f64> {
        self.saids().map(|said| said.max_rss_bytes).max().map(|bytes| bytes as f64)
    }
}

/// What memtrace itself took, and what it saw and lost.
fn memtrace_lines(row: &Row) -> Vec<String> {
    let mut lines = Vec::new();
    let name = row.name;
    let start = row.median_of(|tracer, _| Some(tracer.start_seconds));
    let end = row.median_of(|tracer, _| Some(tracer.report_seconds));
    if let (Some(start), Some(end)) = (start, end) {
        lines.push(format!(
            "{name}: {start:.2} s before the target starts, {end:.2} s after it ended"
        ));
    }
    if let (Some(kernel), Some(own), Some(rss)) = (
        row.median_of(|tracer, _| Some(tracer.cpu_seconds)),
        row.median_of(|tracer, _| tracer.said.as_ref().map(|said| said.cpu_seconds)),
        row.most_rss_bytes(),
    ) {
        lines.push(format!(
            "{name}: {own:.2} s of CPU by its report, {kernel:.2} s by wait4; RSS {} at most",
            megabytes(rss)
        ));
    }
    let said = |of: fn(&Said) -> u64| {
        row.median_of(move |tracer, _| tracer.said.as_ref().map(|said| of(said) as f64))
    };
    let blocks = said(Said::n_allocations).zip(said(Said::n_frees));
    if let Some((got, given_back)) = blocks.filter(|&(got, _)| got > 0.0) {
        let [got, given_back] = [got, given_back].map(|n| grouped(n as u64));
        lines.push(format!(
            "{name}: {got} blocks recorded as handed out, {given_back} as given back"
        ));
    }
    if let Some((most, losses)) =
        row.saids().filter_map(|said| Some((said.n_lost(), said.losses()?))).max()
    {
        lines.push(format!("{name}: lost {}: {losses}", grouped(most)));
    }
    if let Some(most) =
        row.saids().filter(|said| said.n_left_out > 0).max_by_key(|it| it.n_left_out)
    {
        let n_runs = row.saids().filter(|said| said.n_left_out > 0).count();
        lines.push(format!(
            "{name}: in {n_runs} of {} runs stacks were left out; at most {} of them, in {} intervals",
            row.traced.len(),
            grouped(most.n_left_out),
            most.n_intervals
        ));
    }
    lines
}

fn bar_lines(row: &Row) -> Vec<String> {
    let Some(Bars { ratio, aim, rss_bytes, cpu_share, is_lossless }) = row.bars else {
        return Vec::new();
    };
    let mut lines = Vec::new();
    for (what, got) in [("wall", row.wall.median), ("CPU", row.cpu.median)] {
        let what = format!("{}: {what}", row.name);
        lines.push(bar("bar", &what, got, ratio, |x| format!("{x:.3} ×")));
        lines.extend(aim.map(|aim| bar("aim", &what, got, aim, |x| format!("{x:.3} ×"))));
    }
    if let Some(most) = rss_bytes {
        let what = format!("{}: its RSS, at most", row.name);
        lines.push(match row.most_rss_bytes() {
            Some(rss) => bar("bar", &what, rss, most, megabytes),
            None => format!("bar: {what}: not in its report"),
        });
    }
    let share =
        row.median_of(|tracer, run| Some(tracer.most_cpu_seconds() / run.timing.usage.cpu_seconds));
    if let (Some(most), Some(share)) = (cpu_share, share) {
        let percent = |share: f64| format!("{:.1} % of the target's", share * 100.0);
        lines.push(bar("bar", &format!("{}: its CPU", row.name), share, most, percent));
    }
    if is_lossless {
        let n: Option<u64> = row.saids().map(|said| said.n_lost() + said.n_left_out).max();
        let verdict = match n {
            None => "not in its report",
            Some(0) => "met",
            Some(_) => "missed",
        };
        lines.push(format!("bar: {}: nothing lost, nothing left out: {verdict}", row.name));
    }
    lines
}

fn megabytes(bytes: f64) -> String {
    format!("{:.0} MB", bytes / 1e6)
}

/// A line on a bar or an aim: what was got, and whether that is at most what it may be.
pub(super) fn bar(
    kind: &str,
    what: &str,
    got: f64,
    most: f64,
    show: impl Fn(f64) -> String,
) -> String {
    let verdict = if got <= most { "met" } else { "missed" };
    format!("{kind}: {what}: {} ({kind} {}): {verdict}", show(got), show(most))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::bench::{process::Usage, said, timed::Timing, tool::Tool};

    fn run(wall_seconds: u64, cpu_seconds: f64) -> Run {
        let usage = Usage { cpu_seconds, max_rss_bytes: 1 };
        let end_ns = wall_seconds * 1_000_000_000;
        Run { timing: Timing { exec_ns: 0, end_ns, usage, own_cpu_seconds: 0.0 }, memtrace: None }
    }

    fn row(name: &'static str, ratios: &[f64], bars: Option<Bars>) -> Row {
        let estimate = Estimate::of(ratios).unwrap();
        Row { name, wall: estimate, cpu: estimate, bars, traced: Vec::new() }
    }

    /// A row of memtrace's, with what it says of each run: losses and notes.
    fn memtrace(tool: Tool, ratios: &[f64], said: &[(Value, &[&str])]) -> Row {
        let tracer = |(lost, notes): &(Value, &[&str])| Tracer {
            start_seconds: 0.25,
            report_seconds: 0.5,
            cpu_seconds: 0.6,
            said: Some(said::tests::said(lost, notes)),
        };
        let traced = |said| Run { memtrace: Some(tracer(said)), ..run(8, 10.0) };
        Row { traced: said.iter().map(traced).collect(), ..row(tool.name(), ratios, tool.bars()) }
    }

    fn report() -> Report {
        Report {
            rows: vec![
                memtrace(Tool::MemtraceExact, &[1.03; 6], &[(json!({"ring_full": 0}), &[])]),
                row("strace", &[6.0, 7.0], None),
            ],
            absent: vec!["bpftrace"],
            untraced: vec![run(8, 10.0), run(6, 12.0)],
            bystander: Some(Bystander { without_ns: 171.4, with_ns: 219.0 }),
            n_noisy: 2,
            half_width: 0.02,
        }
    }

    #[test]
    fn whole_table() {
        let want =
            "                              wall ×  95 % interval     CPU ×  95 % interval   pairs     lost left out
untraced                      7.00 s                  11.00 s                      2
memtrace, malloc exact         1.030  1.030 – 1.030     1.030  1.030 – 1.030       6        0        0
strace                         6.500  (6.000 – 7.000)   6.500  (6.000 – 7.000)     2
bpftrace                     not installed

(…): smallest and largest ratio; too few pairs for an interval
lost: events; left out: stacks of blocks; of the run with the most
2 runs began while the machine was busy
other processes: getppid takes 171 ns, 219 ns while memtrace traces another process
memtrace, malloc exact: 0.25 s before the target starts, 0.50 s after it ended
memtrace, malloc exact: 0.50 s of CPU by its report, 0.60 s by wait4; RSS 70 MB at most
memtrace, malloc exact: 12 blocks recorded as handed out, 4 as given back
bar: memtrace, malloc exact: wall: 1.030 × (bar 1.500 ×): met
aim: memtrace, malloc exact: wall: 1.030 × (aim 1.300 ×): met
bar: memtrace, malloc exact: CPU: 1.030 × (bar 1.500 ×): met
aim: memtrace, malloc exact: CPU: 1.030 × (aim 1.300 ×): met
bar: memtrace, malloc exact: nothing lost, nothing left out: met
";
        assert_eq!(format(&report()), want);
    }

    fn has_lines(report: &Report, lines: &[&str]) {
        let text = format(report);
        for line in lines {
            assert!(text.contains(line), "{line}{text}");
        }
    }

    /// memtrace without blocks has bars of its own; one that is missed, and a wide interval, are said.
    #[test]
    fn bad_news() {
        let mut report = report();
        report.rows =
            vec![memtrace(Tool::Memtrace, &[1.0, 1.2, 1.2, 1.2, 1.2, 1.4], &[(json!({}), &[])])];
        has_lines(&report, &["bar: memtrace: its RSS, at most: 70 MB (bar 150 MB): met\n"]);
        let tracer = report.rows[0].traced[0].memtrace.as_mut().unwrap();
        (tracer.said, tracer.cpu_seconds) = (None, 2.0);
        has_lines(
            &report,
            &[
                "memtrace: the interval is wider than ± 0.02\n",
                "bar: memtrace: wall: 1.200 × (bar 1.050 ×): missed\n",
                "bar: memtrace: its RSS, at most: not in its report\n",
                "bar: memtrace: its CPU: 20.0 % of the target's (bar 10.0 % of the target's): missed\n",
            ],
        );
    }

    /// One run that lost something is enough, and what is told is the worst run's.
    #[test]
    fn losses() {
        let note = "memtrace was behind from 1.0 s to 3.0 s: 3 calls …";
        let runs: [(Value, &[&str]); 3] = [
            (json!({}), &[]),
            (json!({"ring_full": 1200, "recursion": 3}), &[]),
            (json!({"ring_full": 2, "stacks_left_out": 1_234_567}), &[note, note]),
        ];
        let mut report = report();
        report.rows = vec![memtrace(Tool::MemtraceExact, &[1.4; 6], &runs)];
        has_lines(
            &report,
            &[
                "    6    1,203 1,234,567\n",
                "exact: lost 1,203: recursion 3, ring_full 1200\n",
                "exact: in 1 of 3 runs stacks were left out; at most 1,234,567 of them, in 2 intervals\n",
                "aim: memtrace, malloc exact: wall: 1.400 × (aim 1.300 ×): missed\n",
                "bar: memtrace, malloc exact: nothing lost, nothing left out: missed\n",
            ],
        );
        report.rows = vec![memtrace(Tool::MemtraceExact, &[1.4; 6], &[])];
        has_lines(&report, &["nothing lost, nothing left out: not in its report\n"]);
    }
}
