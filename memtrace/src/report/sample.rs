//! Recordings that the tests of the outputs share, put together record by record.

use crate::{
    footprint::Container,
    ledger::{Allocation, Before, Event, Freeing, NameFrom, Sample, StreamKind, What},
    stacks::{Frame, FrameId, FrameKind, Quality, Stack, StackId},
    trace::{End, Jvm, Malloc, Record, Recording, Target, ThreadName, Why},
};

pub(super) const S: u64 = 1_000_000_000;
const PID: u32 = 100;
const SCANNER: u32 = 104;
const CLEANER: u32 = 105;

fn frame(name: &str, kind: FrameKind, guess: bool) -> Record {
    Record::Frame(Frame { name: name.into(), kind, guess, source: None })
}

fn stack(innermost_first: &[u32], quality: Quality) -> Record {
    let frames = innermost_first.iter().map(|&number| FrameId(number)).collect();
    Record::Stack(Stack { frames, quality })
}

fn event(time_ns: u64, tid: u32, stack: u32, what: What) -> Record {
    Record::Event(Event { time_ns, tgid: PID, tid, stack: StackId(stack), what })
}

fn init(kind: StreamKind, address: u64) -> Record {
    event(3 * S, SCANNER, 3, What::StreamInit { kind, address })
}

fn end(tid: u32, address: u64) -> Record {
    event(4 * S, tid, 0, What::StreamEnd { kind: StreamKind::Inflater, address })
}

fn name(tid: u32, name: &[u8], from: NameFrom) -> Record {
    Record::ThreadName(ThreadName { tgid: PID, tid, name: name.to_vec(), from })
}

fn rss(time_ns: u64, rss_bytes: u64) -> Record {
    Record::Sample(Sample { time_ns, rss_bytes, swap_bytes: 0 })
}

pub(super) fn mmap(tid: u32, stack: StackId, addr: u64, len: u64) -> Record {
    event(2 * S, tid, stack.0, What::Mmap { addr, len, access: true })
}

fn stacks() -> Vec<Record> {
    vec![
        frame("mmap", FrameKind::Native, false),
        frame("libjvm.so+0x1a2b", FrameKind::Native, true),
        frame("start_thread", FrameKind::Native, false),
        frame("mprotect", FrameKind::Native, false),
        frame("calloc", FrameKind::Native, false),
        frame("Inflater_init", FrameKind::Native, false),
        frame("[java]", FrameKind::Java, false),
        frame("f", FrameKind::Native, false),
        stack(&[0], Quality::Broken),
        stack(&[0, 1, 2], Quality::Approximate),
        stack(&[3, 4, 5, 6], Quality::Complete),
        stack(&[5, 6], Quality::Complete),
        stack(&[0, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7], Quality::Truncated),
    ]
}

fn events() -> Vec<Record> {
    let inflater = |address| init(StreamKind::Inflater, address);
    vec![
        rss(S, 10 << 20),
        Record::Before((
            PID,
            Before { start: 0x1000, end: 0x9000, access: true, is_brk: false, read_ns: 0 },
        )),
        mmap(PID, StackId(0), 0x10_0000, 8192),
        mmap(PID, StackId(1), 0x20_0000, 4096),
        event(2 * S, PID, 0, What::Munmap { addr: 0x10_0000, len: 8192 }),
        event(2 * S, PID, 0, What::Munmap { addr: 0x1000, len: 4096 }),
        event(2 * S, SCANNER, 2, What::Mmap { addr: 1 << 32, len: 64 << 20, access: false }),
        event(
            3 * S,
            SCANNER,
            2,
            What::Mprotect { addr: 1 << 32, len: 4 << 20, access: true, pkey: false },
        ),
        mmap(SCANNER, StackId(4), 0x100_0000, 65536),
        inflater(8),
        inflater(16),
        inflater(24),
        inflater(32),
        init(StreamKind::Deflater, 40),
        rss(5 * S, 700 << 20),
        end(SCANNER, 8),
        end(CLEANER, 16),
        end(CLEANER, 24),
        end(CLEANER, 32),
        event(6 * S, SCANNER, 0, What::Exit { ended: false, code: 0 }),
        rss(9 * S + S / 10, 691 << 20),
    ]
}

/// A JVM whose thread `mcc-config-scanner` opens five streams, of which the cleaner ends three.
pub(super) fn recording() -> Recording {
    let mut recording = Recording::default();
    let about = [
        Record::Target(Target {
            pid: PID,
            command: vec!["java".into(), "-jar".into(), "app.jar".into()],
            allocator: Some("glibc 2.36".into()),
            jvm: Some(Jvm { version: "17.0.15+6".into(), major: Some(17) }),
        }),
        Record::Features(vec!["bpf_link".into(), "uprobe_multi".into()]),
    ];
    let names = [
        name(PID, b"main", NameFrom::Comm),
        name(SCANNER, b"mcc-config-scanner", NameFrom::Jstack),
        name(CLEANER, b"Common-Cleaner", NameFrom::Comm),
    ];
    let after = [
        Record::Losses(vec![("ring_full".into(), 0), ("recursion".into(), 0)]),
        Record::Failed(vec![("mmap".into(), 1), ("munmap".into(), 0)]),
        Record::Note("thread names are those of the kernel".into()),
        Record::End(End {
            time_ns: 9 * S + S / 10,
            why: Why::TargetEnded,
            status: Some(0),
            self_cpu_ns: 250_000_000,
            self_max_rss_bytes: 50 << 20,
        }),
    ];
    let records = about.into_iter().chain(stacks()).chain(names).chain(events()).chain(after);
    records.for_each(|record| recording.apply(record));
    recording
}

/// The same, with the calls of malloc: the cleaner leaks, `main` holds and throws away.
pub(super) fn with_blocks() -> Recording {
    let mut recording = recording();
    recording.apply(Record::Malloc(Malloc::Exact));
    let alloc = |at_ns, tid, stack, addr, size| {
        event(at_ns, tid, stack, What::Alloc { by: Allocation::Malloc, addr, size })
    };
    let free = |at_ns, tid, addr| event(at_ns, tid, 0, What::Free { addr, by: Freeing::Free });
    let mut records = vec![alloc(S, PID, 1, 1 << 20, 3 << 20), free(S, PID, 0x10)];
    // The stream that stays open has two blocks.
    records.extend([
        frame("Java_java_util_zip_Inflater_init", FrameKind::Native, false),
        stack(&[4, 8, 6], Quality::Complete),
        alloc(3 * S, PID, 5, 2 << 20, 112),
        alloc(3 * S, PID, 5, 3 << 20, 7160),
    ]);
    for n in 1..=80 {
        let (at_ns, addr) = (S + n * S / 10, n << 8);
        records.push(alloc(at_ns, CLEANER, 3, addr, 40_000));
        records.push(alloc(at_ns, PID, 4, addr + 16, 1000));
        records.push(free(at_ns, if n == 7 { CLEANER } else { PID }, addr + 16));
    }
    records.into_iter().for_each(|record| recording.apply(record));
    recording
}

/// Two threads' blocks, of which one is a sample.
pub(super) fn with_sampled_blocks() -> Recording {
    let mut recording = Recording::default();
    let what = What::Alloc { by: Allocation::Malloc, addr: 16, size: 4096 };
    let tally = |blocks, bytes, given_back| What::Tally { blocks, bytes, given_back };
    let records = [
        Record::Malloc(Malloc::Sampled { mean_bytes: 4096 }),
        event(S, PID, 0, what),
        event(S, PID, 0, tally(3, 5000, 1)),
        event(S, SCANNER, 0, tally(2, 3000, 2)),
        event(2 * S, PID, 0, What::Free { addr: 16, by: Freeing::Free }),
    ];
    records.into_iter().for_each(|record| recording.apply(record));
    recording
}

/// A container with a limit, and three parts.
pub(super) fn container() -> Container {
    Container {
        version: 2,
        limit_bytes: Some(1 << 30),
        usage_bytes: 200 << 20,
        parts: vec![
            ("anon".into(), 90 << 20),
            ("file".into(), 100 << 20),
            ("kernel".into(), 10 << 20),
        ],
    }
}

/// One event whose every name tries to be something else.
pub(super) fn with_hostile_names() -> Recording {
    let mut recording = Recording::default();
    let command = ["\u{1b}]0;owned\u{7}", "</title><script>", "\u{202e}"];
    let records = [
        Record::Target(Target {
            pid: 666,
            command: command.map(String::from).to_vec(),
            allocator: Some("glibc\n2.36".into()),
            jvm: Some(Jvm { version: "17\u{9b}31m".into(), major: None }),
        }),
        frame("end ]]> 12 34", FrameKind::Native, false),
        frame("x;y\u{1b}[31m\n\"><script>", FrameKind::Native, false),
        stack(&[0, 1], Quality::Complete),
        name(666, b"a;b\n<script>alert(1)</script>\xff", NameFrom::Comm),
        mmap(666, StackId(0), 0x10_0000, 4096),
        Record::Losses(vec![("ring\n_full".into(), 3)]),
        Record::Note("a\nnote\u{1b}[2J".into()),
    ];
    records.into_iter().for_each(|record| recording.apply(record));
    recording
}
