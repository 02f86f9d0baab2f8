//! Where the resident bytes of a process are, as JSON.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use serde::{Deserialize, Serialize};
use serde_json::Serializer;

use super::{
    super::footprint::FootprintNow,
    findings::Found,
    layout::Layout,
    shape::{SCHEMA, Target},
};
use crate::{footprint, report::units};

#[derive(Serialize)]
struct Document<'r> {
    schema: u32,
    memtrace: &'static str,
    target: Target<'r>,
    footprint: Footprint<'r>,
    findings: Vec<Found>,
}

/// A footprint, alone or in a report.
#[derive(Serialize)]
pub(super) struct Footprint<'r> {
    /// Of the monotonic clock, so that two of them can be told apart.
    seconds: f64,
    rss_bytes: u64,
    swap_bytes: u64,
    hugetlb_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel_rss_bytes: Option<u64>,
    rows: Vec<Row>,
    #[serde(skip_serializing_if = "Option::is_none")]
    java_heap: Option<JavaHeap<'r>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    malloc: Option<Malloc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    contents: Option<Contents<'r>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<Container<'r>>,
    notes: &'r [String],
}

#[derive(Serialize)]
struct Row {
    kind: &'static str,
    resident_bytes: u64,
    swap_bytes: u64,
}

#[derive(Serialize)]
struct JavaHeap<'r> {
    collector: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    used_bytes: Option<u64>,
    committed_bytes: u64,
    resident_bytes: u64,
}

#[derive(Serialize)]
struct Malloc {
    live_bytes: u64,
    free_bytes: u64,
    trim_returns_bytes: u64,
    arenas: Vec<Arena>,
}

#[derive(Serialize)]
struct Arena {
    address: String,
    threads: u64,
    heaps: u64,
    resident_bytes: u64,
    live_bytes: u64,
    returnable_bytes: u64,
    kept_bytes: u64,
    pinned_by: Vec<Pin>,
}

/// The highest block in use of a heap.
#[derive(Serialize)]
struct Pin {
    heap: String,
    address: String,
    bytes: u64,
}

/// What lies in free pages.
#[derive(Serialize)]
struct Contents<'r> {
    pages: u64,
    looked_at_pages: u64,
    kinds: Vec<Content<'r>>,
}

#[derive(Serialize)]
struct Content<'r> {
    kind: &'static str,
    looked_at_pages: u64,
    /// Of all pages, if those that were looked at are like all.
    bytes: u64,
    samples: &'r [String],
}

#[derive(Serialize)]
struct Container<'r> {
    version: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_bytes: Option<u64>,
    usage_bytes: u64,
    parts: BTreeMap<&'r str, u64>,
}

impl<'r> Footprint<'r> {
    /// What was looked at `time_ns` after whatever seconds are counted from.
    pub(super) fn of(it: &'r footprint::Footprint, time_ns: u64) -> Self {
        let row = |row: &footprint::Row| Row {
            kind: row.kind.name(),
            resident_bytes: row.resident_bytes,
            swap_bytes: row.swap_bytes,
        };
        Self {
            seconds: units::seconds(time_ns),
            rss_bytes: it.rss_bytes,
            swap_bytes: it.swap_bytes,
            hugetlb_bytes: it.hugetlb_bytes,
            kernel_rss_bytes: it.kernel_rss_bytes,
            rows: it.rows.iter().map(row).collect(),
            java_heap: it.java_heap.as_ref().map(|heap| JavaHeap {
                collector: &heap.collector,
                used_bytes: heap.used_bytes,
                committed_bytes: heap.committed_bytes,
                resident_bytes: heap.resident_bytes,
            }),
            malloc: it.malloc.as_ref().map(Malloc::of),
            contents: it.contents.as_ref().map(Contents::of),
            container: it.container.as_ref().map(|container| Container {
                version: container.version,
                limit_bytes: container.limit_bytes,
                usage_bytes: container.usage_bytes,
                parts: container.parts.iter().map(|(name, bytes)| (&**name, *bytes)).collect(),
            }),
            notes: &it.notes,
        }
    }
}

impl<'r> Contents<'r> {
    fn of(contents: &'r footprint::Contents) -> Self {
        let content = |content: &'r footprint::Content| Content {
            kind: content.kind.name(),
            looked_at_pages: content.n_pages,
            bytes: contents.bytes(content),
            samples: &content.samples,
        };
        Self {
            pages: contents.n_pages,
            looked_at_pages: contents.n_looked_at,
            kinds: contents.kinds.iter().map(content).collect(),
        }
    }
}

impl Malloc {
    fn of(malloc: &footprint::Malloc) -> Self {
        let hex = |address: u64| format!("{address:#x}");
        let pin = |pin: &footprint::Pin| Pin {
            heap: hex(pin.heap),
            address: hex(pin.address),
            bytes: pin.bytes,
        };
        let arena = |arena: &footprint::Arena| Arena {
            address: hex(arena.address),
            threads: arena.n_threads,
            heaps: arena.n_heaps,
            resident_bytes: arena.resident_bytes,
            live_bytes: arena.live_bytes,
            returnable_bytes: arena.returnable_bytes,
            kept_bytes: arena.kept_bytes,
            pinned_by: arena.pinned_by.iter().map(pin).collect(),
        };
        Self {
            live_bytes: malloc.live_bytes,
            free_bytes: malloc.free_bytes,
            trim_returns_bytes: malloc.trim_returns_bytes,
            arenas: malloc.arenas.iter().map(arena).collect(),
        }
    }
}

fn document(now: &FootprintNow) -> Document<'_> {
    Document {
        schema: SCHEMA,
        memtrace: env!("CARGO_PKG_VERSION"),
        target: Target::of(&now.target),
        footprint: Footprint::of(&now.footprint, now.footprint.time_ns),
        findings: Found::of_footprint(&now.target, &now.footprint),
    }
}

/// Writes a footprint as one document.
///
/// # Errors
///
/// Only those of `out`.
pub fn write_footprint(now: &FootprintNow, mut out: impl Write) -> io::Result<()> {
    document(now).serialize(&mut Serializer::with_formatter(&mut out, Layout::default()))?;
    out.write_all(b"\n")
}

/// Writes the same on one line.
///
/// # Errors
///
/// Only those of `out`.
pub fn write_footprint_line(now: &FootprintNow, mut out: impl Write) -> io::Result<()> {
    let line = serde_json::to_vec(&document(now))?;
    out.write_all(&line)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// The rows of a footprint that was written: alone, on a line, or in the report of a trace.
#[derive(Debug, Deserialize)]
pub struct WrittenRows {
    /// Resident bytes in all.
    pub rss_bytes: u64,
    rows: Vec<WrittenRow>,
}

#[derive(Debug, Deserialize)]
struct WrittenRow {
    kind: String,
    resident_bytes: u64,
}

#[derive(Deserialize)]
struct Written {
    schema: u32,
    footprint: Option<WrittenRows>,
}

/// What is wrong with a file that should hold a footprint.
#[derive(Debug, thiserror::Error)]
pub enum NoFootprint {
    /// It is no document of memtrace's.
    #[error(transparent)]
    Broken(#[from] serde_json::Error),
    /// Its numbers may mean something else.
    #[error("it has schema {0}, and this memtrace reads {SCHEMA}")]
    Schema(u32),
    /// It has everything but that.
    #[error("it holds no footprint")]
    None,
}

impl WrittenRows {
    /// Names of rows with their resident bytes.
    #[must_use]
    pub fn by_name(&self) -> Vec<(String, u64)> {
        self.rows.iter().map(|row| (row.kind.clone(), row.resident_bytes)).collect()
    }
}

/// Reads the rows of a footprint, of the last one where there are several lines.
///
/// # Errors
///
/// Where that is no JSON of memtrace's, or has no footprint.
pub fn read_footprint(text: impl io::Read) -> Result<WrittenRows, NoFootprint> {
    let mut last = None;
    for document in serde_json::Deserializer::from_reader(text).into_iter::<Written>() {
        last = Some(document?);
    }
    match last {
        Some(Written { schema: SCHEMA, footprint: Some(rows) }) => Ok(rows),
        Some(Written { schema, .. }) if schema != SCHEMA => Err(NoFootprint::Schema(schema)),
        _ => Err(NoFootprint::None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::footprint::RowKind;

    fn now(bytes: u64) -> FootprintNow {
        let row = footprint::Row { kind: RowKind::Gc, resident_bytes: bytes, swap_bytes: 1 };
        let footprint = footprint::Footprint {
            rss_bytes: bytes,
            rows: vec![row],
            ..footprint::Footprint::default()
        };
        FootprintNow { footprint, ..FootprintNow::default() }
    }

    /// What was written is read again, in each form; of several lines the last one counts.
    #[test]
    fn there_and_back() {
        let (mut document, mut lines) = (Vec::new(), Vec::new());
        write_footprint(&now(7), &mut document).unwrap();
        write_footprint_line(&now(8), &mut lines).unwrap();
        write_footprint_line(&now(9), &mut lines).unwrap();
        assert_eq!(lines.iter().filter(|&&byte| byte == b'\n').count(), 2);
        for (text, want) in [(document, 7), (lines, 9)] {
            let read = read_footprint(&text[..]).unwrap();
            assert_eq!((read.rss_bytes, read.by_name()), (want, vec![("gc".to_owned(), want)]));
        }
    }

    /// What was not measured is absent.
    #[test]
    fn absent() {
        let mut document = Vec::new();
        write_footprint(&now(7), &mut document).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&document).unwrap();
        for key in ["kernel_rss_bytes", "java_heap", "malloc", "contents", "container"] {
            assert!(value["footprint"].get(key).is_none(), "{key}");
        }
        assert_eq!(value["footprint"]["rows"][0]["swap_bytes"], 1);
    }

    /// Files of another kind are told of.
    #[test]
    fn other_files() {
        for (text, want) in [
            ("", "it holds no footprint"),
            (r#"{"schema": 1}"#, "it holds no footprint"),
            (r#"{"schema": 2}"#, "it has schema 2, and this memtrace reads 1"),
            ("memtrace", "expected value at line 1 column 1"),
        ] {
            assert_eq!(read_footprint(text.as_bytes()).unwrap_err().to_string(), want, "{text}");
        }
    }
}
