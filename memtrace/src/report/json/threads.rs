//! The stacks of all threads at one moment, as JSON.

use std::{
    borrow::Cow,
    io::{self, BufWriter, Write},
};

use serde::{Serialize, Serializer};
use serde_json::Serializer as JsonSerializer;

use super::{
    super::{
        escape, names,
        threads_now::{Taken, ThreadNow, ThreadsNow, quality},
    },
    layout::Layout,
    shape::{SCHEMA, Target},
};
use crate::stacks::{Frame, FrameKind};

#[derive(Serialize)]
struct Document<'r> {
    schema: u32,
    memtrace: &'static str,
    target: Target<'r>,
    frozen: bool,
    notes: &'r [String],
    #[serde(serialize_with = "threads")]
    threads: &'r [ThreadNow],
}

#[derive(Serialize)]
struct Thread<'r> {
    tid: u32,
    nid: u32,
    name: Cow<'r, str>,
    name_from: &'static str,
    consistent: bool,
    quality: &'static str,
    /// Outermost first, as everywhere.
    frames: Vec<FrameNow<'r>>,
}

#[derive(Serialize)]
struct FrameNow<'r> {
    name: &'r str,
    kind: &'static str,
    guess: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    module: Option<&'r str>,
}

/// Writes everything that was taken.
///
/// # Errors
///
/// Only those of `out`.
pub fn write_threads(now: &ThreadsNow, out: impl Write) -> io::Result<()> {
    let document = Document {
        schema: SCHEMA,
        memtrace: env!("CARGO_PKG_VERSION"),
        target: Target::of(&now.target),
        frozen: now.is_frozen,
        notes: &now.notes,
        threads: &now.threads,
    };
    let mut out = BufWriter::new(out);
    document.serialize(&mut JsonSerializer::with_formatter(&mut out, Layout::default()))?;
    out.write_all(b"\n")?;
    out.flush()
}

/// One after the other: they may be much more than what they are made of.
fn threads<S: Serializer>(threads: &[ThreadNow], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(threads.iter().map(thread))
}

fn thread(thread: &ThreadNow) -> Thread<'_> {
    Thread {
        tid: thread.tid,
        nid: thread.nid,
        name: escape::decode(&thread.name),
        name_from: names::name_from(thread.name_from),
        consistent: thread.taken == Taken::Consistent,
        quality: quality(thread.quality),
        frames: thread.frames.iter().rev().map(|it| frame(it)).collect(),
    }
}

fn frame(frame: &Frame) -> FrameNow<'_> {
    let Frame { name, kind, guess, source } = frame;
    let source = source.as_ref().map(|(file, line)| (file.as_str(), *line));
    let is_native = *kind == FrameKind::Native;
    let of_java = source.filter(|_| !is_native);
    FrameNow {
        name,
        kind: match kind {
            FrameKind::Native => "native",
            FrameKind::Java => "java",
            FrameKind::Interpreted => "interpreted",
            FrameKind::Compiled => "compiled",
            FrameKind::Inlined => "inlined",
            FrameKind::JavaNative => "java_native",
            FrameKind::Stub => "stub",
        },
        guess: *guess,
        file: of_java.map(|(file, _)| file),
        line: of_java.and_then(|(_, line)| line),
        module: source.filter(|_| is_native).map(|(module, _)| module),
    }
}
