//! A trace file is read as it was written, up to wherever it is cut.

use super::*;
use crate::{
    ledger::{Before, Event, NameFrom, Sample, StreamKind, What},
    stacks::{Frame, FrameId, FrameKind, Quality, Stack, StackId},
};

/// One record of each kind, and of each thing that can happen.
fn records() -> Vec<Record> {
    let event =
        |what| Record::Event(Event { time_ns: 9, tgid: 1, tid: 2, stack: StackId(0), what });
    vec![
        Record::Target(Target {
            pid: 1,
            command: vec!["java".into()],
            allocator: None,
            jvm: Some(Jvm::default()),
        }),
        Record::Features(vec!["bpf_link".into()]),
        Record::Frame(Frame { name: "main".into(), kind: FrameKind::Native, guess: false }),
        Record::Stack(Stack { frames: vec![FrameId(0)], quality: Quality::Complete }),
        Record::Before((1, Before { start: 0, end: 4096, access: true, is_brk: false })),
        Record::ThreadName(ThreadName {
            tgid: 1,
            tid: 2,
            name: b"x\xff;\n".to_vec(),
            from: NameFrom::Comm,
        }),
        event(What::Mmap { addr: 4096, len: 8192, access: true }),
        event(What::StreamInit { kind: StreamKind::Inflater, address: 77 }),
        event(What::Exit { ended: true, code: 256 }),
        Record::Sample(Sample { time_ns: 10, rss_bytes: 5, swap_bytes: 6 }),
        Record::Losses(vec![("ring_full".into(), 3)]),
        Record::Failed(vec![("mmap".into(), 1)]),
        Record::Note("a note".into()),
        Record::End(End {
            time_ns: 11,
            why: Why::Asked,
            status: None,
            self_cpu_ns: 1,
            self_max_rss_bytes: 2,
        }),
    ]
}

/// A file with a block for each record.
fn file() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, u64::MAX).unwrap();
    for record in records() {
        writer.write(&record).unwrap();
        writer.flush().unwrap();
    }
    bytes
}

fn read_all(bytes: &[u8]) -> Result<(Vec<Record>, Outcome), ReadError> {
    let mut seen = Vec::new();
    read(bytes, |record| seen.push(record)).map(|outcome| (seen, outcome))
}

#[test]
fn round_trip() {
    let (seen, outcome) = read_all(&file()).unwrap();
    assert_eq!(seen, records());
    assert_eq!(outcome, Outcome::default());
}

/// Cut anywhere, what was whole before the cut is there, and the cut is told.
#[test]
fn cut_anywhere() {
    let bytes = file();
    let mut n_last = 0;
    for len in 12..bytes.len() {
        let (seen, outcome) = read_all(&bytes[..len]).unwrap();
        assert!(seen.len() >= n_last && records().starts_with(&seen), "{len}");
        let at_boundary = seen.len() > n_last || len == 12;
        assert_eq!(outcome.is_cut, !at_boundary, "{len}");
        n_last = seen.len();
    }
}

#[test]
fn foreign_and_newer() {
    let newer = [&b"memtrace"[..], &2_u32.to_le_bytes()].concat();
    // (bytes, what is said)
    let cases: [(&[u8], &str); 4] = [
        (b"", "it is not a memtrace trace"),
        (b"memtrac", "it is not a memtrace trace"),
        (b"\x7fELF\0\0\0\0\0\0\0\0\0\0\0\0", "it is not a memtrace trace"),
        (&newer, "it was recorded in trace format 2; this memtrace reads format 1"),
    ];
    for (bytes, said) in cases {
        assert_eq!(read_all(bytes).unwrap_err().to_string(), said);
    }
}

/// Any byte may be wrong: what is read is a beginning of what was written.
#[test]
fn damaged_anywhere() {
    let bytes = file();
    for at in 12..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x55;
        let (seen, outcome) = read_all(&damaged).unwrap();
        assert!(outcome.is_cut && records().starts_with(&seen), "{at}");
    }
}

/// A record of a kind that came later is passed over and counted.
#[test]
fn unknown_kind() {
    let block = [&[200, 3, 0, 0, 0, 1, 2, 3][..], &[11, 2, 0, 0, 0, 1, b'n'][..]].concat();
    let packed = zstd::bulk::compress(&block, 1).unwrap();
    let mut bytes = file();
    bytes.extend((packed.len() as u32).to_le_bytes());
    bytes.extend(crc32fast::hash(&packed).to_le_bytes());
    bytes.extend(packed);
    let (seen, outcome) = read_all(&bytes).unwrap();
    assert_eq!(seen.last(), Some(&Record::Note("n".into())));
    assert_eq!(outcome, Outcome { is_cut: false, n_unknown: 1 });
}

/// At its largest size the file ends between two blocks, and says so.
#[test]
fn largest_size() {
    let whole = file();
    for max in [20, 100, 200] {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, max).unwrap();
        for record in records() {
            writer.write(&record).unwrap();
            writer.flush().unwrap();
        }
        assert!(writer.is_full());
        assert!(bytes.len() as u64 <= max && whole.starts_with(&bytes));
        assert!(!read_all(&bytes).unwrap().1.is_cut);
    }
}

/// Numbers that were never given don't panic.
#[test]
fn hostile_numbers() {
    let mut recording = Recording::default();
    recording.apply(Record::Stack(Stack { frames: vec![FrameId(99)], quality: Quality::Complete }));
    let what = What::Mmap { addr: u64::MAX - 5, len: u64::MAX, access: true };
    recording.apply(Record::Event(Event { time_ns: 0, tgid: 0, tid: 0, stack: StackId(77), what }));
    let what = What::Brk { to: u64::MAX };
    recording.apply(Record::Event(Event { time_ns: 0, tgid: 0, tid: 0, stack: StackId(77), what }));
    assert_eq!(recording.frames_of(StackId(0)).count(), 0);
    assert_eq!(recording.stack_counts.broken, 2);
}
