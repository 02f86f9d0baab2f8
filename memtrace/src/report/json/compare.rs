//! What several starts of a command under several settings came to, as JSON.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use serde::Serialize;
use serde_json::Serializer;

use super::{layout::Layout, shape::SCHEMA};
use crate::{
    footprint::RowKind,
    report::units,
    trials::{self, Comparison, Difference, Goal, Measure, Measured},
};

#[derive(Serialize)]
struct Document<'r> {
    schema: u32,
    memtrace: &'static str,
    command: &'r [String],
    until: Until<'r>,
    runs: u32,
    interrupted: bool,
    variants: Vec<Variant<'r>>,
}

/// How far each start was followed.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Until<'r> {
    Settled,
    Text(&'r str),
    Seconds(f64),
}

#[derive(Serialize)]
struct Variant<'r> {
    name: &'r str,
    environment: BTreeMap<&'r str, &'r str>,
    jvm_options: &'r [String],
    /// Whether they went by `JAVA_TOOL_OPTIONS`.
    by_environment: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    settled_rss_bytes: Option<Spread<u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_rss_bytes: Option<Spread<u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    startup_seconds: Option<Spread<f64>>,
    rows: Vec<Row>,
    runs: Vec<Run<'r>>,
    failures: Vec<Failure<'r>>,
}

#[derive(Serialize)]
struct Spread<T> {
    median: T,
    lowest: T,
    highest: T,
    runs: usize,
    /// Of the medians, to the plain command's.
    #[serde(skip_serializing_if = "Option::is_none")]
    against_plain: Option<Against>,
}

#[derive(Serialize)]
struct Against {
    change: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    larger_than_spread: Option<bool>,
}

#[derive(Serialize)]
struct Row {
    kind: &'static str,
    resident_bytes: Spread<u64>,
}

#[derive(Serialize)]
struct Run<'r> {
    #[serde(skip_serializing_if = "Option::is_none")]
    startup_seconds: Option<f64>,
    peak_rss_bytes: u64,
    daemonised: bool,
    left: &'r [u32],
    #[serde(skip_serializing_if = "Option::is_none")]
    settled: Option<Settled<'r>>,
}

#[derive(Serialize)]
struct Settled<'r> {
    rss_bytes: u64,
    processes: usize,
    allocators: &'r [String],
    rows: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
struct Failure<'r> {
    round: u32,
    why: &'r str,
    last_lines: &'r [String],
}

/// Writes everything.
///
/// # Errors
///
/// Only those of `out`.
pub fn write_comparison(it: &Comparison, mut out: impl Write) -> io::Result<()> {
    let document = Document {
        schema: SCHEMA,
        memtrace: env!("CARGO_PKG_VERSION"),
        command: &it.command,
        until: match &it.goal {
            Goal::Settled => Until::Settled,
            Goal::Seen(text) => Until::Text(text),
            Goal::Passed(time) => Until::Seconds(time.as_secs_f64()),
        },
        runs: it.n_runs,
        interrupted: it.is_interrupted,
        variants: it.variants.iter().map(|variant| Variant::of(variant, it)).collect(),
    };
    document.serialize(&mut Serializer::with_formatter(&mut out, Layout::default()))?;
    out.write_all(b"\n")
}

impl<'r> Variant<'r> {
    fn of(measured: &'r Measured, all: &'r Comparison) -> Self {
        let Measured { variant, runs, failures } = measured;
        let whole = |measure| spread(measured, all, measure, |value| value, |change| change as f64);
        let row = |kind: RowKind| {
            let resident_bytes = whole(Measure::Row(kind)).filter(|spread| spread.highest > 0)?;
            Some(Row { kind: kind.name(), resident_bytes })
        };
        Self {
            name: &variant.name,
            environment: variant
                .environment
                .iter()
                .map(|(name, value)| (&**name, &**value))
                .collect(),
            jvm_options: &variant.options,
            by_environment: variant.is_by_environment(&all.command),
            settled_rss_bytes: whole(Measure::Settled),
            peak_rss_bytes: whole(Measure::Peak),
            startup_seconds: spread(measured, all, Measure::Startup, units::seconds, |change| {
                change as f64 / 1e9
            }),
            rows: RowKind::ALL.into_iter().filter_map(row).collect(),
            runs: runs.iter().map(Run::of).collect(),
            failures: failures.iter().map(Failure::of).collect(),
        }
    }
}

fn spread<T>(
    measured: &Measured,
    all: &Comparison,
    measure: Measure,
    value: impl Fn(u64) -> T,
    change_of: impl Fn(i128) -> f64,
) -> Option<Spread<T>> {
    let spread = measured.spread(measure)?;
    let plain = all.variants.first().filter(|plain| !std::ptr::eq(*plain, measured));
    let against_plain = plain.and_then(|plain| plain.spread(measure)).map(|plain| {
        let Difference { change, is_larger_than_spread } = spread.against(&plain);
        Against { change: change_of(change), larger_than_spread: is_larger_than_spread }
    });
    Some(Spread {
        median: value(spread.median),
        lowest: value(spread.lowest),
        highest: value(spread.highest),
        runs: spread.n,
        against_plain,
    })
}

impl<'r> Run<'r> {
    fn of(run: &'r trials::Run) -> Self {
        let settled = run.settled.as_ref().map(|settled| Settled {
            rss_bytes: settled.rss_bytes,
            processes: settled.n_processes,
            allocators: &settled.allocators,
            rows: settled.rows.iter().map(|(kind, &bytes)| (kind.name(), bytes)).collect(),
        });
        Self {
            startup_seconds: run.startup.map(|time| time.as_secs_f64()),
            peak_rss_bytes: run.peak_rss_bytes,
            daemonised: run.has_daemonised,
            left: &run.left,
            settled,
        }
    }
}

impl<'r> Failure<'r> {
    fn of(failure: &'r trials::Failure) -> Self {
        Self { round: failure.round, why: &failure.why, last_lines: &failure.last_lines }
    }
}
