//! Single things of a heap dump, as JSON.

use std::io::{self, Write};

use serde::Serialize;

use super::{
    heap::{Dump, dump, hex, write},
    shape::SCHEMA,
};
use crate::heap::{DumpFacts, ObjectView, PathView, ThreadView};

#[derive(Serialize)]
struct Document<'r, T> {
    schema: u32,
    memtrace: &'static str,
    dump: Dump<'r>,
    #[serde(flatten)]
    view: T,
}

#[derive(Serialize)]
struct Object<'r> {
    object: ObjectFields<'r>,
}

#[derive(Serialize)]
struct ObjectFields<'r> {
    class: &'r str,
    id: String,
    shallow_bytes: u64,
    fields: Vec<Field<'r>>,
    left_out: u64,
}

#[derive(Serialize)]
struct Field<'r> {
    name: &'r str,
    value: &'r str,
}

#[derive(Serialize)]
struct Threads<'r> {
    threads: Vec<Thread<'r>>,
}

#[derive(Serialize)]
struct Thread<'r> {
    name: &'r str,
    class: &'r str,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    context_loader: Option<&'r str>,
    frames: &'r [String],
    locals: &'r [String],
}

#[derive(Serialize)]
struct Paths<'r> {
    paths: Vec<Path<'r>>,
}

#[derive(Serialize)]
struct Path<'r> {
    objects: u64,
    root: &'static str,
    steps: &'r [String],
}

/// One object with its fields.
///
/// # Errors
///
/// Only those of `out`.
pub fn write_heap_object(
    facts: &DumpFacts,
    object: &ObjectView,
    out: &mut dyn Write,
) -> io::Result<()> {
    let fields = object.fields.iter().map(|(name, value)| Field { name, value }).collect();
    let object = ObjectFields {
        class: &object.class,
        id: hex(object.id),
        shallow_bytes: object.shallow_bytes,
        fields,
        left_out: object.n_left_out,
    };
    write_view(facts, Object { object }, out)
}

/// Threads with what their local variables refer to.
///
/// # Errors
///
/// Only those of `out`.
pub fn write_heap_threads(
    facts: &DumpFacts,
    threads: &[ThreadView],
    out: &mut dyn Write,
) -> io::Result<()> {
    write_view(facts, Threads { threads: threads.iter().map(thread).collect() }, out)
}

fn thread(thread: &ThreadView) -> Thread<'_> {
    Thread {
        name: &thread.name,
        class: &thread.class,
        id: hex(thread.id),
        context_loader: thread.context_loader.as_deref(),
        frames: &thread.frames,
        locals: &thread.locals,
    }
}

/// Ways from the roots.
///
/// # Errors
///
/// Only those of `out`.
pub fn write_heap_paths(
    facts: &DumpFacts,
    paths: &[PathView],
    out: &mut dyn Write,
) -> io::Result<()> {
    write_view(facts, Paths { paths: paths.iter().map(path).collect() }, out)
}

fn path(path: &PathView) -> Path<'_> {
    Path { objects: path.n, root: path.root, steps: &path.steps }
}

fn write_view(facts: &DumpFacts, view: impl Serialize, out: &mut dyn Write) -> io::Result<()> {
    let memtrace = env!("CARGO_PKG_VERSION");
    write(&Document { schema: SCHEMA, memtrace, dump: dump(facts), view }, out)
}
