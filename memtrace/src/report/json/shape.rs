//! The document, field by field, in the order in which it is written.

use std::borrow::Cow;

use memtrace_common::Kind;
use serde::{Serialize, Serializer};

use super::super::{
    ending, escape, names,
    room::{LEFT_OUT, Room},
    rows, units,
};
use super::blocks::{Blocks, BlocksOfStack, BlocksOfThread, Trends};
use super::{findings::Found, footprint::Footprint, retained::Retained};
use crate::{
    footprint,
    ledger::{EndedBy, Metric, Sample, StackRow, ThreadRow},
    stacks::Frame,
    trace::{self, End, Held, Recording, StackCounts},
};

/// Changes when the meaning of something changes.
pub(super) const SCHEMA: u32 = 1;

#[derive(Serialize)]
pub(super) struct Report<'r> {
    schema: u32,
    memtrace: &'static str,
    target: Target<'r>,
    trace: Trace<'r>,
    rss: Vec<Rss>,
    #[serde(rename = "self", skip_serializing_if = "Option::is_none")]
    memtrace_itself: Option<Itself>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_footprint: Option<Footprint<'r>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    footprint: Option<Footprint<'r>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retained: Option<Retained>,
    #[serde(skip_serializing_if = "Option::is_none")]
    findings: Option<Vec<Found>>,
    notes: &'r [String],
    threads: Vec<Thread<'r>>,
    #[serde(serialize_with = "stacks")]
    stacks: &'r Recording,
}

#[derive(Serialize)]
pub(super) struct Target<'r> {
    pid: u32,
    command: &'r [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    allocator: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jvm: Option<Jvm<'r>>,
}

#[derive(Serialize)]
struct Jvm<'r> {
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    major: Option<u32>,
}

#[derive(Serialize)]
struct Trace<'r> {
    seconds: f64,
    complete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<Ending>,
    #[serde(serialize_with = "in_order")]
    events: Vec<(&'r str, u64)>,
    #[serde(serialize_with = "in_order")]
    failed: Vec<(&'r str, u64)>,
    features: &'r [String],
    #[serde(serialize_with = "in_order")]
    lost: Vec<(&'r str, u64)>,
    #[serde(serialize_with = "in_order")]
    stacks: Vec<(&'r str, u64)>,
    /// What was recorded, but not kept apart or not matched.
    #[serde(serialize_with = "in_order")]
    unmatched: Vec<(&'r str, u64)>,
    before_bytes: u64,
    before_given_back_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    malloc: Option<Blocks>,
}

#[derive(Serialize)]
struct Ending {
    why: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
}

#[derive(Serialize)]
struct Rss {
    seconds: f64,
    rss_bytes: u64,
    swap_bytes: u64,
}

#[derive(Serialize)]
struct Itself {
    cpu_seconds: f64,
    max_rss_bytes: u64,
}

#[derive(Serialize)]
struct Thread<'r> {
    tid: u32,
    tgid: u32,
    name: Cow<'r, str>,
    name_from: &'static str,
    ended: bool,
    events: u64,
    mapped_bytes: u64,
    mapped_live_bytes: u64,
    inflaters: u64,
    inflaters_live: u64,
    #[serde(flatten)]
    blocks: Option<BlocksOfThread>,
    inflaters_ended_by: Vec<Ender<'r>>,
}

#[derive(Serialize)]
struct Ender<'r> {
    name: Cow<'r, str>,
    tid: u32,
    count: u64,
}

#[derive(Serialize)]
struct Stack<'r> {
    metric: &'static str,
    tid: u32,
    value: u64,
    events: u64,
    #[serde(flatten)]
    blocks: Option<BlocksOfStack>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quality: Option<&'static str>,
    frames: Vec<Cow<'r, str>>,
    /// Of each frame in order, where a method of Java's is; absent where none is known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sources: Vec<Option<Place<'r>>>,
}

#[derive(Serialize)]
struct Place<'r> {
    file: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
}

impl<'r> Report<'r> {
    pub(super) fn of(recording: &'r Recording) -> Self {
        let ledger = &recording.ledger;
        let end = recording.end.as_ref();
        let footprint =
            |it: &'r footprint::Footprint| Footprint::of(it, ledger.since_start_ns(it.time_ns));
        Self {
            schema: SCHEMA,
            memtrace: env!("CARGO_PKG_VERSION"),
            target: Target::of(&recording.target),
            trace: Trace::of(recording),
            rss: ledger.rss().samples().iter().map(|sample| Rss::of(recording, sample)).collect(),
            memtrace_itself: end.map(|end| Itself {
                cpu_seconds: units::seconds(end.self_cpu_ns),
                max_rss_bytes: end.self_max_rss_bytes,
            }),
            first_footprint: recording.first_footprint.as_ref().map(footprint),
            footprint: recording.footprint.as_ref().map(footprint),
            retained: Retained::of(recording),
            findings: super::findings::of(recording),
            notes: &recording.notes,
            threads: threads(recording),
            stacks: recording,
        }
    }
}

impl<'r> Target<'r> {
    pub(super) fn of(target: &'r trace::Target) -> Self {
        Self {
            pid: target.pid,
            command: &target.command,
            allocator: target.allocator.as_deref(),
            jvm: target.jvm.as_ref().map(|jvm| Jvm { version: &jvm.version, major: jvm.major }),
        }
    }
}

impl<'r> Trace<'r> {
    fn of(recording: &'r Recording) -> Self {
        let counts = recording.ledger.counts();
        let StackCounts { complete, approximate, truncated, broken } = recording.stack_counts;
        Self {
            seconds: units::seconds(recording.ledger.duration_ns()),
            complete: recording.end.is_some(),
            end: recording.end.as_ref().map(Ending::of),
            events: events(recording),
            failed: borrowed(&recording.failed).filter(|&(_, n)| n > 0).collect(),
            features: &recording.features,
            lost: borrowed(&recording.losses).collect(),
            stacks: vec![
                ("complete", complete),
                ("approximate", approximate),
                ("truncated", truncated),
                ("broken", broken),
            ],
            unmatched: vec![
                ("inflaters_ended_before", counts.streams_ended_before),
                ("inflaters_end_missed", counts.streams_end_missed),
                ("threads_grouped", counts.threads_grouped),
                ("stacks_grouped", counts.totals_grouped),
            ],
            before_bytes: counts.before_bytes,
            before_given_back_bytes: counts.before_given_back_bytes,
            malloc: Blocks::of(recording),
        }
    }
}

impl Ending {
    fn of(end: &End) -> Self {
        let (exit_code, signal) = ending::code_and_signal(end);
        Self { why: ending::why(end.why), exit_code, signal }
    }
}

impl Rss {
    fn of(recording: &Recording, sample: &Sample) -> Self {
        Self {
            seconds: units::seconds(recording.ledger.since_start_ns(sample.time_ns)),
            rss_bytes: sample.rss_bytes,
            swap_bytes: sample.swap_bytes,
        }
    }
}

fn threads<'r>(recording: &'r Recording) -> Vec<Thread<'r>> {
    let held = recording.held_by_streams().unwrap_or_default();
    let all = recording.ledger.threads();
    let thread = |row: ThreadRow<'r>| {
        let of_thread = |held: &&Held| {
            all.get(held.thread as usize).is_some_and(|thread| std::ptr::eq(thread, row.thread))
        };
        let held = held.iter().find(of_thread).map_or(0, |held| held.bytes);
        let blocks = BlocksOfThread::of(recording, &row, held);
        Thread { blocks, ..Thread::of(row) }
    };
    recording.ledger.by_thread().into_iter().map(thread).collect()
}

impl<'r> Thread<'r> {
    fn of(row: ThreadRow<'r>) -> Self {
        let thread = row.thread;
        Self {
            tid: thread.tid,
            tgid: thread.tgid,
            name: escape::decode(&thread.name),
            name_from: names::name_from(thread.name_from),
            ended: thread.ended,
            events: thread.n_events,
            mapped_bytes: row.mapped_bytes,
            mapped_live_bytes: row.mapped_live_bytes,
            inflaters: row.inflaters,
            inflaters_live: row.inflaters_live,
            blocks: None,
            inflaters_ended_by: row.ended_by.iter().map(Ender::of).collect(),
        }
    }
}

impl<'r> Ender<'r> {
    fn of(by: &EndedBy<'r>) -> Self {
        Self { name: escape::decode(&by.thread.name), tid: by.thread.tid, count: by.n }
    }
}

/// System calls and Java's streams, also those that did not happen; of zlib's own functions and of allocators', which are
/// watched only when asked, those that did.
fn events(recording: &Recording) -> Vec<(&'static str, u64)> {
    let of_zlib = Kind::INFLATE_INIT.0..=Kind::DEFLATE_END.0;
    let asked = |kind: &Kind| of_zlib.contains(&kind.0) || kind.is_malloc();
    let calls = Kind::ALL.iter().filter(|kind| kind.is_call());
    calls
        .filter(|kind| !asked(kind) || recording.ledger.n(**kind) > 0)
        .filter_map(|&kind| Some((kind.name()?, recording.ledger.n(kind))))
        .collect()
}

/// The stacks of all metrics, made one after the other.
fn stacks<S: Serializer>(recording: &&Recording, serializer: S) -> Result<S::Ok, S::Error> {
    let recording = *recording;
    let rows_of =
        |metric| rows::by_stack(recording, metric).into_iter().map(move |row| (metric, row));
    let rows = Metric::ALL.into_iter().flat_map(rows_of);
    let mut room = Room::new(Room::DEFAULT_BYTES);
    let trends = Trends::of(recording);
    serializer.collect_seq(rows.map(|(metric, row)| {
        let blocks = trends.blocks(metric, &row);
        Stack { blocks, ..stack(recording, metric, row, &mut room) }
    }))
}

fn stack<'r>(
    recording: &'r Recording,
    metric: Metric,
    row: StackRow,
    room: &mut Room,
) -> Stack<'r> {
    let (frames, sources) = if room.take(recording, row.stack) {
        let frames = || recording.frames_of(row.stack);
        (frames().map(frame).collect(), sources(frames()))
    } else {
        (vec![LEFT_OUT.into()], Vec::new())
    };
    let thread = recording.ledger.threads().get(row.thread as usize);
    Stack {
        metric: metric.name(),
        tid: thread.map(|thread| thread.tid).unwrap_or_default(),
        value: row.value,
        events: row.n_events,
        blocks: None,
        quality: names::quality(recording.quality_of(row.stack)),
        frames,
        sources,
    }
}

/// Where the methods among `frames` are; none where no frame is a method.
fn sources<'r>(frames: impl Iterator<Item = &'r Frame>) -> Vec<Option<Place<'r>>> {
    let place = |frame: &'r Frame| {
        let (file, line) = frame.source.as_ref().filter(|_| frame.kind.is_method())?;
        Some(Place { file, line: *line })
    };
    let places: Vec<_> = frames.map(place).collect();
    if places.iter().all(Option::is_none) { Vec::new() } else { places }
}

fn frame(frame: &Frame) -> Cow<'_, str> {
    if frame.guess { format!("{}_[?]", frame.name).into() } else { frame.name.as_str().into() }
}

fn borrowed(numbers: &[(String, u64)]) -> impl Iterator<Item = (&str, u64)> {
    numbers.iter().map(|(name, n)| (name.as_str(), *n))
}

/// Pairs as an object whose keys stay in this order.
fn in_order<S: Serializer>(pairs: &[(&str, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{report::sample::recording, stacks::FrameKind};

    /// Methods have a place, nothing else has; where there is none at all there is no list.
    #[test]
    fn places_of_methods() {
        let frame = |kind, source: Option<(&str, Option<u32>)>| Frame {
            name: String::new(),
            kind,
            guess: false,
            source: source.map(|(file, line)| (file.to_owned(), line)),
        };
        let native = frame(FrameKind::Native, Some(("libc.so.6", None)));
        let known = frame(FrameKind::Compiled, Some(("B.java", Some(7))));
        let unknown = frame(FrameKind::Interpreted, None);
        let told =
            |frames: &[&Frame]| serde_json::to_string(&sources(frames.iter().copied())).unwrap();
        assert_eq!(told(&[&known, &native, &unknown]), r#"[{"file":"B.java","line":7},null,null]"#);
        assert_eq!(told(&[&native, &unknown]), "[]");
    }

    /// Of a stack that there is no room for, everything but the frames is told.
    #[test]
    fn no_room() {
        let recording = recording();
        let mut room = Room::new(60);
        let rows = recording.ledger.by_stack(Metric::Mapped);
        let stacks: Vec<_> = rows
            .iter()
            .map(|row| stack(&recording, Metric::Mapped, *row, &mut room))
            .map(|stack| (stack.value, stack.frames.join(" ")))
            .collect();
        let stacks: Vec<_> =
            stacks.iter().map(|(value, frames)| (*value, frames.as_str())).collect();
        assert_eq!(
            stacks,
            [
                (4 << 20, "[java] Inflater_init calloc mprotect"),
                (65536, LEFT_OUT),
                (8192, "mmap"),
                (4096, LEFT_OUT),
            ]
        );
    }
}
