//! What a heap dump holds, as JSON.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Serializer;

use super::{layout::Layout, shape::SCHEMA};
use crate::heap;

#[derive(Serialize)]
struct Document<'r> {
    schema: u32,
    memtrace: &'static str,
    dump: Dump<'r>,
    totals: Totals,
    leaks: Vec<Leak<'r>>,
    leaked_loaders: Vec<LeakedLoader<'r>>,
    duplicated_classes: Vec<Row<'r>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dominators: Option<Vec<Dominator<'r>>>,
    loaders: Vec<Loader<'r>>,
    histogram: Vec<Row<'r>>,
}

#[derive(Serialize)]
struct HistogramDocument<'r> {
    schema: u32,
    memtrace: &'static str,
    dump: Dump<'r>,
    histogram: Vec<Row<'r>>,
}

#[derive(Serialize)]
pub(super) struct Dump<'r> {
    format: &'r str,
    id_bytes: usize,
    bytes: u64,
    truncated: bool,
    unreadable_bytes: u64,
    dumps: u32,
    sizes_measured: bool,
    header_bytes: u64,
    array_header_bytes: u64,
    reference_bytes: u64,
    alignment_bytes: u64,
}

#[derive(Serialize)]
struct Totals {
    objects: u64,
    classes: u64,
    loaders: u64,
    shallow_bytes: u64,
    roots: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    unreached_objects: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unreached_bytes: Option<u64>,
}

#[derive(Serialize)]
struct Leak<'r> {
    application: &'r str,
    copies: u64,
    cost_bytes: u64,
    shared_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reloadable: Option<bool>,
    urls: &'r [String],
    holders: Vec<Holder<'r>>,
    remedy: &'r [String],
}

#[derive(Serialize)]
struct LeakedLoader<'r> {
    class: &'r str,
    id: String,
    state: &'r str,
    application: Option<&'r str>,
    urls: &'r [String],
    reloadable: Option<bool>,
    classes: u64,
    holders: Vec<Holder<'r>>,
    cost_bytes: u64,
}

#[derive(Serialize)]
struct Holder<'r> {
    kind: &'static str,
    thread: Option<&'r str>,
    path: &'r [String],
}

#[derive(Serialize)]
struct Row<'r> {
    class: &'r str,
    copies: u64,
    instances: u64,
    shallow_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    retained_bytes: Option<u64>,
}

#[derive(Serialize)]
struct Dominator<'r> {
    class: &'r str,
    is_class: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread: Option<&'r str>,
    id: String,
    shallow_bytes: u64,
    retained_bytes: u64,
}

#[derive(Serialize)]
struct Loader<'r> {
    class: &'r str,
    id: String,
    classes: u64,
    state: Option<&'r str>,
    application: Option<&'r str>,
    urls: &'r [String],
}

pub(super) fn hex(id: u64) -> String {
    format!("{id:#x}")
}

pub(super) fn dump(facts: &heap::DumpFacts) -> Dump<'_> {
    Dump {
        format: &facts.format,
        id_bytes: facts.id_bytes,
        bytes: facts.bytes,
        truncated: facts.is_truncated,
        unreadable_bytes: facts.unreadable_bytes,
        dumps: facts.n_dumps,
        sizes_measured: facts.layout.is_measured,
        header_bytes: facts.layout.header_bytes,
        array_header_bytes: facts.layout.array_header_bytes,
        reference_bytes: facts.layout.reference_bytes,
        alignment_bytes: facts.layout.alignment_bytes,
    }
}

fn totals(totals: &heap::Totals) -> Totals {
    Totals {
        objects: totals.n_objects,
        classes: totals.n_classes,
        loaders: totals.n_loaders,
        shallow_bytes: totals.shallow_bytes,
        roots: totals.n_roots,
        unreached_objects: totals.unreached.map(|it| it.n),
        unreached_bytes: totals.unreached.map(|it| it.bytes),
    }
}

fn holders(holders: &[heap::Holder]) -> Vec<Holder<'_>> {
    holders
        .iter()
        .map(|it| Holder { kind: it.kind, thread: it.thread.as_deref(), path: &it.path })
        .collect()
}

fn leak(leak: &heap::Leak) -> Leak<'_> {
    Leak {
        application: &leak.application,
        copies: leak.copies,
        cost_bytes: leak.cost_bytes,
        shared_bytes: leak.shared_bytes,
        reloadable: leak.reloadable,
        urls: &leak.urls,
        holders: holders(&leak.holders),
        remedy: &leak.remedy,
    }
}

fn leaked(loader: &heap::LeakedLoader) -> LeakedLoader<'_> {
    LeakedLoader {
        class: &loader.class,
        id: hex(loader.id),
        state: &loader.state,
        application: loader.application.as_deref(),
        urls: &loader.urls,
        reloadable: loader.reloadable,
        classes: loader.n_classes,
        holders: holders(&loader.holders),
        cost_bytes: loader.cost_bytes,
    }
}

fn row(row: &heap::HistogramRow) -> Row<'_> {
    Row {
        class: &row.class,
        copies: row.n_classes,
        instances: row.n,
        shallow_bytes: row.shallow_bytes,
        retained_bytes: row.retained_bytes,
    }
}

fn dominator(it: &heap::Dominator) -> Dominator<'_> {
    Dominator {
        class: &it.class,
        is_class: it.is_class,
        thread: it.label.as_deref(),
        id: hex(it.id),
        shallow_bytes: it.shallow_bytes,
        retained_bytes: it.retained_bytes,
    }
}

fn loader(it: &heap::LoaderRow) -> Loader<'_> {
    Loader {
        class: &it.class,
        id: hex(it.id),
        classes: it.n_classes,
        state: it.state.as_deref(),
        application: it.application.as_deref(),
        urls: &it.urls,
    }
}

/// Writes everything that was found in a dump.
///
/// # Errors
///
/// Only those of `out`.
pub fn write_heap(analysis: &heap::Analysis, out: &mut dyn Write) -> io::Result<()> {
    let dominators = analysis.dominators.as_ref();
    let document = Document {
        schema: SCHEMA,
        memtrace: env!("CARGO_PKG_VERSION"),
        dump: dump(&analysis.facts),
        totals: totals(&analysis.totals),
        leaks: analysis.loaders.leaks.iter().map(leak).collect(),
        leaked_loaders: analysis.loaders.leaked.iter().map(leaked).collect(),
        duplicated_classes: analysis.duplicated.iter().map(row).collect(),
        dominators: dominators.map(|found| found.iter().map(dominator).collect()),
        loaders: analysis.loaders.all.iter().map(loader).collect(),
        histogram: analysis.histogram.iter().map(row).collect(),
    };
    write(&document, out)
}

/// Writes a histogram.
///
/// # Errors
///
/// Only those of `out`.
pub fn write_heap_histogram(histogram: &heap::Histogram, out: &mut dyn Write) -> io::Result<()> {
    let document = HistogramDocument {
        schema: SCHEMA,
        memtrace: env!("CARGO_PKG_VERSION"),
        dump: dump(&histogram.facts),
        histogram: histogram.rows.iter().map(row).collect(),
    };
    write(&document, out)
}

pub(super) fn write(document: &impl Serialize, out: &mut dyn Write) -> io::Result<()> {
    document.serialize(&mut Serializer::with_formatter(&mut *out, Layout::default()))?;
    out.write_all(b"\n")
}
