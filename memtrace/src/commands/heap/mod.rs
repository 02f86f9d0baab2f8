//! `memtrace heap [VIEW] FILE`: what a heap dump holds.

mod input;
mod what;

use std::{io::Write, process::ExitCode};

use anyhow::{Context, Result, anyhow, bail};
use regex::Regex;

use super::{args::HeapArgs, failure::Failure, outputs};
use crate::{
    heap::{self, Analysis, DumpFacts, Histogram, NoDump, Wanted},
    report::{heap as text, json},
};
use what::{Object, View, What};

/// Exit status of a dump that was read in part.
const IN_PART: u8 = 3;

pub(super) fn run(args: &HeapArgs) -> Result<ExitCode, Failure> {
    let what = What::parse(&args.what)?;
    let filter = args.filter.as_deref().map(Regex::new).transpose();
    let filter = Filter(filter.context("--filter is no regular expression")?);
    let json = args.json.as_deref().map(outputs::Output::find).transpose()?;
    let is_stdout_taken = args.json.as_deref().is_some_and(outputs::is_stdout);
    let dump = input::open(&what.file)?;
    if args.retained && what.view != View::Histogram {
        return Err(anyhow!("--retained goes with the view histogram").into());
    }
    let wanted = Wanted {
        max_bytes: args.max_memory.unwrap_or(u64::MAX),
        retained_by_class: args.retained || json.is_some(),
    };
    let shown = Shown { json, is_stdout_taken, wanted, retained: args.retained };
    let name = what.file.display().to_string();
    let (facts, left_out) = show(&what.view, &dump.bytes, &filter, shown)
        .with_context(|| format!("failed to read {name}"))?;
    if let Some(why) = &dump.cut {
        outputs::to_stderr(&format!("memtrace: {name} was unpacked in part: {why}\n"));
        return Ok(ExitCode::from(IN_PART));
    }
    if facts.is_truncated || facts.unreadable_bytes > 0 {
        outputs::to_stderr(&format!("memtrace: {name} was read in part: it is cut or damaged\n"));
        return Ok(ExitCode::from(IN_PART));
    }
    if let Some(what) = left_out {
        outputs::to_stderr(&format!("memtrace: --max-memory is too little for {what}\n"));
        return Ok(ExitCode::from(IN_PART));
    }
    Ok(ExitCode::SUCCESS)
}

/// What names have to match.
struct Filter(Option<Regex>);

impl Filter {
    fn has(&self, name: &str) -> bool {
        self.0.as_ref().is_none_or(|regex| regex.is_match(name))
    }
}

/// Where results go.
struct Shown {
    json: Option<outputs::Output>,
    is_stdout_taken: bool,
    wanted: Wanted,
    /// Whether a histogram tells what is retained.
    retained: bool,
}

/// What there was no memory for.
type LeftOut = Option<&'static str>;

impl Shown {
    fn write(
        self,
        json: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
        text: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
    ) -> Result<()> {
        if let Some(output) = self.json {
            output.write(|out| Ok(json(out)?))?;
        }
        if self.is_stdout_taken {
            return Ok(());
        }
        outputs::to_stdout_by(|out| Ok(text(out)?))
    }
}

fn show(view: &View, dump: &[u8], filter: &Filter, shown: Shown) -> Result<(DumpFacts, LeftOut)> {
    let whole = |facts| Ok((facts, None));
    match view {
        View::Histogram if !shown.retained => histogram(dump, filter, shown).and_then(whole),
        View::Histogram | View::Answer | View::Dominators | View::Loaders => {
            match Analysis::read_as(dump, shown.wanted) {
                Ok(analysis) => show_analysis(view, analysis, filter, shown),
                Err(NoDump::NoRoom(_)) => histogram(dump, filter, shown)
                    .map(|facts| (facts, Some("anything but a histogram"))),
                Err(error) => Err(error.into()),
            }
        }
        View::Threads => {
            let (facts, mut threads) = heap::threads(dump)?;
            threads.retain(|thread| filter.has(&thread.name));
            shown.write(
                |out| json::write_heap_threads(&facts, &threads, out),
                |out| text::write_threads(&threads, out),
            )?;
            whole(facts)
        }
        View::Paths(object) => {
            let (facts, paths) = match object {
                Object::Id(id) => heap::paths(dump, Some(*id), |_| false)?,
                Object::Class(class) => heap::paths(dump, None, |name| name == class)?,
            };
            if paths.is_empty() {
                bail!("no root reaches {object}");
            }
            shown.write(
                |out| json::write_heap_paths(&facts, &paths, out),
                |out| text::write_paths(&paths, out),
            )?;
            whole(facts)
        }
        View::Object(id) | View::References(id) => {
            let only_references = matches!(view, View::References(_));
            let (facts, object) = heap::object(dump, *id, only_references)?;
            let object = object.with_context(|| format!("there is no object {id:#x}"))?;
            shown.write(
                |out| json::write_heap_object(&facts, &object, out),
                |out| text::write_object(&object, out),
            )?;
            whole(facts)
        }
    }
}

fn histogram(dump: &[u8], filter: &Filter, shown: Shown) -> Result<DumpFacts> {
    let mut histogram = Histogram::read(dump)?;
    histogram.rows.retain(|row| filter.has(&row.class));
    let Histogram { facts, rows } = &histogram;
    shown.write(
        |out| json::write_heap_histogram(&histogram, out),
        |out| text::write_histogram(facts, rows, out),
    )?;
    Ok(histogram.facts)
}

fn show_analysis(
    view: &View,
    mut analysis: Analysis,
    filter: &Filter,
    shown: Shown,
) -> Result<(DumpFacts, LeftOut)> {
    analysis.histogram.retain(|row| filter.has(&row.class));
    analysis.duplicated.retain(|row| filter.has(&row.class));
    analysis.dominators.iter_mut().for_each(|all| all.retain(|row| filter.has(&row.class)));
    analysis.loaders.all.retain(|row| filter.has(&row.class));
    shown.write(
        |out| json::write_heap(&analysis, out),
        |out| match (view, &analysis.dominators) {
            (View::Histogram, _) => {
                text::write_histogram(&analysis.facts, &analysis.histogram, out)
            }
            (View::Dominators, Some(dominators)) => text::write_dominators(dominators, out),
            (View::Dominators, None) => Ok(()),
            (View::Loaders, _) => text::write_loaders(&analysis.loaders.all, out),
            _ => text::write_text(&analysis, out),
        },
    )?;
    let is_left_out = analysis.dominators.is_none() && *view != View::Loaders;
    Ok((analysis.facts, is_left_out.then_some("what is retained")))
}
