//! A trace file is read as it was written, up to wherever it is cut.

use std::{io, ops::ControlFlow, time::Instant};

use super::*;
use crate::{
    footprint::{self, Arena, Container, Footprint, JavaHeap, Pin, Row, RowKind},
    ledger::{Allocation, Before, Event, Freeing, Metric, NameFrom, Sample, StreamKind, What},
    report,
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
        Record::Frame(Frame {
            name: "main".into(),
            kind: FrameKind::Native,
            guess: false,
            source: None,
        }),
        Record::Stack(Stack { frames: vec![FrameId(0)], quality: Quality::Complete }),
        Record::Before((
            1,
            Before { start: 0, end: 4096, access: true, is_brk: false, read_ns: 0 },
        )),
        Record::ThreadName(ThreadName {
            tgid: 1,
            tid: 2,
            name: b"x\xff;\n".to_vec(),
            from: NameFrom::Comm,
        }),
        event(What::Mmap { addr: 4096, len: 8192, access: true }),
        event(What::StreamInit { kind: StreamKind::Inflater, address: 77 }),
        Record::Malloc(Malloc::Sampled { mean_bytes: 512 << 10 }),
        Record::MinSize(4 << 10),
        event(What::Alloc { by: Allocation::Malloc, addr: 16, size: 24 }),
        event(What::Free { addr: 16, by: Freeing::Free }),
        event(What::Exit { ended: true, code: 256 }),
        Record::Sample(Sample { time_ns: 10, rss_bytes: 5, swap_bytes: 6 }),
        Record::Losses(vec![("ring_full".into(), 3)]),
        Record::Failed(vec![("mmap".into(), 1)]),
        Record::Note("a note".into()),
        Record::Footprint(footprint()),
        Record::End(End {
            time_ns: 11,
            why: Why::Asked,
            status: None,
            self_cpu_ns: 1,
            self_max_rss_bytes: 2,
        }),
    ]
}

/// One with everything in it.
fn footprint() -> Footprint {
    let row = Row { kind: RowKind::Gc, resident_bytes: 4096, swap_bytes: 0 };
    let arena = Arena { address: 7, pinned_by: vec![Pin::default()], ..Arena::default() };
    Footprint {
        time_ns: 10,
        rss_bytes: 4096,
        rows: vec![row],
        java_heap: Some(JavaHeap::default()),
        malloc: Some(footprint::Malloc { arenas: vec![arena], ..footprint::Malloc::default() }),
        container: Some(Container::default()),
        notes: vec!["a note".into()],
        ..Footprint::default()
    }
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

/// `records` as a block that is sound by its length and checksum.
fn packed(records: &[u8]) -> Vec<u8> {
    let packed = zstd::bulk::compress(records, 1).unwrap();
    let (len, checksum) = (packed.len() as u32, crc32fast::hash(&packed));
    [&len.to_le_bytes()[..], &checksum.to_le_bytes(), &packed].concat()
}

/// A file of one block.
fn file_of(records: &[u8]) -> Vec<u8> {
    [&b"memtrace"[..], &1_u32.to_le_bytes(), &packed(records)].concat()
}

/// Records as they stand in a block.
fn unpacked(records: &[Record]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for record in records {
        let body = record.encode(Vec::new()).unwrap();
        bytes.push(record.number());
        bytes.extend((body.len() as u32).to_le_bytes());
        bytes.extend(body);
    }
    bytes
}

fn go_on() -> ControlFlow<String> {
    ControlFlow::Continue(())
}

fn read_all(bytes: &[u8]) -> Result<(Vec<Record>, Outcome), ReadError> {
    let mut seen = Vec::new();
    let outcome = read(bytes, go_on, |record| {
        seen.push(record);
        ControlFlow::Continue(())
    });
    outcome.map(|outcome| (seen, outcome))
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
    let bytes = [file(), packed(&block)].concat();
    let (seen, outcome) = read_all(&bytes).unwrap();
    assert_eq!(seen.last(), Some(&Record::Note("n".into())));
    assert_eq!(outcome, Outcome { n_unknown: 1, ..Outcome::default() });
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

/// Blocks of any number, at any time, end in a report.
#[test]
fn hostile_blocks() {
    let mut recording = Recording::default();
    recording.apply(Record::Malloc(Malloc::Exact));
    let numbers = [0, 1, 1 << 32, 1 << 56, 1 << 63, u64::MAX];
    for time_ns in [u64::MAX, 0, 1 << 40, u64::MAX - 1, u64::MAX] {
        for addr in numbers {
            for size in numbers {
                let alloc = What::Alloc { by: Allocation::Calloc, addr, size };
                let free = What::Free { addr: size, by: Freeing::ReallocToZero };
                for what in [alloc, alloc, free] {
                    let (tgid, tid, stack) = (addr as u32, size as u32, StackId(size as u32));
                    recording.apply(Record::Event(Event { time_ns, tgid, tid, stack, what }));
                }
            }
        }
    }
    let text = report::text_by(&recording, Metric::MallocLive, false);
    assert!(text.contains("16.0 EiB allocated in 360 blocks"), "{text}");
    report::json::write(&recording, io::sink()).unwrap();
}

/// What happens has the number in a file that it always had.
#[test]
fn numbers_of_what_happens() {
    let cases = [
        (What::Mmap { addr: 0, len: 0, access: true }, 0),
        (What::StreamEnd { kind: StreamKind::Inflater, address: 0 }, 11),
        (What::ThreadStart { tid: 0 }, 12),
        (What::Exit { ended: true, code: 0 }, 15),
        (What::Alloc { by: Allocation::Malloc, addr: 0, size: 0 }, 16),
        (What::Free { addr: 0, by: Freeing::Free }, 17),
    ];
    for (what, number) in cases {
        assert_eq!(postcard::to_allocvec(&what).unwrap()[0], number, "{what:?}");
    }
}

/// What there is too much of stops the reading where it is; what came before was taken.
#[test]
fn excess() {
    let frame = |len| {
        Record::Frame(Frame {
            name: "x".repeat(len),
            kind: FrameKind::Native,
            guess: false,
            source: None,
        })
    };
    let bytes = file_of(&unpacked(&[frame(1), frame(5000), frame(1)]));
    let (seen, outcome) = read_all(&bytes).unwrap();
    assert_eq!(seen, [frame(1)]);
    let excess = Some("a frame's name of more than 4 KiB".into());
    assert_eq!(outcome, Outcome { excess, ..Outcome::default() });
}

/// A reader that has had enough is given no more, and its reason is told.
#[test]
fn enough() {
    let mut n = 0;
    let outcome = read(&file()[..], go_on, |_| {
        n += 1;
        if n < 3 { ControlFlow::Continue(()) } else { ControlFlow::Break("three records".into()) }
    });
    assert_eq!(outcome.unwrap().excess.as_deref(), Some("three records"));
    assert_eq!(n, 3);
}

/// A length is believed only as far as there are bytes, and a number of items as far as they take room.
#[test]
fn hostile_lengths() {
    let huge_count = [&[4, 6, 0, 0, 0][..], &[0xff, 0xff, 0xff, 0xff, 0x0f, 0]].concat();
    // (records)
    let cases: [&[u8]; 4] = [
        &[3, 0xff, 0xff, 0xff, 0xff, 0],     // a record of 4 GiB
        &[3, 9, 0, 0, 0, 0xff, 0xff, 0xff],  // a record that is cut
        &huge_count,                         // a stack of 4 G frames
        &[11, 3, 0, 0, 0, 0xff, 0xff, 0xff], // a note without an end to its length
    ];
    for records in cases {
        let (seen, outcome) = read_all(&file_of(records)).unwrap();
        assert!(seen.is_empty() && outcome.is_cut, "{records:x?}");
    }
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
    let (len, checksum) = (bomb.len() as u32, crc32fast::hash(&bomb));
    let header = [&b"memtrace"[..], &1_u32.to_le_bytes()].concat();
    let bytes = [&header[..], &len.to_le_bytes(), &checksum.to_le_bytes(), &bomb].concat();
    assert!(read_all(&bytes).unwrap().1.is_cut);
}

/// Names and notes are cut, not kept at any length.
#[test]
fn long_names() {
    let mut recording = Recording::default();
    let name = vec![b'x'; 1 << 20];
    recording.apply(Record::ThreadName(ThreadName { tgid: 1, tid: 1, name, from: NameFrom::Comm }));
    recording.apply(Record::Note("ü".repeat(1 << 20)));
    assert_eq!(recording.ledger.threads()[0].name.len(), 1024);
    assert_eq!(recording.notes[0].len(), 4096);
}

/// Whatever bytes a sound block holds, they are read, added up and reported without a panic, and soon.
#[test]
fn hostile_records() {
    let sound = unpacked(&records());
    let mut seed = 42_u64;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    let began = Instant::now();
    let mut n_read = 0;
    for variant in 0..2000 {
        let mut bytes = sound.clone();
        for _ in 0..=random(6) {
            let at = random(bytes.len());
            bytes[at] =
                if random(2) == 0 { bytes[at] ^ (1 << random(8)) } else { random(256) as u8 };
        }
        let mut recording = Recording::default();
        let outcome = read(&file_of(&bytes)[..], go_on, |record| {
            n_read += 1;
            recording.apply(record);
            ControlFlow::Continue(())
        });
        assert!(outcome.is_ok(), "{variant}");
        report::json::write(&recording, io::sink()).unwrap();
        assert!(!report::text_by(&recording, Default::default(), false).is_empty());
    }
    // Most variants are sound for the most part, so that this reads more than lengths that are wrong.
    assert!(n_read > 5000, "{n_read}");
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
}
