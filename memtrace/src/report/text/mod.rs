//! The end screen, for someone who has one minute.
//!
//! In: a recording, at its end or under way, and what to list stacks by. Out: what was traced, what is the matter with it
//! and what to do, then how much memory it obtained, which threads and stacks obtained it, and what of all this was lost. Lines fit 100 columns and
//! are some 50 at most, and 20 more each for what is resident and where calls of malloc were traced, except notes. Folded stacks and JSON have the whole.

mod blocks;
pub(super) mod findings;
mod footprint;
mod retained;
mod stacks;
mod threads;

use memtrace_common::Kind;

use super::{ending, escape, loss, names, rows, units};
use crate::{
    ledger::Metric,
    trace::{Recording, StackCounts},
};

/// Columns that lines fit.
const WIDTH: usize = 100;

/// Notes that are printed.
const MAX_NOTES: usize = 4;

/// Columns of the words that lines begin with.
const LABEL: usize = 10;

/// The report as one screen, with the stacks that have most of `metric`; with `colors`, headings are bold.
#[must_use]
pub fn text_by(recording: &Recording, metric: Metric, colors: bool) -> String {
    let mut screen = Screen { text: String::new(), colors };
    what(recording, &mut screen);
    findings::section(recording, &mut screen);
    how_much(recording, &mut screen);
    footprint::section(recording, &mut screen);
    retained::section(recording, &mut screen);
    threads::table(recording, &mut screen);
    threads::ended_by(recording, &mut screen);
    blocks::section(recording, &mut screen);
    stacks::list(recording, metric, &mut screen);
    how_sure(recording, &mut screen);
    screen.text
}

/// Lines under headings.
struct Screen {
    text: String,
    colors: bool,
}

impl Screen {
    fn heading(&mut self, heading: &str) {
        self.text.push('\n');
        self.bold(heading);
    }

    fn bold(&mut self, line: &str) {
        let line = names::clip(line, WIDTH);
        self.text.push_str(&if self.colors {
            format!("\x1b[1m{line}\x1b[0m\n")
        } else {
            line + "\n"
        });
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(names::clip(line, WIDTH).trim_end());
        self.text.push('\n');
    }

    /// A line that begins with a word about it.
    fn labeled(&mut self, label: &str, text: &str) {
        self.line(&format!("  {label:<LABEL$}{text}"));
    }

    /// A line that begins with a word about it, and has as many parts as fit; the others go to lines below.
    fn labeled_parts(&mut self, label: &str, parts: &[String]) {
        self.parts(&format!("  {label:<LABEL$}"), parts, ",", 2 + LABEL);
    }

    /// Words after `begin`, in as many lines as they need; those below begin at column `indent`.
    fn wrapped(&mut self, begin: &str, text: &str, indent: usize) {
        let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        self.parts(begin, &words, "", indent);
    }

    /// Parts after `begin`, `between` behind each but the last, as many as fit; the others go to lines below that begin at
    /// column `indent`.
    fn parts(&mut self, begin: &str, parts: &[String], between: &str, indent: usize) {
        let mut line = begin.to_owned();
        let mut is_empty = true;
        for (index, part) in parts.iter().enumerate() {
            let mark = if index + 1 < parts.len() { between } else { "" };
            let gap = if is_empty { "" } else { " " };
            let more = format!("{gap}{part}{mark}");
            if !is_empty && line.chars().count() + more.chars().count() > WIDTH {
                self.line(&line);
                line = format!("{:indent$}{part}{mark}", "");
            } else {
                line.push_str(&more);
            }
            is_empty = false;
        }
        self.line(&line);
    }
}

fn what(recording: &Recording, screen: &mut Screen) {
    let target = &recording.target;
    let mut about = vec![format!("pid {}", target.pid)];
    about.extend(
        target.jvm.as_ref().map(|jvm| escape::line(format!("JVM {}", jvm.version).trim()).into()),
    );
    about.extend(target.allocator.as_deref().map(|allocator| escape::line(allocator).into()));
    let about = names::clip(&format!(" ({})", about.join(", ")), WIDTH);
    let command = names::clip(&names::command(target), WIDTH - about.chars().count());
    screen.bold(&format!("{command}{about}"));
    let span = units::span(recording.ledger.duration_ns());
    screen.line(&format!("traced for {span} {}", ending::clause(recording.end.as_ref())));
}

fn how_much(recording: &Recording, screen: &mut Screen) {
    let ledger = &recording.ledger;
    screen.heading("Memory");
    if let Some(resident) = resident(recording) {
        screen.labeled("resident", &resident);
    }
    let (mapped, live) = (ledger.sum(Metric::Mapped), ledger.sum(Metric::MappedLive));
    let mapped = units::exact_bytes(mapped);
    screen.labeled("mapped", &format!("{mapped}, {} of it still mapped", units::exact_bytes(live)));
    let counts = ledger.counts();
    if counts.before_bytes > 0 {
        let (before, back) =
            (units::bytes(counts.before_bytes), units::bytes(counts.before_given_back_bytes));
        let line = format!("{before} mapped when tracing began, {back} of it given back since");
        screen.labeled("before", &line);
    }
    blocks::sums(recording, screen);
    let (opened, open) = (ledger.sum(Metric::Inflaters), ledger.sum(Metric::InflatersLive));
    if opened > 0 {
        let (opened, open) = (units::count(opened), units::count(open));
        screen.labeled(
            "zlib",
            &format!("{opened} Inflaters and Deflaters opened, {open} still open"),
        );
    }
}

fn resident(recording: &Recording) -> Option<String> {
    let rss = recording.ledger.rss();
    let (first, peak, last) = (rss.samples().first()?, rss.peak()?, rss.last()?);
    let when = if recording.end.is_some() { "at the end" } else { "last" };
    let after = units::span(recording.ledger.since_start_ns(peak.time_ns));
    let mut line = format!(
        "{} at the start, {} at the peak after {after}, {} {when}",
        units::bytes(first.rss_bytes),
        units::bytes(peak.rss_bytes),
        units::bytes(last.rss_bytes)
    );
    if last.swap_bytes > 0 {
        line.push_str(&format!(", {} swapped", units::bytes(last.swap_bytes)));
    }
    Some(line)
}

fn how_sure(recording: &Recording, screen: &mut Screen) {
    screen.heading("Recorded");
    let calls: Vec<_> = Kind::ALL
        .iter()
        .filter(|kind| kind.is_call())
        .map(|&kind| (kind.name(), recording.ledger.n(kind)))
        .filter(|&(_, n)| n > 0)
        .filter_map(|(name, n)| Some(format!("{} {}", units::count(n), name?)))
        .collect();
    if !calls.is_empty() {
        screen.labeled_parts("calls", &calls);
    }
    if let Some(failed) = loss::parts(&recording.failed) {
        screen.labeled_parts("failed", &failed);
    }
    screen.labeled_parts("lost", &loss::parts(&recording.losses).unwrap_or(vec!["nothing".into()]));
    let StackCounts { complete, approximate, truncated, broken } = recording.stack_counts;
    let stacks = [
        (complete, "complete"),
        (approximate, "approximate"),
        (truncated, "truncated"),
        (broken, "broken"),
    ];
    let stacks = stacks.map(|(n, name)| format!("{} {name}", units::count(n)));
    screen.labeled_parts("stacks", &stacks);
    if let Some(end) = &recording.end {
        let (cpu, rss) = (units::span(end.self_cpu_ns), units::bytes(end.self_max_rss_bytes));
        screen.labeled("memtrace", &format!("{cpu} of CPU, {rss} resident at most"));
    }
    notes(recording, screen);
}

/// What a reader must know to trust the numbers. These lines are never cut.
fn notes(recording: &Recording, screen: &mut Screen) {
    let counts = recording.ledger.counts();
    let blocks = recording.ledger.blocks();
    let counted = [
        (
            blocks.frees_unknown,
            "blocks were given back that were not live: twice, or they were handed out unseen",
        ),
        (blocks.frees_missed, "blocks were given back without its being seen"),
        (blocks.not_kept, "blocks are counted as allocated, but not whether they were freed"),
        (
            counts.streams_ended_before,
            "Inflaters or Deflaters were ended that were opened before tracing began",
        ),
        (counts.streams_end_missed, "Inflaters or Deflaters were ended without its being seen"),
        (counts.threads_grouped, "threads were not kept apart from others"),
        (counts.totals_grouped, "calls are counted for their thread, but without their stack"),
    ];
    for (n, what) in counted.into_iter().filter(|&(n, _)| n > 0) {
        screen.text.push_str(&format!("note: {} {what}\n", units::count(n)));
    }
    for note in recording.notes.iter().take(MAX_NOTES) {
        screen.text.push_str(&format!("note: {}\n", escape::line(note)));
    }
    let n_more = recording.notes.len().saturating_sub(MAX_NOTES) as u64;
    if n_more > 0 {
        screen.text.push_str(&format!("note: {} in --json\n", units::things(n_more, "more note")));
    }
}

#[cfg(test)]
mod tests;
