//! The tables of single views.

use std::io::{self, Write};

use super::{super::units, name, write_notes};
use crate::heap::{
    Dominator, DumpFacts, HistogramRow, LoaderRow, ObjectView, PathView, ThreadView,
};

/// Writes classes with their instances.
///
/// # Errors
///
/// Only those of `out`.
pub fn write_histogram<'r>(
    facts: &DumpFacts,
    rows: impl IntoIterator<Item = &'r HistogramRow>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut rows = rows.into_iter().peekable();
    let has_retained = rows.peek().is_some_and(|row| row.retained_bytes.is_some());
    let retained = |text: &str| if has_retained { format!(" {text:>16}") } else { String::new() };
    writeln!(out, "{:>13} {:>16}{}  class", "instances", "bytes", retained("retained"))?;
    let mut sum = (0, 0);
    for row in rows {
        sum = (sum.0 + row.n, sum.1 + row.shallow_bytes);
        let (n, bytes) = (units::count(row.n), units::count(row.shallow_bytes));
        let kept = retained(&row.retained_bytes.map(units::count).unwrap_or_default());
        writeln!(out, "{n:>13} {bytes:>16}{kept}  {}", name(&row.class))?;
    }
    let (n, bytes) = (units::count(sum.0), units::count(sum.1));
    writeln!(out, "{n:>13} {bytes:>16}{}  in all", retained(""))?;
    write_notes(facts, out)
}

/// Writes objects that retain others.
///
/// # Errors
///
/// Only those of `out`.
pub fn write_dominators<'r>(
    rows: impl IntoIterator<Item = &'r Dominator>,
    out: &mut dyn Write,
) -> io::Result<()> {
    writeln!(out, "  {:>11} {:>11}  object", "retained", "shallow")?;
    for row in rows {
        let (retained, shallow) =
            (units::bytes(row.retained_bytes), units::bytes(row.shallow_bytes));
        let class = if row.is_class { "class " } else { "" };
        let what = format!("{class}{} {:#x}", name(&row.class), row.id);
        let label = row.label.as_deref().map(|label| format!(" \"{}\"", name(label)));
        writeln!(out, "  {retained:>11} {shallow:>11}  {what}{}", label.unwrap_or_default())?;
    }
    Ok(())
}

/// Writes class loaders.
///
/// # Errors
///
/// Only those of `out`.
pub fn write_loaders<'r>(
    rows: impl IntoIterator<Item = &'r LoaderRow>,
    out: &mut dyn Write,
) -> io::Result<()> {
    writeln!(out, "{:>8}  {:>12}  {:12}  class loader", "classes", "id", "state")?;
    for row in rows {
        let state = row.state.as_deref().unwrap_or("-");
        let id = format!("{:#x}", row.id);
        write!(out, "{:>8}  {id:>12}  {:12}  {}", row.n_classes, name(state), name(&row.class))?;
        if let Some(application) = &row.application {
            write!(out, " of {}", name(application))?;
        }
        writeln!(out)?;
        for url in row.urls.iter().take(3) {
            writeln!(out, "{:38}{}", "", name(url))?;
        }
    }
    Ok(())
}

/// Writes threads with their stacks.
///
/// # Errors
///
/// Only those of `out`.
pub fn write_threads<'r>(
    rows: impl IntoIterator<Item = &'r ThreadView>,
    out: &mut dyn Write,
) -> io::Result<()> {
    for row in rows {
        writeln!(out, "\"{}\" {} {:#x}", name(&row.name), name(&row.class), row.id)?;
        if let Some(loader) = &row.context_loader {
            writeln!(out, "    context class loader {}", name(loader))?;
        }
        for frame in &row.frames {
            writeln!(out, "    at {}", name(frame))?;
        }
        for local in &row.locals {
            writeln!(out, "    local {}", name(local))?;
        }
    }
    Ok(())
}

/// Writes an object's fields.
///
/// # Errors
///
/// Only those of `out`.
pub fn write_object(object: &ObjectView, out: &mut dyn Write) -> io::Result<()> {
    let bytes = units::bytes(object.shallow_bytes);
    writeln!(out, "{} {:#x}, {bytes}", name(&object.class), object.id)?;
    for (field, value) in &object.fields {
        writeln!(out, "  {} = {}", name(field), name(value))?;
    }
    if object.n_left_out > 0 {
        writeln!(out, "  and {} more", units::count(object.n_left_out))?;
    }
    Ok(())
}

/// Writes ways from roots.
///
/// # Errors
///
/// Only those of `out`.
pub fn write_paths(paths: &[PathView], out: &mut dyn Write) -> io::Result<()> {
    for path in paths {
        let n = units::things(path.n, "object");
        writeln!(out, "{n}, from {}", path.root)?;
        for step in &path.steps {
            writeln!(out, "  → {}", name(step))?;
        }
    }
    Ok(())
}
