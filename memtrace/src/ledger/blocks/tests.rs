use memtrace_common::Kind;

use super::*;
use crate::{
    ledger::{Allocation, BlockTotal, Event, Freeing, Ledger, Metric, What},
    stacks::StackId,
};

const CHILD: u32 = 200;

/// Something that the first thread of process 1 does, at stack 7.
fn event(what: What) -> Event {
    Event { time_ns: 0, tgid: 1, tid: 1, stack: StackId(7), what }
}

fn alloc(addr: u64, size: u64) -> Event {
    event(What::Alloc { by: Allocation::Malloc, addr, size })
}

fn free(addr: u64) -> Event {
    event(What::Free { addr, by: Freeing::Free })
}

fn realloc(from: u64, to: u64, size: u64) -> [Event; 2] {
    [
        event(What::Free { addr: from, by: Freeing::Realloc }),
        event(What::Alloc { by: Allocation::Realloc, addr: to, size }),
    ]
}

fn of_child(event: Event) -> Event {
    Event { tgid: CHILD, tid: CHILD, ..event }
}

fn by_other(event: Event) -> Event {
    Event { tid: 2, ..event }
}

fn check(events: &[Event], live: (u64, u64), counts: BlockCounts) {
    let mut ledger = Ledger::default();
    events.iter().for_each(|event| ledger.apply(event));
    let BlockCounts { live: n, live_bytes, .. } = ledger.blocks();
    assert_eq!((n, live_bytes), live, "{events:x?}");
    assert_eq!(ledger.sum(Metric::MallocLive), live_bytes, "{events:x?}");
    let seen = ledger.blocks();
    let (allocations, allocated_bytes) = (seen.allocations, seen.allocated_bytes);
    assert_eq!(allocated_bytes, ledger.sum(Metric::Malloc), "{events:x?}");
    let BlockCounts { peak_bytes, peak_ns, .. } = seen;
    let live = BlockCounts { live: n, live_bytes, peak_bytes, peak_ns, ..counts };
    let want = BlockCounts { allocations, allocated_bytes, ..live };
    assert_eq!(ledger.blocks(), want, "{events:x?}");
    let row = ledger.stacks_of_blocks();
    let sum = row.iter().map(|row| row.blocks.freed_by_other.rounded()).sum::<u64>();
    assert_eq!(sum, counts.freed_by_other, "{events:x?}");
    assert_eq!(ledger.sum(Metric::Mapped), 0);
}

#[test]
fn what_it_means() {
    let none = BlockCounts::default();
    let fork = event(What::Fork { child: CHILD, followed: true });
    let exec = event(What::Exec);
    let ended = event(What::Exit { ended: true, code: 0 });
    let before = BlockCounts { freed_before: 1, ..none };
    let inherited = BlockCounts { freed_inherited: 1, ..none };
    let unknown = BlockCounts { frees_unknown: 1, ..none };
    let missed = BlockCounts { frees_missed: 1, ..none };
    let other = BlockCounts { freed_by_other: 1, ..none };
    let [moves, arrives] = realloc(16, 64, 9);
    // (what happened, live blocks and bytes, what was counted apart)
    let cases: &[(&[Event], (u64, u64), BlockCounts)] = &[
        (&[alloc(16, 8), alloc(32, 4)], (2, 12), none),
        (&[alloc(16, 8), alloc(32, 4), free(16)], (1, 4), none),
        (&[alloc(16, 0)], (1, 0), none),
        // Its end was missed.
        (&[alloc(16, 8), alloc(16, 4)], (1, 4), missed),
        (&[alloc(16, 8), moves, arrives], (1, 9), none),
        (&[alloc(16, 8), by_other(moves), by_other(arrives)], (1, 9), none),
        (&[alloc(16, 8), moves], (0, 0), none),
        (&[moves, arrives], (1, 9), before),
        (&[free(16)], (0, 0), before),
        (&[alloc(16, 8), free(16), free(16)], (0, 0), before),
        (&[exec, alloc(16, 8), free(16), free(16)], (0, 0), unknown),
        (&[exec, free(u64::MAX)], (0, 0), unknown),
        (&[alloc(16, 8), by_other(free(16))], (0, 0), other),
        // A new image has nothing of the old.
        (&[alloc(16, 8), exec, free(16)], (0, 0), unknown),
        // A child frees what is its own, whatever its parent has there.
        (&[alloc(16, 8), fork, of_child(free(16))], (1, 8), inherited),
        (&[alloc(16, 8), fork, of_child(alloc(16, 5)), of_child(free(16))], (1, 8), none),
        (&[fork, of_child(alloc(16, 5)), free(16)], (1, 5), before),
        (&[fork, of_child(exec), of_child(free(16))], (0, 0), unknown),
        (&[fork, of_child(alloc(16, 5)), of_child(exec)], (0, 0), none),
        // What a child holds is gone with it, what the first process holds is the answer.
        (&[fork, of_child(alloc(16, 5)), of_child(ended)], (0, 0), none),
        (&[alloc(16, 8), fork, of_child(alloc(16, 5)), ended], (2, 13), none),
        (&[alloc(16, 8), ended, alloc(16, 8)], (2, 16), none),
        // A thread ends, its blocks don't.
        (
            &[by_other(alloc(16, 8)), by_other(event(What::Exit { ended: false, code: 0 }))],
            (1, 8),
            none,
        ),
        // Sums stay at the largest number.
        (&[alloc(16, u64::MAX), alloc(32, u64::MAX)], (2, u64::MAX), none),
        // No process has such an address.
        (&[alloc(u64::MAX, 8), free(u64::MAX)], (0, 0), BlockCounts { not_kept: 1, ..none }),
    ];
    for (events, live, counts) in cases {
        check(events, *live, *counts);
    }
}

/// The most that was live, and when; a block that moves is not there twice.
#[test]
fn peak() {
    let mut ledger = Ledger::default();
    let [moves, arrives] = realloc(16, 64, 9);
    let events = [alloc(16, 8), moves, arrives, alloc(32, 4), free(64), alloc(16, 8), free(16)];
    for (event, time_ns) in events.iter().zip(10..) {
        ledger.apply(&Event { time_ns, ..*event });
    }
    let BlockCounts { peak_bytes, peak_ns, allocations, .. } = ledger.blocks();
    assert_eq!((peak_bytes, peak_ns, allocations), (13, 13, 4));
}

/// More processes than can be traced: their blocks are counted, and not remembered.
#[test]
fn many_processes() {
    let mut ledger = Ledger::default();
    let n = MAX_HEAPS as u32 + 9;
    for tgid in 1..=n {
        ledger.apply(&Event { tgid, tid: tgid, ..alloc(16, 8) });
    }
    let counts = ledger.blocks();
    assert_eq!((counts.live, counts.not_kept), (MAX_HEAPS as u64, 9));
    assert_eq!(ledger.sum(Metric::Malloc), u64::from(n) * 8);
    // Nothing is known of what they give back.
    ledger.apply(&Event { tgid: n, tid: n, ..free(16) });
    let counts = ledger.blocks();
    assert_eq!((counts.live, counts.freed_before), (MAX_HEAPS as u64, 0));
}

/// Processes that have ended and left their answer take room like those that go on.
#[test]
fn many_answers() {
    let mut ledger = Ledger::default();
    let n = MAX_HEAPS as u32 + 9;
    let ended = event(What::Exit { ended: true, code: 0 });
    for tgid in 1..=n {
        for event in [alloc(16, 8), ended] {
            ledger.apply(&Event { tgid, tid: tgid, ..event });
        }
    }
    let counts = ledger.blocks();
    assert_eq!((counts.live, counts.not_kept), (MAX_HEAPS as u64, 9));
}

/// The end of a block that was not remembered is no end of one from before.
#[test]
fn not_kept() {
    let (mut blocks, mut totals) = (Blocks::default(), Totals::default());
    let owner = totals.index(0, StackId(7));
    blocks.n_kept = MAX_BLOCKS;
    blocks.begin(&mut totals, Handed { tgid: 1, tid: 1, address: 16, size: 8, owner }, 0);
    let end = Returned { tgid: 1, tid: 1, address: 16, thread: 0, by: Freeing::Free };
    blocks.end(&mut totals, end, 0);
    assert_eq!((blocks.counts.not_kept, blocks.counts.freed_before), (1, 0));
    blocks.end(&mut totals, end, 0);
    assert_eq!(blocks.counts.freed_before, 1);
    let BlockTotal { mallocs, malloc_live, .. } = totals.blocks(0);
    assert_eq!((mallocs.rounded(), malloc_live.rounded()), (1, 0));
}

/// What is told of samples: exact by thread and in all, estimated where blocks are from and what is live.
#[test]
fn samples() {
    let mut ledger = Ledger::default();
    ledger.sample_blocks(1000);
    let tally = |tid, blocks, bytes, given_back| Event {
        tid,
        ..event(What::Tally { blocks, bytes, given_back })
    };
    for n in 0..100 {
        ledger.apply(&alloc(16 + 16 * n, 1000));
        ledger.apply(&tally(1, 2, 1100, 1));
    }
    ledger.apply(&by_other(free(16)));
    ledger.apply(&tally(2, 5, 50, 7));
    let counts = ledger.blocks();
    assert_eq!((counts.allocations, counts.allocated_bytes), (205, 110_050));
    assert_eq!((counts.given_back, counts.live, counts.freed_by_other), (107, 157, 2));
    let of_threads: Vec<_> = ledger
        .by_thread()
        .iter()
        .map(|row| (row.thread.tid, row.blocks.mallocs.rounded(), row.blocks.malloc_bytes))
        .collect();
    assert_eq!(of_threads, [(1, 200, 110_000), (2, 5, 50)]);
    // Samples are no calls.
    assert_eq!((ledger.n(Kind::MALLOC), ledger.n(Kind::FREE)), (0, 0));
    assert!(ledger.threads().iter().all(|thread| thread.n_events == 0));
    let stacks = ledger.by_stack(Metric::Malloc);
    assert_eq!((stacks[0].n_events, stacks[0].n_live_blocks), (158, 157));
}

/// What is ignored is counted by its thread; its ends stay calls of the program's, also those before a thread's end, and
/// are never of nowhere.
#[test]
fn ignored() {
    let mut ledger = Ledger::default();
    ledger.ignore_blocks(64);
    let [moves, _] = realloc(96, 0, 0);
    let events = [
        event(What::Exec),
        alloc(16, 64),
        by_other(event(What::Tally { blocks: 3, bytes: 100, given_back: 0 })),
        free(32),
        moves,
        free(16),
        by_other(free(48)),
        by_other(event(What::Leaves)),
        by_other(event(What::Exit { ended: false, code: 0 })),
    ];
    events.iter().for_each(|event| ledger.apply(event));
    let BlockCounts { allocations, live, ignored, ignored_bytes, .. } = ledger.blocks();
    assert_eq!((allocations, live, ignored, ignored_bytes), (1, 0, 3, 100));
    let BlockCounts { freed_before, frees_unknown, .. } = ledger.blocks();
    assert_eq!((freed_before, frees_unknown, ledger.n(Kind::FREE)), (3, 0, 3));
    let by_thread: Vec<_> =
        ledger.threads().iter().map(|it| (it.tid, it.ignored, it.ignored_bytes)).collect();
    assert_eq!(by_thread, [(1, 0, 0), (2, 3, 100)]);
}
