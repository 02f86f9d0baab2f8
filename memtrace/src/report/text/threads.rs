//! The part of the end screen about threads.

use super::{Screen, names, units};
use crate::{
    ledger::{EndedBy, Metric, ThreadRow},
    trace::{Held, Malloc, Recording},
};

/// Threads in the table.
const MAX_ROWS: usize = 8;
/// Threads whose Inflaters' ends are told.
const MAX_OPENERS: usize = 3;
/// Ending threads that are named for each of them.
const MAX_ENDERS: usize = 3;
/// Where a line about ends goes on.
const ENDERS_INDENT: usize = 6;
/// Columns that a thread's name gets at most.
const NAME: usize = 40;

/// What each of the foremost threads obtained, and all others together.
pub(super) fn table(recording: &Recording, screen: &mut Screen) {
    let mut rows = recording.ledger.by_thread();
    rows.retain(|row| row.mapped_bytes > 0 || row.inflaters > 0 || !row.blocks.mallocs.is_none());
    if rows.is_empty() {
        return;
    }
    // Who holds the most blocks, and who opened the most Inflaters, is in the table in any case.
    raise(&mut rows, MAX_ROWS - 2, |row| row.blocks.malloc_live_bytes);
    raise(&mut rows, MAX_ROWS - 1, |row| row.inflaters);
    let columns = Columns {
        malloc: recording.malloc.is_some(),
        inflaters: rows.iter().any(|row| row.inflaters > 0),
    };
    screen.heading("Threads by bytes mapped");
    let heads = ["mapped", "still mapped", "malloc", "still live", "Inflaters", "open", "thread"];
    screen.line(&columns.cells(heads));
    for row in rows.iter().take(MAX_ROWS) {
        screen.line(&columns.row(row, &names::thread_with_id(row.thread, NAME)));
    }
    if let Some(rest) = rows.get(MAX_ROWS..).filter(|rest| !rest.is_empty()) {
        let name = units::things(rest.len() as u64, "more thread");
        let sum = rest.iter().skip(1).fold(rest[0].clone(), added);
        screen.line(&columns.row(&sum, &name));
    }
}

/// Moves the row with the most of something up to `index`, if it is not above that.
fn raise(rows: &mut Vec<ThreadRow<'_>>, index: usize, most: fn(&ThreadRow<'_>) -> u64) {
    let top = rows.iter().enumerate().rev().max_by_key(|(_, row)| most(row));
    let top = top.filter(|(at, row)| *at > index && most(row) > 0).map(|(at, _)| at);
    if let Some(top) = top {
        let row = rows.remove(top);
        rows.insert(index, row);
    }
}

/// Who ended what the foremost openers opened: they themselves, or the JVM's cleaner.
pub(super) fn ended_by(recording: &Recording, screen: &mut Screen) {
    let mut rows = recording.ledger.by_thread();
    rows.retain(|row| row.inflaters > 0);
    rows.sort_by_key(|row| std::cmp::Reverse(row.inflaters));
    if rows.is_empty() {
        return;
    }
    screen.heading("Who ended the Inflaters and Deflaters");
    for row in rows.iter().take(MAX_OPENERS) {
        let name = names::thread_with_id(row.thread, NAME);
        let begin = format!("  {name} opened {}: ", units::count(row.inflaters));
        screen.parts(&begin, &enders(row), ",", ENDERS_INDENT);
    }
    held(recording, screen);
}

/// What the open ones hold, where calls of the allocator were traced.
fn held(recording: &Recording, screen: &mut Screen) {
    let held = recording.held_by_streams().unwrap_or_default();
    let sum = |of: fn(&Held) -> u64| held.iter().map(of).fold(0, u64::saturating_add);
    let (blocks, bytes) = (sum(|held| held.blocks), sum(|held| held.bytes));
    if blocks == 0 {
        return;
    }
    let about = if recording.malloc == Some(Malloc::Exact) { "" } else { "about " };
    // Such as were opened before tracing began may be among them: what one holds can't be told by division.
    let by = match recording.ledger.sum(Metric::InflatersLive) {
        0 => "by such as were opened before tracing began",
        _ => "by those still open",
    };
    let n = units::things(blocks, "block");
    let begin = format!("  {about}{} in {n} held {by}: ", units::bytes(bytes));
    let mut parts: Vec<_> =
        held.iter().take(MAX_OPENERS).map(|held| asked(recording, held)).collect();
    let rest = held.get(MAX_OPENERS..).unwrap_or_default();
    if !rest.is_empty() {
        let bytes = rest.iter().map(|held| held.bytes).fold(0, u64::saturating_add);
        let threads = units::things(rest.len() as u64, "other thread");
        parts.push(format!("{} by {threads}", units::bytes(bytes)));
    }
    screen.parts(&begin, &parts, ",", ENDERS_INDENT);
}

fn asked(recording: &Recording, held: &Held) -> String {
    let thread = recording.ledger.threads().get(held.thread as usize);
    let name = thread.map(|thread| names::thread_with_id(thread, NAME)).unwrap_or_default();
    format!("{} asked for by {name}", units::bytes(held.bytes))
}

fn enders(row: &ThreadRow<'_>) -> Vec<String> {
    let mut enders: Vec<_> =
        row.ended_by.iter().take(MAX_ENDERS).map(|by| (by.n, ender(by))).collect();
    let others = row.ended_by.get(MAX_ENDERS..).unwrap_or_default();
    if !others.is_empty() {
        let n = others.iter().map(|by| by.n).sum();
        enders.push((n, units::things(others.len() as u64, "other thread")));
    }
    let mut parts = Vec::new();
    for (n, who) in enders {
        let ended = if parts.is_empty() { "ended " } else { "" };
        parts.push(format!("{} {ended}by {who}", units::count(n)));
    }
    parts.push(format!("{} still open", units::count(row.inflaters_live)));
    parts
}

fn ender(by: &EndedBy<'_>) -> String {
    if by.itself { "itself".to_owned() } else { names::thread_with_id(by.thread, NAME) }
}

fn added<'l>(mut sum: ThreadRow<'l>, row: &ThreadRow<'l>) -> ThreadRow<'l> {
    sum.mapped_bytes = sum.mapped_bytes.saturating_add(row.mapped_bytes);
    sum.mapped_live_bytes = sum.mapped_live_bytes.saturating_add(row.mapped_live_bytes);
    sum.blocks.add(&row.blocks);
    sum.inflaters = sum.inflaters.saturating_add(row.inflaters);
    sum.inflaters_live = sum.inflaters_live.saturating_add(row.inflaters_live);
    sum
}

/// What of the table is there: what was measured.
struct Columns {
    malloc: bool,
    inflaters: bool,
}

impl Columns {
    fn row(&self, row: &ThreadRow<'_>, name: &str) -> String {
        let (mapped, live) = (units::bytes(row.mapped_bytes), units::bytes(row.mapped_live_bytes));
        let malloc = units::bytes(row.blocks.malloc_bytes);
        let malloc_live = units::bytes(row.blocks.malloc_live_bytes);
        let (opened, open) = (units::count(row.inflaters), units::count(row.inflaters_live));
        self.cells([&mapped, &live, &malloc, &malloc_live, &opened, &open, name])
    }

    fn cells(&self, cells: [&str; 7]) -> String {
        let [mapped, live, malloc, malloc_live, opened, open, thread] = cells;
        let mut line = format!("  {mapped:>10}  {live:>12}");
        if self.malloc {
            line.push_str(&format!("  {malloc:>10}  {malloc_live:>10}"));
        }
        if self.inflaters {
            line.push_str(&format!("  {opened:>9}  {open:>9}"));
        }
        line + "  " + thread
    }
}
