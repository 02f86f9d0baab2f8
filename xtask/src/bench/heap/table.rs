//! The table of the readers.
//!
//! In: what each run took. Out: text, with a line for each bar. Knows no clock and no file.

use super::{measure::Taken, tools::Reader};
use crate::bench::{
    grouped,
    statistics::{Estimate, median},
    table::bar,
};

/// What the dump has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) file_bytes: u64,
    pub(super) n_objects: u64,
    pub(super) n_references: u64,
}

/// Everything that was measured.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) size: Size,
    /// Runs by reader, one for each round.
    pub(super) rows: Vec<(Reader, Vec<Taken>)>,
    pub(super) n_noisy: usize,
}

/// The whole text.
pub(super) fn format(report: &Report) -> String {
    let Report { size, rows, n_noisy } = report;
    let mut lines = vec![
        format!(
            "dump: {} bytes, {} objects, {} references",
            grouped(size.file_bytes),
            grouped(size.n_objects),
            grouped(size.n_references)
        ),
        format!(
            "{:<26}{:>9}{:>9}{:>9}{:>11}{:>13}{:>11}{:>6}",
            "", "wall s", "CPU s", "MB/s", "objects/s", "anonymous MB", "RSS MB", "runs"
        ),
    ];
    lines.extend(rows.iter().filter_map(|(reader, runs)| row(*size, *reader, runs)));
    lines.push("medians; anonymous: without the mapped dump, largest sample; RSS: with it".into());
    if *n_noisy > 0 {
        lines.push(format!("{n_noisy} runs began while the machine was busy"));
    }
    lines.extend(verdicts(report));
    lines.join("\n") + "\n"
}

fn row(size: Size, reader: Reader, runs: &[Taken]) -> Option<String> {
    let wall = median_of(runs, |run| run.wall_seconds)?;
    let cpu = median_of(runs, |run| run.cpu_seconds)?;
    let anonymous = median_of(runs, |run| run.max_anon_bytes as f64)?;
    let rss = median_of(runs, |run| run.max_rss_bytes as f64)?;
    Some(format!(
        "{:<26}{wall:>9.3}{cpu:>9.3}{:>9.0}{:>11}{:>13.0}{:>11.0}{:>6}",
        reader.name(),
        size.file_bytes as f64 / 1e6 / wall,
        grouped((size.n_objects as f64 / wall) as u64),
        anonymous / 1e6,
        rss / 1e6,
        runs.len()
    ))
}

fn median_of(runs: &[Taken], what: impl Fn(&Taken) -> f64) -> Option<f64> {
    median(&runs.iter().map(what).collect::<Vec<_>>())
}

impl Report {
    fn runs(&self, reader: Reader) -> &[Taken] {
        self.rows.iter().find(|(it, _)| *it == reader).map_or(&[], |(_, runs)| runs)
    }

    /// Wall times of one reader over those of another, of the same rounds.
    fn ratio(&self, of: Reader, to: Reader) -> Option<Estimate> {
        let pairs = self.runs(of).iter().zip(self.runs(to));
        Estimate::of(&pairs.map(|(of, to)| of.wall_seconds / to.wall_seconds).collect::<Vec<_>>())
    }
}

fn verdicts(report: &Report) -> Vec<String> {
    let gigabytes = report.size.file_bytes as f64 / 1e9;
    let mut lines = Vec::new();
    let seconds = |x: f64| format!("{x:.2} s/GB");
    let full = report.runs(Reader::Full);
    if let Some(wall) = median_of(full, |run| run.wall_seconds / gigabytes) {
        lines.push(bar("bar", "full analysis", wall, 3.5, seconds));
        lines.push(bar("aim", "full analysis", wall, 2.5, seconds));
    }
    let n_objects = report.size.n_objects as f64;
    if let Some(bytes) = median_of(full, |run| run.max_anon_bytes as f64 / n_objects) {
        let show = |x: f64| format!("{x:.1} B/object");
        lines.push(bar("bar", "full analysis, anonymous memory", bytes, 45.0, show));
        lines.push(bar("aim", "full analysis, anonymous memory", bytes, 35.0, show));
    }
    let histogram = report.runs(Reader::Histogram);
    if let Some(wall) = median_of(histogram, |run| run.wall_seconds / gigabytes) {
        lines.push(bar("aim", "histogram", wall, 0.5, seconds));
    }
    let ratios =
        [(Reader::Full, Reader::HprofAnalyzer, 0.2), (Reader::Histogram, Reader::HprofSlurp, 1.0)];
    for (of, to, most) in ratios {
        let Some(ratio) = report.ratio(of, to) else { continue };
        let (low, high) = ratio.interval.unwrap_or(ratio.range);
        let what = format!("{} / {}, wall, {low:.3} – {high:.3}", of.name(), to.name());
        lines.push(bar("bar", &what, ratio.median, most, |x| format!("{x:.3} ×")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(wall_seconds: f64, megabytes: u64) -> Taken {
        let (max_rss_bytes, max_anon_bytes) = (megabytes * 2_000_000, megabytes * 1_000_000);
        Taken { wall_seconds, cpu_seconds: wall_seconds * 1.5, max_rss_bytes, max_anon_bytes }
    }

    /// Speed, memory for each object, and ratios of runs of the same round; what was not measured has no verdict.
    #[test]
    fn whole_table() {
        let size =
            Size { file_bytes: 1_000_000_000, n_objects: 10_000_000, n_references: 21_000_000 };
        let rows = vec![
            (Reader::Full, vec![taken(2.0, 400), taken(3.0, 400), taken(4.0, 400)]),
            (Reader::HprofAnalyzer, vec![taken(20.0, 600), taken(24.0, 600), taken(16.0, 600)]),
        ];
        let want = "\
dump: 1,000,000,000 bytes, 10,000,000 objects, 21,000,000 references
                             wall s    CPU s     MB/s  objects/s anonymous MB     RSS MB  runs
memtrace heap                 3.000    4.500      333  3,333,333          400        800     3
hprof-analyzer               20.000   30.000       50    500,000          600       1200     3
medians; anonymous: without the mapped dump, largest sample; RSS: with it
bar: full analysis: 3.00 s/GB (bar 3.50 s/GB): met
aim: full analysis: 3.00 s/GB (aim 2.50 s/GB): missed
bar: full analysis, anonymous memory: 40.0 B/object (bar 45.0 B/object): met
aim: full analysis, anonymous memory: 40.0 B/object (aim 35.0 B/object): missed
bar: memtrace heap / hprof-analyzer, wall, 0.100 – 0.250: 0.125 × (bar 0.200 ×): met
";
        assert_eq!(format(&Report { size, rows, n_noisy: 0 }), want);
    }
}
