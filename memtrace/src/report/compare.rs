//! What several starts of a command under several settings came to, as a table.

use std::io::{self, Write};

use super::{escape, footprint::short_row, names, units};
use crate::{
    footprint::RowKind,
    trials::{
        Comparison, Difference, Goal, MAX_CHANGE_PERCENT, Measure, Measured, SETTLING_TIME, Spread,
    },
};

/// Columns that a variant's name may take.
const MAX_NAME: usize = 44;
/// Columns that it may take where it stands alone.
const MAX_FULL_NAME: usize = 110;
/// Columns that names and titles have at least.
const MIN_NAME: usize = 14;
/// A row that has less in all variants is not shown.
const MIN_ROW_BYTES: u64 = 1 << 19;
/// What stands at a number that differs by more than the spread.
const MARK: &str = "*";

/// Writes everything for people.
///
/// # Errors
///
/// Only those of `out`.
pub fn write_text(it: &Comparison, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", headline(it))?;
    write_measure(it, Measure::Settled, "settled RSS", out)?;
    write_measure(it, Measure::Peak, "peak RSS", out)?;
    write_measure(it, Measure::Startup, "start-up time", out)?;
    write_rows(it, out)?;
    write_notes(it, out)?;
    it.variants.iter().try_for_each(|variant| write_failures(variant, out))
}

/// How far a start is followed, in words.
#[must_use]
pub fn goal(goal: &Goal) -> String {
    match goal {
        Goal::Settled => {
            let seconds = SETTLING_TIME.as_secs();
            format!("until RSS changes by less than {MAX_CHANGE_PERCENT} % in {seconds} s")
        }
        Goal::Seen(text) => format!("until it prints `{}`", names::clip(&escape::line(text), 40)),
        Goal::Passed(time) => format!("for {}", span(*time)),
    }
}

fn span(time: std::time::Duration) -> String {
    units::span(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

fn headline(it: &Comparison) -> String {
    let command: Vec<_> = it.command.iter().map(|word| escape::line(word)).collect();
    let command = names::clip(&command.join(" "), 60);
    let starts = units::things(it.n_runs.into(), "start");
    let cut = if it.is_interrupted { "; ended early by the user" } else { "" };
    format!("{command}: {starts} of each variant in turn, {}{cut}", goal(&it.goal))
}

fn name(variant: &Measured) -> String {
    names::clip(&escape::line(&variant.variant.name), MAX_NAME)
}

/// A measure of all variants, each against the plain command.
fn write_measure(
    it: &Comparison,
    measure: Measure,
    title: &str,
    out: &mut dyn Write,
) -> io::Result<()> {
    if it.variants.iter().all(|variant| variant.spread(measure).is_none()) {
        return Ok(());
    }
    let widths = it.variants.iter().map(|variant| name(variant).chars().count() + 2);
    let width = widths.max().unwrap_or(0).max(MIN_NAME);
    let columns = ["median", "lowest", "highest"].map(|column| format!("  {column:>11}")).concat();
    writeln!(out, "\n{title:<width$}{columns}   against plain")?;
    let plain = it.variants.first().and_then(|plain| plain.spread(measure));
    for (at, variant) in it.variants.iter().enumerate() {
        let name = format!("  {}", name(variant));
        let Some(spread) = variant.spread(measure) else {
            writeln!(out, "{name:<width$}  {:>11}", "-")?;
            continue;
        };
        let Spread { median, lowest, highest, .. } = spread;
        let values =
            [median, lowest, highest].map(|value| format!("  {:>11}", value_of(measure, value)));
        let against = plain.filter(|_| at > 0).map(|plain| against(measure, &spread, &plain));
        let line = format!("{name:<width$}{}   {}", values.concat(), against.unwrap_or_default());
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn value_of(measure: Measure, value: u64) -> String {
    match measure {
        Measure::Startup => seconds(value),
        Measure::Settled | Measure::Peak | Measure::Row(_) => mib(value),
    }
}

/// All in one unit, so that columns can be compared at a glance.
fn mib(bytes: u64) -> String {
    let tenths = (u128::from(bytes) * 10 + (1 << 19)) >> 20;
    let whole = u64::try_from(tenths / 10).unwrap_or(u64::MAX);
    format!("{}.{} MiB", units::count(whole), tenths % 10)
}

/// Two starts may be less than a tenth of a second apart.
fn seconds(ns: u64) -> String {
    format!("{:.2} s", units::seconds(ns))
}

/// The difference to the plain command, and whether it means anything.
fn against(measure: Measure, spread: &Spread, plain: &Spread) -> String {
    let Difference { change, is_larger_than_spread } = spread.against(plain);
    let sign = if change < 0 { "-" } else { "+" };
    let size = u64::try_from(change.unsigned_abs()).unwrap_or(u64::MAX);
    let percent = (change.unsigned_abs() * 100 + u128::from(plain.median) / 2)
        .checked_div(plain.median.into())
        .map(|percent| format!(" ({sign}{percent} %)"));
    let means = match is_larger_than_spread {
        Some(true) => "",
        Some(false) => ", no larger than the spread between runs",
        None => ", one run does not tell the spread",
    };
    format!("{sign}{}{}{means}", value_of(measure, size), percent.unwrap_or_default())
}

/// Where the settled bytes are: a column for each variant.
fn write_rows(it: &Comparison, out: &mut dyn Write) -> io::Result<()> {
    let of = |variant: &Measured, kind| variant.spread(Measure::Row(kind));
    let is_shown = |kind: &RowKind| {
        let medians = it.variants.iter().filter_map(|variant| of(variant, *kind));
        medians.map(|spread| spread.median).max().unwrap_or(0) >= MIN_ROW_BYTES
    };
    let shown: Vec<RowKind> = RowKind::ALL.into_iter().filter(is_shown).collect();
    if shown.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nwhere the settled RSS is, median of each row")?;
    for (n, variant) in (1..).zip(&it.variants) {
        let full = names::clip(&escape::line(&variant.variant.name), MAX_FULL_NAME);
        writeln!(out, "  [{n}] {full}")?;
    }
    let columns = (1..=it.variants.len()).map(|n| format!("  {:>11} ", format!("[{n}]")));
    writeln!(out, " {}  what", columns.collect::<String>())?;
    let mut is_marked = false;
    for kind in shown {
        let plain = it.variants.first().and_then(|plain| of(plain, kind));
        let cell = |variant: &Measured| {
            let Some(spread) = of(variant, kind) else { return format!("  {:>11} ", "-") };
            let differs = plain
                .is_some_and(|plain| spread.against(&plain).is_larger_than_spread == Some(true));
            format!("  {:>11}{}", mib(spread.median), if differs { MARK } else { " " })
        };
        let cells: String = it.variants.iter().map(cell).collect();
        is_marked |= cells.contains(MARK);
        writeln!(out, " {cells}  {}", short_row(kind))?;
    }
    if is_marked {
        writeln!(out, "  {MARK} differs from plain by more than the spread between runs")?;
    }
    Ok(())
}

/// What the settings have done, and what the user should know.
fn write_notes(it: &Comparison, out: &mut dyn Write) -> io::Result<()> {
    let plain = it.variants.first().map(allocators).unwrap_or_default();
    for (at, variant) in it.variants.iter().enumerate() {
        let (name, own) = (name(variant), allocators(variant));
        if at > 0 && !own.is_empty() && own != plain {
            writeln!(out, "note: {name}: allocator {own}")?;
        }
        let preloads = variant.variant.environment.iter().any(|(name, _)| name == "LD_PRELOAD");
        if preloads && !own.is_empty() && own == plain {
            writeln!(
                out,
                "note: {name}: the allocator is {own} as in plain; was the library loaded?"
            )?;
        }
        let runs = &variant.runs;
        if runs.iter().any(|run| run.has_daemonised) {
            writeln!(
                out,
                "note: {name}: its first process ended, and those that it had started were followed"
            )?;
        }
        let n_ended = runs.iter().filter(|run| run.settled.is_none()).count();
        if n_ended > 0 {
            let starts = units::things(n_ended as u64, "start");
            writeln!(out, "note: {name}: {starts} ended by itself, so that nothing had settled")?;
        }
        let n_processes =
            runs.iter().filter_map(|run| Some(run.settled.as_ref()?.n_processes)).max();
        if let Some(n) = n_processes.filter(|&n| n > 1) {
            writeln!(out, "note: {name}: {n} processes; pages that they share count in each")?;
        }
    }
    Ok(())
}

fn allocators(variant: &Measured) -> String {
    let settled = variant.runs.iter().rev().find_map(|run| run.settled.as_ref());
    settled
        .map(|settled| escape::line(&settled.allocators.join(", ")).into_owned())
        .unwrap_or_default()
}

fn write_failures(variant: &Measured, out: &mut dyn Write) -> io::Result<()> {
    let Some(last) = variant.failures.last() else { return Ok(()) };
    let n_failed = units::count(variant.failures.len() as u64);
    let n = units::count((variant.failures.len() + variant.runs.len()) as u64);
    let given_up = if variant.is_given_up() { ", so it was not started again" } else { "" };
    writeln!(out, "\nfailed: {}: {n_failed} of {n} starts{given_up}", name(variant))?;
    let silent =
        if last.last_lines.is_empty() { "; it printed nothing" } else { "; its last lines:" };
    writeln!(out, "  round {}: {}{silent}", last.round, escape::line(&last.why))?;
    last.last_lines.iter().try_for_each(|line| writeln!(out, "    | {}", escape::line(line)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::trials::{Failure, Run, Settled, Variant};

    fn run(mib: u64, seconds: u64) -> Run {
        let settled = Settled {
            rss_bytes: mib << 20,
            rows: [(RowKind::MallocLive, mib << 20)].into(),
            allocators: vec!["glibc 2.36".into()],
            n_processes: 1,
        };
        Run {
            startup: Some(Duration::from_secs(seconds)),
            peak_rss_bytes: (mib + 1010) << 20,
            settled: Some(settled),
            ..Run::default()
        }
    }

    fn comparison() -> Comparison {
        let measured = |name: &str, runs: Vec<Run>| Measured {
            runs,
            ..Measured::of(Variant { name: name.into(), ..Variant::default() })
        };
        let failure = Failure {
            round: 2,
            why: "it ended with exit status 1".into(),
            last_lines: vec!["no\x1b[2J".into()],
        };
        let mut failed = measured("-XX:+Nonsense", Vec::new());
        failed.failures = vec![failure.clone(), failure];
        Comparison {
            command: vec!["java".into(), "x".into()],
            goal: Goal::Settled,
            n_runs: 2,
            variants: vec![
                measured("plain", vec![run(100, 5), run(102, 7)]),
                measured("MALLOC_ARENA_MAX=1", vec![run(50, 6), run(51, 7)]),
                failed,
            ],
            is_interrupted: false,
        }
    }

    /// The whole text; nothing that a terminal would act on passes through.
    #[test]
    fn as_text() {
        let expected = "\
java x: 2 starts of each variant in turn, until RSS changes by less than 1 % in 5 s

settled RSS                median       lowest      highest   against plain
  plain                 101.0 MiB    100.0 MiB    102.0 MiB
  MALLOC_ARENA_MAX=1     50.5 MiB     50.0 MiB     51.0 MiB   -50.5 MiB (-50 %)
  -XX:+Nonsense                 -

peak RSS                   median       lowest      highest   against plain
  plain               1,111.0 MiB  1,110.0 MiB  1,112.0 MiB
  MALLOC_ARENA_MAX=1  1,060.5 MiB  1,060.0 MiB  1,061.0 MiB   -50.5 MiB (-5 %)
  -XX:+Nonsense                 -

start-up time              median       lowest      highest   against plain
  plain                    6.00 s       5.00 s       7.00 s
  MALLOC_ARENA_MAX=1       6.50 s       6.00 s       7.00 s   +0.50 s (+8 %), \
no larger than the spread between runs
  -XX:+Nonsense                 -

where the settled RSS is, median of each row
  [1] plain
  [2] MALLOC_ARENA_MAX=1
  [3] -XX:+Nonsense
           [1]           [2]           [3]   what
     101.0 MiB      50.5 MiB*            -   malloc, in use
  * differs from plain by more than the spread between runs

failed: -XX:+Nonsense: 2 of 2 starts, so it was not started again
  round 2: it ended with exit status 1; its last lines:
    | no\\x1b[2J
";
        let mut out = Vec::new();
        write_text(&comparison(), &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
