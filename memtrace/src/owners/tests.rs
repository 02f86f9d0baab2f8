//! Retained bytes, each time with who is known to have made them resident.

use super::*;
use crate::{
    footprint::{Arena, Footprint, FreePages, Malloc},
    ledger::{Event, What},
    trace::{Record, Target},
};

const PID: u32 = 7;
const K: u64 = 1024;
/// Where the heaps of two arenas are.
const HEAP: u64 = 0x7f00_0000_0000;
const MAIN: u64 = 0x5555_0000_0000;

fn event(tid: u32, what: What) -> Record {
    Record::Event(Event { time_ns: 1, tgid: PID, tid, stack: StackId(tid), what })
}

fn grows(tid: u32, addr: u64, kib: u64) -> Record {
    event(tid, What::Mprotect { addr, len: kib * K, access: true, pkey: false })
}

fn faults(tid: u32, start: u64, n: u64) -> impl Iterator<Item = Record> {
    (0..n).map(move |n| event(tid, What::PageFault { addr: start + n * 256 * K + 123 }))
}

/// What is retained after `records`: `free` (address, KiB) of an arena.
fn after(
    records: impl IntoIterator<Item = Record>,
    is_main: bool,
    free: &[(u64, u64)],
) -> Retained {
    let mut recording = Recording::default();
    recording.apply(Record::Target(Target { pid: PID, ..Target::default() }));
    let reservation = What::Mmap { addr: HEAP, len: 64 << 20, access: false };
    recording.apply(event(1, reservation));
    records.into_iter().for_each(|record| recording.apply(record));
    let free_pages: Vec<FreePages> =
        free.iter().map(|&(start, kib)| FreePages { start, bytes: kib * K }).collect();
    let returnable_bytes = free_pages.iter().map(|run| run.bytes).sum();
    let arena = Arena { is_main, returnable_bytes, free_pages, ..Arena::default() };
    let malloc = Malloc { arenas: vec![arena], ..Malloc::default() };
    let footprint = Footprint { malloc: Some(malloc), ..Footprint::default() };
    recording.apply(Record::Footprint(Box::new(footprint)));
    retained(&recording).unwrap()
}

/// KiB of each thread by its number, and those that are nobody's.
fn shares(retained: &Retained) -> (Vec<(u32, u64)>, u64) {
    let mut threads: Vec<(u32, u64)> =
        retained.threads.iter().map(|it| (it.thread, it.bytes / K)).collect();
    threads.sort_unstable();
    let known: u64 = retained.threads.iter().map(|it| it.bytes).sum();
    assert!(known + retained.unknown_bytes <= retained.bytes + 2, "{retained:?}");
    assert!(known + retained.unknown_bytes + 2 >= retained.bytes, "{retained:?}");
    (threads, retained.unknown_bytes / K)
}

/// An arena that grew by what was needed: those who grew it, to the byte. Threads are numbered as they are seen.
#[test]
fn grown() {
    let events = [grows(1, HEAP, 100), grows(2, HEAP + 100 * K, 60)];
    let retained = after(events, false, &[(HEAP + 8 * K, 8), (HEAP + 96 * K, 40)]);
    assert_eq!(shares(&retained), (vec![(0, 12), (1, 36)], 0));
    assert_eq!((retained.exact_bytes, retained.n_samples), (48 * K, 0));
    assert_eq!(retained.shared_bytes, 48 * K);
    assert_eq!(retained.threads[0].error_bytes, 0);
    let stacks: Vec<(u32, u64)> =
        retained.stacks.iter().map(|it| (it.stack.0, it.bytes / K)).collect();
    assert_eq!(stacks, [(2, 36), (1, 12)]);
}

/// What was given back and came again is whose samples are left there; without enough of them, nobody's.
#[test]
fn given_back() {
    let back = |addr, kib| event(1, What::Madvise { addr, len: kib * K, advice: 4 });
    let grown = || vec![grows(1, HEAP, 8192), back(HEAP, 8192)];
    let few = after(grown().into_iter().chain(faults(2, HEAP, 7)), false, &[(HEAP, 8192)]);
    assert_eq!(shares(&few), (vec![], 8192));
    let again =
        grown().into_iter().chain(faults(2, HEAP, 24)).chain(faults(3, HEAP + (6 << 20), 8));
    let many = after(again, false, &[(HEAP, 8192)]);
    assert_eq!(shares(&many), (vec![(1, 6144), (2, 2048)], 0));
    assert_eq!((many.estimated_bytes, many.n_samples), (8192 * K, 32));
    let expected = 1.96 * (8192.0 * 1024.0) * (0.75_f64 * 0.25 / 32.0).sqrt();
    assert!((many.threads[0].error_bytes as f64 - expected).abs() < 2.0, "{many:?}");
    // Samples from before it was given back say nothing.
    let before: Vec<Record> = [grows(1, HEAP, 8192)]
        .into_iter()
        .chain(faults(2, HEAP, 30))
        .chain([back(HEAP, 8192)])
        .collect();
    assert_eq!(shares(&after(before, false, &[(HEAP, 8192)])), (vec![], 8192));
}

/// The main arena grows by more than is needed: samples tell, and without them who grew it, which is no more than likely.
#[test]
fn main_arena() {
    let brk = |tid, kib| event(tid, What::Brk { to: MAIN + kib * K });
    let grown = || vec![brk(1, 0), brk(1, 4096), brk(2, 8192)];
    let few = after(grown(), true, &[(MAIN, 8192)]);
    assert_eq!(shares(&few), (vec![(0, 4096), (1, 4096)], 0));
    assert_eq!(few.approximate_bytes, 8192 * K);
    let sampled = grown().into_iter().chain(faults(3, MAIN, 32));
    assert_eq!(shares(&after(sampled, true, &[(MAIN, 8192)])), (vec![(2, 8192)], 0));
}

/// What was there before is nobody's, but for what samples stand for.
#[test]
fn before() {
    let at = HEAP + (128 << 20);
    let retained = after(faults(3, at, 10), false, &[(at, 8192)]);
    assert_eq!(shares(&retained), (vec![(1, 2560)], 5632));
}

/// Where there is no footprint, or another allocator's, nothing is said.
#[test]
fn nothing_to_say() {
    let mut recording = Recording::default();
    assert_eq!(retained(&recording), None);
    recording.apply(Record::Footprint(Box::default()));
    assert_eq!(retained(&recording), None);
}
