//! What a heap dump says, as text.
//!
//! In: what the room `heap` found. Out: one screen with the answer, and a table for each view. Names are the dump's and go
//! through [`escape`].

mod views;

use std::io::{self, Write};

use super::{escape, names, units};
use crate::heap::{Analysis, DumpFacts, Holder, Leak};
pub use views::{
    write_dominators, write_histogram, write_loaders, write_object, write_paths, write_threads,
};

/// Rows of the short tables of the one screen.
const SHORT: usize = 5;
/// What stands in the place of dominators where there was no room for them.
pub(crate) const LEFT_OUT: &str = "left out: it takes more memory than --max-memory allows";
/// Columns of what stands in one line.
const WIDTH: usize = 100;

/// Writes one screen.
///
/// # Errors
///
/// Only those of `out`.
pub fn write_text(analysis: &Analysis, out: &mut dyn Write) -> io::Result<()> {
    let Analysis { facts, totals, loaders, duplicated, dominators, .. } = analysis;
    writeln!(
        out,
        "heap dump, {}: {} in {}, {}, {}, {}",
        units::bytes(facts.bytes),
        units::bytes(totals.shallow_bytes),
        units::things(totals.n_objects, "object"),
        units::things(totals.n_classes, "class").replace("classs", "classes"),
        units::things(totals.n_loaders, "class loader"),
        units::things(totals.n_roots, "root"),
    )?;
    writeln!(out, "{}", sizes(facts))?;
    if let Some(unreached) = totals.unreached.filter(|it| it.n > 0) {
        let n = units::things(unreached.n, "object");
        let bytes = units::bytes(unreached.bytes);
        writeln!(out, "{n} ({bytes}) are kept by the VM alone, or by nothing")?;
    }
    write_notes(facts, out)?;
    writeln!(out)?;
    if loaders.leaks.is_empty() {
        writeln!(out, "no class loader is there that should be gone")?;
    }
    for leak in &loaders.leaks {
        write_leak(leak, out)?;
    }
    let duplicated: Vec<_> = duplicated.iter().take(SHORT).collect();
    if !duplicated.is_empty() {
        writeln!(out, "\nclasses that several class loaders have defined")?;
        writeln!(out, "  {:>8} {:>12} {:>11}  class", "copies", "instances", "bytes")?;
    }
    for row in duplicated {
        let (copies, n) = (units::count(row.n_classes), units::count(row.n));
        let bytes = units::bytes(row.shallow_bytes);
        writeln!(out, "  {copies:>8} {n:>12} {bytes:>11}  {}", name(&row.class))?;
    }
    writeln!(out, "\nwhat retains the most")?;
    match dominators {
        Some(dominators) => write_dominators(&dominators[..dominators.len().min(SHORT)], out),
        None => writeln!(out, "  {LEFT_OUT}"),
    }
}

/// How the sizes are known.
fn sizes(facts: &DumpFacts) -> String {
    let layout = &facts.layout;
    let what = format!(
        "header {} B, array header {} B, references {} B",
        layout.header_bytes, layout.array_header_bytes, layout.reference_bytes
    );
    let how = if layout.is_measured {
        "sizes are those of the JVM, told by the addresses"
    } else {
        "sizes are estimates: identifiers are no addresses"
    };
    format!("{how} ({what})")
}

/// What could not be read.
pub(super) fn write_notes(facts: &DumpFacts, out: &mut dyn Write) -> io::Result<()> {
    if facts.is_truncated {
        writeln!(
            out,
            "note: the file ends before the dump does; all numbers are of what is there"
        )?;
    }
    if facts.unreadable_bytes > 0 {
        let bytes = units::bytes(facts.unreadable_bytes);
        writeln!(out, "note: {bytes} of the file could not be read")?;
    }
    if facts.n_dumps > 1 {
        writeln!(out, "note: the file holds {} dumps; the last one is read", facts.n_dumps)?;
    }
    Ok(())
}

fn write_leak(leak: &Leak, out: &mut dyn Write) -> io::Result<()> {
    let copies = if leak.copies == 1 {
        "1 leaked copy".to_owned()
    } else {
        format!("{} leaked copies", units::count(leak.copies))
    };
    let cost = units::bytes(leak.cost_bytes);
    writeln!(out, "{copies} of {}, {cost}", name(&leak.application))?;
    if let Some(url) = leak.urls.first() {
        let more = match leak.urls.len() {
            1 => String::new(),
            n => format!(" and {} more", n - 1),
        };
        writeln!(out, "  deployed from {}{more}", name(url))?;
    }
    if leak.reloadable == Some(true) {
        writeln!(out, "  reloadable=\"true\"")?;
    }
    /// More are counted.
    const MAX_HOLDERS: usize = 12;
    for holder in leak.holders.iter().take(MAX_HOLDERS) {
        writeln!(out, "  held by {}", held_by(holder))?;
    }
    if let Some(more) = leak.holders.len().checked_sub(MAX_HOLDERS).filter(|&more| more > 0) {
        writeln!(out, "  and by {more} more: `memtrace heap FILE --json -`")?;
    }
    leak.remedy.iter().try_for_each(|remedy| writeln!(out, "  remedy: {}", name(remedy)))
}

/// A holder on one line.
fn held_by(holder: &Holder) -> String {
    let thread = holder.thread.as_deref().map(name);
    match (holder.kind, thread) {
        (kind @ ("thread" | "timer"), Some(thread)) => {
            let way: Vec<&str> = holder.path.iter().skip(1).map(String::as_str).collect();
            let way = if way.is_empty() {
                String::new()
            } else {
                format!(": {}", name(&way.join(" → ")))
            };
            format!("{kind} \"{thread}\"{way}")
        }
        (kind, thread) => {
            let thread =
                thread.map(|thread| format!(" of thread \"{thread}\"")).unwrap_or_default();
            format!("{}{thread}: {}", kind.replace('_', " "), name(&holder.path.join(" → ")))
        }
    }
}

/// A name of the dump's, made fit for one line.
fn name(name: &str) -> String {
    names::clip(&escape::line(name), 2 * WIDTH)
}
