//! Recordings for the tests of rules: a process put together of what it is to look like.

use crate::{
    footprint::{Arena, Footprint, FreePages, JavaHeap, Malloc, Row, RowKind},
    ledger::{Event, NameFrom, StreamKind, What},
    stacks::{Frame, FrameId, FrameKind, Quality, Stack, StackId},
    trace::{End, Jvm, Record, Recording, Target, ThreadName, Why},
};

pub(super) const MIB: u64 = 1 << 20;
pub(super) const S: u64 = 1_000_000_000;
pub(super) const PID: u32 = 100;
/// The thread that ends what others leave.
pub(super) const CLEANER: u32 = 101;
/// Where the heap of an arena begins.
const HEAP: u64 = 1 << 40;

/// A process that is being made up.
pub(super) struct Sample {
    pub(super) recording: Recording,
    pub(super) footprint: Footprint,
    n_arenas: u64,
}

impl Sample {
    /// A JVM of 200 MiB of Java heap, all of it used.
    pub(super) fn new() -> Self {
        let mut recording = Recording::default();
        recording.apply(Record::Target(Target {
            pid: PID,
            command: vec!["java".into(), "-Xmx1g".into()],
            allocator: Some("glibc 2.36".into()),
            jvm: Some(Jvm { version: "17.0.15+6".into(), major: Some(17) }),
        }));
        let mut sample = Self { recording, footprint: Footprint::default(), n_arenas: 0 };
        sample.thread(PID, "main");
        sample.thread(CLEANER, "Common-Cleaner");
        sample.row(RowKind::JavaHeapUsed, 200 * MIB);
        sample.footprint.malloc = Some(Malloc::default());
        sample.at(0, PID, 0, What::Brk { to: 4096 });
        sample
    }

    pub(super) fn thread(&mut self, tid: u32, name: &str) {
        let name = name.as_bytes().to_vec();
        let name = ThreadName { tgid: PID, tid, name, from: NameFrom::Comm };
        self.recording.apply(Record::ThreadName(name));
    }

    /// A stack of these frames, the innermost first; names with a point are methods.
    pub(super) fn stack(&mut self, frames: &[&str]) -> u32 {
        let mut ids = Vec::new();
        for name in frames {
            ids.push(FrameId(self.recording.frames.len() as u32));
            let kind = if name.contains('.') { FrameKind::Interpreted } else { FrameKind::Native };
            self.recording.apply(Record::Frame(Frame {
                name: (*name).into(),
                kind,
                guess: false,
                source: None,
            }));
        }
        self.recording.apply(Record::Stack(Stack { frames: ids, quality: Quality::Complete }));
        self.recording.stacks.len() as u32 - 1
    }

    pub(super) fn at(&mut self, time_ns: u64, tid: u32, stack: u32, what: What) {
        let event = Event { time_ns, tgid: PID, tid, stack: StackId(stack), what };
        self.recording.apply(Record::Event(event));
    }

    pub(super) fn row(&mut self, kind: RowKind, bytes: u64) {
        self.footprint.rows.retain(|row| row.kind != kind);
        self.footprint.rows.push(Row { kind, resident_bytes: bytes, swap_bytes: 0 });
        self.footprint.rss_bytes = self.footprint.rows.iter().map(|row| row.resident_bytes).sum();
    }

    /// An arena that `tid` has grown at a stack, of which so many bytes are free and can be returned.
    pub(super) fn arena(&mut self, tid: u32, stack: u32, grown: u64, free: u64) {
        self.n_arenas += 1;
        let start = HEAP + (self.n_arenas << 30);
        self.at(S, tid, stack, What::Mmap { addr: start, len: 1 << 30, access: false });
        let what = What::Mprotect { addr: start, len: grown, access: true, pkey: false };
        self.at(2 * S, tid, stack, what);
        let arena = Arena {
            address: start,
            returnable_bytes: free,
            free_pages: if free > 0 { vec![FreePages { start, bytes: free }] } else { vec![] },
            ..Arena::default()
        };
        let before = self.footprint.resident(RowKind::MallocReturnable);
        self.row(RowKind::MallocReturnable, before + free);
        self.footprint.malloc.get_or_insert_default().arenas.push(arena);
    }

    /// A hundred blocks of a MiB each, as malloc maps large ones, at a stack at these times; and beside it something
    /// small all the time.
    pub(super) fn blocks(&mut self, stack: u32, at_ns: impl Fn(u64) -> u64) {
        let other = self.stack(&["mmap", "x"]);
        let large = (1..=100).map(|n| (at_ns(n), stack, MIB));
        let mut blocks: Vec<_> =
            large.chain((1..=100).map(|n| (n * S / 2 + 7000, other, 4096))).collect();
        blocks.sort_unstable();
        for (at, (time_ns, stack, len)) in ((1 << 44)..).step_by(1 << 21).zip(blocks) {
            self.at(time_ns, PID, stack, What::Mmap { addr: at, len, access: true });
        }
    }

    /// A stream that is opened, and ended by somebody at some time.
    pub(super) fn stream(&mut self, kind: StreamKind, tid: u32, stack: u32, opened_ns: u64) -> u64 {
        let address = (1 << 45) + opened_ns;
        self.at(opened_ns, tid, stack, What::StreamInit { kind, address });
        address
    }

    pub(super) fn ended(&mut self, kind: StreamKind, tid: u32, at_ns: u64, address: u64) {
        self.at(at_ns, tid, 0, What::StreamEnd { kind, address });
    }

    pub(super) fn heap(&mut self, collector: &str, used: u64, resident: u64, committed: u64) {
        self.row(RowKind::JavaHeapUsed, used);
        self.row(RowKind::JavaHeapUnused, resident - used);
        self.footprint.java_heap = Some(JavaHeap {
            collector: collector.into(),
            used_bytes: Some(used),
            committed_bytes: committed,
            resident_bytes: resident,
        });
    }

    /// Every number of the heap and of malloc is `bytes`.
    pub(super) fn heap_claims(&mut self, bytes: u64) {
        self.footprint.java_heap = Some(JavaHeap {
            collector: "G1".into(),
            used_bytes: Some(bytes),
            committed_bytes: bytes,
            resident_bytes: bytes,
        });
        let arena = Arena { returnable_bytes: bytes, kept_bytes: bytes, ..Arena::default() };
        let arenas = vec![arena; 3];
        self.footprint.malloc = Some(Malloc { live_bytes: bytes, arenas, ..Malloc::default() });
    }

    /// The recording, looked at after a minute and at its end.
    pub(super) fn done(mut self) -> Recording {
        self.at(60 * S, PID, 0, What::Brk { to: 4096 });
        self.footprint.time_ns = 60 * S;
        self.recording.apply(Record::Footprint(Box::new(self.footprint)));
        self.recording.apply(Record::Losses(vec![("ring_full".into(), 0)]));
        self.recording.apply(Record::End(End {
            time_ns: 60 * S,
            why: Why::Asked,
            status: None,
            self_cpu_ns: 0,
            self_max_rss_bytes: 0,
        }));
        self.recording
    }
}
