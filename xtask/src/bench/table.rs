//! The benchmark's result as text.
//!
//! In: estimates and memtrace's own figures. Out: the table, with each bar as met or missed.
//! Computes medians and shares only; measures nothing and prints nothing.

use std::fmt::Write;

use super::{
    bystander::Bystander,
    statistics::{Estimate, median},
    tool::{Run, Tracer},
};

/// The target's wall and CPU time, traced over untraced.
const MOST_RATIO: f64 = 1.05;
const MOST_RSS_BYTES: f64 = 150e6;
/// memtrace's CPU time over the target's.
const MOST_CPU_SHARE: f64 = 0.10;

/// Everything that was measured.
pub(crate) struct Report {
    /// One a tool, in the order to print.
    pub(crate) rows: Vec<Row>,
    /// Tools that are not installed.
    pub(crate) absent: Vec<&'static str>,
    /// Every untraced run.
    pub(crate) untraced: Vec<Run>,
    /// What memtrace took in each run, and the run.
    pub(crate) tracers: Vec<(Tracer, Run)>,
    /// What others on the host pay.
    pub(crate) bystander: Option<Bystander>,
    /// How many runs began on a busy machine.
    pub(crate) n_noisy: usize,
    /// How well memtrace's ratio should be known.
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
    /// Whether a wide interval is worth a word.
    pub(crate) must_be_precise: bool,
}

/// The whole table.
pub(crate) fn format(report: &Report) -> String {
    let mut lines = vec![format!(
        "{:<28} {:>7}  {:<15} {:>7}  {:<15} {:>5}",
        "", "wall ×", "95 % interval", "CPU ×", "95 % interval", "pairs"
    )];
    lines.extend(untraced_line(&report.untraced));
    lines.extend(report.rows.iter().map(row_line));
    lines.extend(report.absent.iter().map(|name| format!("{name:<28} not installed")));
    lines.push(String::new());
    let is_wide = |row: &&Row| {
        let precise = [row.wall, row.cpu].iter().all(|ratio| ratio.is_within(report.half_width));
        row.must_be_precise && !precise
    };
    for row in report.rows.iter().filter(is_wide) {
        lines.push(format!("{}: the interval is wider than ± {}", row.name, report.half_width));
    }
    if report.rows.iter().any(|row| row.wall.interval.is_none()) {
        lines.push("(…): smallest and largest ratio; too few pairs for an interval".to_owned());
    }
    if report.n_noisy > 0 {
        lines.push(format!("{} runs began while the machine was busy", report.n_noisy));
    }
    lines.extend(memtrace_lines(report));
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

fn row_line(Row { name, wall, cpu, .. }: &Row) -> String {
    format!(
        "{name:<28} {:>7.3}  {:<15} {:>7.3}  {:<15} {:>5}",
        wall.median,
        interval(wall),
        cpu.median,
        interval(cpu),
        wall.n_pairs,
    )
}

fn interval(estimate: &Estimate) -> String {
    match estimate.interval {
        Some((low, high)) => format!("{low:.3} – {high:.3}"),
        None => format!("({:.3} – {:.3})", estimate.range.0, estimate.range.1),
    }
}

/// What memtrace itself took, and the bars.
fn memtrace_lines(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    let tracers = &report.tracers;
    let of = |value: fn(&(Tracer, Run)) -> Option<f64>| {
        median(&tracers.iter().filter_map(value).collect::<Vec<_>>())
    };
    let rss = tracers.iter().filter_map(|(tracer, _)| tracer.reported).map(|(_, rss)| rss).max();
    let share = of(|(tracer, run)| Some(cpu_of(tracer) / run.timing.usage.cpu_seconds));
    let start = of(|(tracer, _)| Some(tracer.start_seconds));
    let end = of(|(tracer, _)| Some(tracer.report_seconds));
    if let (Some(start), Some(end)) = (start, end) {
        lines.push(format!(
            "memtrace: {start:.2} s before the target starts, {end:.2} s after it ended"
        ));
    }
    if let (Some(kernel), Some(own)) = (
        of(|(tracer, _)| Some(tracer.cpu_seconds)),
        of(|(tracer, _)| tracer.reported.map(|(cpu, _)| cpu)),
    ) {
        lines.push(format!("memtrace: {own:.2} s of CPU by its report, {kernel:.2} s by wait4"));
    }
    if let Some(Bystander { without_ns, with_ns }) = report.bystander {
        lines.push(format!(
            "other processes: getppid takes {without_ns:.0} ns, {with_ns:.0} ns while memtrace \
             traces another process"
        ));
    }
    for row in report.rows.iter().filter(|row| row.must_be_precise) {
        lines.push(bar("wall", row.wall.median, MOST_RATIO, |x| format!("{x:.3} ×")));
        lines.push(bar("CPU", row.cpu.median, MOST_RATIO, |x| format!("{x:.3} ×")));
        let mb = |bytes: f64| format!("{:.0} MB", bytes / 1e6);
        lines.push(match rss {
            Some(rss) => bar("memtrace's RSS, at most", rss as f64, MOST_RSS_BYTES, mb),
            None => "bar: memtrace's RSS: not in its report".to_owned(),
        });
        let percent = |share: f64| format!("{:.1} % of the target's", share * 100.0);
        lines.extend(share.map(|share| bar("memtrace's CPU", share, MOST_CPU_SHARE, percent)));
    }
    lines
}

/// The larger of both accounts, so that neither can flatter.
fn cpu_of(tracer: &Tracer) -> f64 {
    tracer.reported.map_or(tracer.cpu_seconds, |(cpu, _)| cpu.max(tracer.cpu_seconds))
}

fn bar(what: &str, got: f64, most: f64, show: impl Fn(f64) -> String) -> String {
    let verdict = if got <= most { "met" } else { "missed" };
    format!("bar: {what}: {} (bar {}): {verdict}", show(got), show(most))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{process::Usage, timed::Timing};

    fn run(wall_seconds: u64, cpu_seconds: f64) -> Run {
        let usage = Usage { cpu_seconds, max_rss_bytes: 1 };
        let end_ns = wall_seconds * 1_000_000_000;
        Run { timing: Timing { exec_ns: 0, end_ns, usage, own_cpu_seconds: 0.0 }, memtrace: None }
    }

    fn row(name: &'static str, ratios: &[f64], must_be_precise: bool) -> Row {
        let estimate = Estimate::of(ratios).unwrap();
        Row { name, wall: estimate, cpu: estimate, must_be_precise }
    }

    fn report() -> Report {
        let reported = Some((0.5, 70_000_000));
        let tracer =
            Tracer { start_seconds: 0.25, report_seconds: 0.5, cpu_seconds: 0.6, reported };
        Report {
            rows: vec![row("memtrace", &[1.03; 6], true), row("strace", &[6.0, 7.0], false)],
            absent: vec!["bpftrace"],
            untraced: vec![run(8, 10.0), run(6, 12.0)],
            tracers: vec![(tracer, run(8, 10.0))],
            bystander: Some(Bystander { without_ns: 171.4, with_ns: 219.0 }),
            n_noisy: 2,
            half_width: 0.02,
        }
    }

    #[test]
    fn whole_table() {
        let want =
            "                              wall ×  95 % interval     CPU ×  95 % interval   pairs
untraced                      7.00 s                  11.00 s                      2
memtrace                       1.030  1.030 – 1.030     1.030  1.030 – 1.030       6
strace                         6.500  (6.000 – 7.000)   6.500  (6.000 – 7.000)     2
bpftrace                     not installed

(…): smallest and largest ratio; too few pairs for an interval
2 runs began while the machine was busy
memtrace: 0.25 s before the target starts, 0.50 s after it ended
memtrace: 0.50 s of CPU by its report, 0.60 s by wait4
other processes: getppid takes 171 ns, 219 ns while memtrace traces another process
bar: wall: 1.030 × (bar 1.050 ×): met
bar: CPU: 1.030 × (bar 1.050 ×): met
bar: memtrace's RSS, at most: 70 MB (bar 150 MB): met
bar: memtrace's CPU: 6.0 % of the target's (bar 10.0 % of the target's): met
";
        assert_eq!(format(&report()), want);
    }

    /// A missed bar, a wide interval and a figure that is not there are all said.
    #[test]
    fn bad_news() {
        let mut report = report();
        report.rows = vec![row("memtrace", &[1.0, 1.2, 1.2, 1.2, 1.2, 1.4], true)];
        report.tracers[0].0.reported = None;
        report.tracers[0].0.cpu_seconds = 2.0;
        let text = format(&report);
        for line in [
            "memtrace: the interval is wider than ± 0.02\n",
            "bar: wall: 1.200 × (bar 1.050 ×): missed\n",
            "bar: memtrace's RSS: not in its report\n",
            "bar: memtrace's CPU: 20.0 % of the target's (bar 10.0 % of the target's): missed\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }
}
