//! The ledger's tests: a list of events and a number.

use super::*;
use crate::stacks::StackId;

const PID: u32 = 100;

fn event(tid: u32, stack: u32, what: What) -> Event {
    Event { time_ns: 0, tgid: PID, tid, stack: StackId(stack), what }
}

fn mmap(tid: u32, addr: u64, len: u64) -> Event {
    event(tid, tid, What::Mmap { addr, len, access: true })
}

fn reserve(tid: u32, addr: u64, len: u64) -> Event {
    event(tid, tid, What::Mmap { addr, len, access: false })
}

fn munmap(tid: u32, addr: u64, len: u64) -> Event {
    event(tid, tid, What::Munmap { addr, len })
}

fn protect(tid: u32, addr: u64, len: u64, access: bool) -> Event {
    event(tid, tid, What::Mprotect { addr, len, access, pkey: false })
}

fn remap(tid: u32, from: (u64, u64), to: (u64, u64)) -> [Event; 2] {
    [
        event(tid, tid, What::MremapFrom { addr: from.0, len: from.1 }),
        event(tid, tid, What::MremapTo { addr: to.0, len: to.1 }),
    ]
}

fn brk(to: u64) -> Event {
    event(1, 1, What::Brk { to })
}

fn init(tid: u32, address: u64) -> Event {
    event(tid, tid, What::StreamInit { kind: StreamKind::Inflater, address })
}

fn end(tid: u32, address: u64) -> Event {
    event(tid, tid, What::StreamEnd { kind: StreamKind::Inflater, address })
}

fn of_thread(ledger: &Ledger, tid: u32) -> (u64, u64) {
    let mine = |total: &&Total| ledger.threads()[total.thread as usize].tid == tid;
    let totals = || ledger.totals().iter().filter(mine);
    (
        totals().map(|total| total.mapped_bytes).sum(),
        totals().map(|total| total.mapped_live_bytes).sum(),
    )
}

#[test]
fn mapped_and_live() {
    let p = 4096;
    // (what happened, (mapped, live) of thread 1, of thread 2, given back of before)
    type Case = (Vec<Event>, (u64, u64), (u64, u64), u64);
    let cases: Vec<Case> = vec![
        (vec![], (0, 0), (0, 0), 0),
        (vec![mmap(1, 0, 4 * p), munmap(2, p, p)], (4 * p, 3 * p), (0, 0), 0),
        // Over an old mapping: the old is given back.
        (vec![mmap(1, 0, 4 * p), mmap(2, p, 2 * p)], (4 * p, 2 * p), (2 * p, 2 * p), 0),
        // A reservation over an old mapping gives back and obtains nothing.
        (vec![mmap(1, 0, 4 * p), reserve(2, 0, 4 * p)], (4 * p, 0), (0, 0), 0),
        // An arena grows by the thread that opens it, and shrinks.
        (
            vec![reserve(1, 0, 9 * p), protect(2, 0, 3 * p, true), protect(1, 2 * p, p, false)],
            (0, 0),
            (3 * p, 2 * p),
            0,
        ),
        // mremap moves what was obtained with its owner; only growth is new.
        (
            [&[mmap(1, 0, 2 * p)][..], &remap(2, (0, 2 * p), (90 * p, 5 * p))].concat(),
            (2 * p, 2 * p),
            (3 * p, 3 * p),
            0,
        ),
        (
            [&[mmap(1, 0, 5 * p)][..], &remap(2, (0, 5 * p), (0, 2 * p))].concat(),
            (5 * p, 2 * p),
            (0, 0),
            0,
        ),
        // The break goes up and down; the first call only tells where it is.
        (vec![brk(9 * p), brk(12 * p), brk(10 * p), brk(10 * p)], (3 * p, p), (0, 0), 0),
        // Never seen obtained: no negative number.
        (vec![munmap(1, 0, 4 * p)], (0, 0), (0, 0), 0),
        (vec![protect(1, 0, 4 * p, true), munmap(1, 0, 4 * p)], (0, 0), (0, 0), 4 * p),
        // A new image has nothing of the old.
        (vec![mmap(1, 0, p), event(1, 0, What::Exec), mmap(2, 0, p)], (p, 0), (p, p), 0),
        // System V segments.
        (
            vec![
                event(1, 1, What::Shmat { addr: p, len: 2 * p }),
                event(2, 2, What::Shmdt { addr: p }),
            ],
            (2 * p, 0),
            (0, 0),
            0,
        ),
    ];
    for (events, first, second, before) in cases {
        let mut ledger = Ledger::default();
        events.iter().for_each(|event| ledger.apply(event));
        assert_eq!(of_thread(&ledger, 1), first, "{events:?}");
        assert_eq!(of_thread(&ledger, 2), second, "{events:?}");
        assert_eq!(ledger.counts().before_given_back_bytes, before, "{events:?}");
    }
}

/// What was mapped before is kept apart, also when it is given back in part.
#[test]
fn before() {
    let mut ledger = Ledger::default();
    ledger.before(
        PID,
        Before { start: 0x1000, end: 0x5000, access: true, is_brk: false, read_ns: 0 },
    );
    ledger
        .before(PID, Before { start: 0x8000, end: 0x9000, access: true, is_brk: true, read_ns: 0 });
    ledger.apply(&munmap(1, 0x2000, 0x1000));
    ledger.apply(&brk(0xa000));
    let counts = ledger.counts();
    assert_eq!((counts.before_bytes, counts.before_given_back_bytes), (0x5000, 0x1000));
    assert_eq!(of_thread(&ledger, 1), (0x1000, 0x1000));
}

/// A child has its parent's memory, but obtained none of it.
#[test]
fn fork() {
    let mut ledger = Ledger::default();
    ledger.apply(&mmap(1, 0, 0x4000));
    ledger.apply(&event(1, 0, What::Fork { child: 200, followed: true }));
    ledger.apply(&Event { tgid: 200, tid: 200, ..munmap(200, 0, 0x4000) });
    assert_eq!(of_thread(&ledger, 1), (0x4000, 0x4000));
    assert_eq!(ledger.counts().before_given_back_bytes, 0);
}

/// What a child obtained is given back at its end, also after an exec; what the first process holds stays its answer.
#[test]
fn ends() {
    let of_child = |what| Event { tgid: 200, tid: 200, ..event(200, 200, what) };
    let mapped = |addr| What::Mmap { addr, len: 0x1000, access: true };
    let stream = What::StreamInit { kind: StreamKind::Inflater, address: 8 };
    let ended = What::Exit { ended: true, code: 0 };
    // (what a child does before it ends, bytes that it mapped)
    let cases: [(&[What], u64); 3] =
        [(&[mapped(0)], 0x1000), (&[stream], 0), (&[mapped(0), What::Exec, mapped(0)], 0x2000)];
    for (whats, bytes) in cases {
        let mut ledger = Ledger::default();
        ledger.apply(&mmap(1, 0x9000, 0x4000));
        ledger.apply(&init(1, 16));
        ledger.apply(&event(1, 0, What::Fork { child: 200, followed: true }));
        whats.iter().for_each(|&what| ledger.apply(&of_child(what)));
        ledger.apply(&of_child(ended));
        assert_eq!(of_thread(&ledger, 200), (bytes, 0), "{whats:?}");
        assert_eq!(ledger.counts().before_given_back_bytes, 0, "{whats:?}");
        ledger.apply(&event(1, 0, ended));
        let live = (ledger.sum(Metric::MappedLive), ledger.sum(Metric::InflatersLive));
        assert_eq!(live, (0x4000, 1), "{whats:?}");
    }
}

/// The end of a thread that nothing is known of is no thread, also where it is told once more.
#[test]
fn unknown_ends() {
    let mut ledger = Ledger::default();
    let ended = What::Exit { ended: true, code: 0 };
    [mmap(1, 0, 0x1000), event(1, 0, ended), event(1, 0, ended), event(9, 0, ended)]
        .iter()
        .for_each(|event| ledger.apply(event));
    assert_eq!(ledger.threads().len(), 1);
    assert_eq!(of_thread(&ledger, 1), (0x1000, 0x1000));
}

/// With its process ends every thread of it, and with a new image every thread but one.
#[test]
fn threads_that_end_together() {
    // (what happened to the process, the threads that have not ended)
    let cases = [
        (event(2, 0, What::Exit { ended: false, code: 0 }), vec![PID, 3, 200]),
        (event(2, 0, What::Exit { ended: true, code: 0 }), vec![200]),
        (event(PID, 0, What::Exec), vec![PID, 200]),
    ];
    for (last, left) in cases {
        let mut ledger = Ledger::default();
        [PID, 2, 3].iter().for_each(|&tid| ledger.apply(&mmap(tid, 0, 0x1000)));
        ledger.apply(&event(PID, 0, What::Fork { child: 200, followed: true }));
        ledger.apply(&last);
        let lives = ledger.threads().iter().filter(|thread| !thread.ended);
        assert_eq!(lives.map(|thread| thread.tid).collect::<Vec<_>>(), left, "{last:?}");
    }
}

/// What events told of while the map was read is theirs and not counted as before, too; later it was there before.
#[test]
fn while_the_map_is_read() {
    let p = 0x1000;
    let at = |time_ns, event: Event| Event { time_ns, ..event };
    // (what happened, (mapped, live), (before, given back of it)); the map was read from 10 to 50
    type Case = (Vec<Event>, (u64, u64), (u64, u64));
    let cases: [Case; 7] = [
        (vec![at(40, mmap(1, p, 2 * p))], (2 * p, 2 * p), (6 * p, 0)),
        (vec![at(60, mmap(1, p, 2 * p))], (2 * p, 2 * p), (8 * p, 2 * p)),
        (vec![at(20, munmap(1, p, p)), at(60, munmap(1, 2 * p, p))], (0, 0), (7 * p, p)),
        (vec![at(20, mmap(1, p, p)), at(60, munmap(1, p, p))], (p, 0), (7 * p, 0)),
        (vec![at(20, reserve(1, p, p)), at(30, protect(1, p, p, true))], (p, p), (7 * p, 0)),
        // The break was moved up twice, and read after that.
        (vec![at(20, brk(0xf000)), at(30, brk(0x10000))], (p, p), (7 * p, 0)),
        (vec![at(60, brk(0xf000)), at(70, brk(0x10000))], (p, p), (8 * p, p)),
    ];
    for (events, mapped_and_live, before_and_back) in cases {
        let mut ledger = Ledger::default();
        // Later than the reading: what is between was there before.
        ledger.sample(Sample { time_ns: 99, rss_bytes: 1, swap_bytes: 0 });
        ledger
            .before(PID, Before { start: p, end: 5 * p, access: true, is_brk: false, read_ns: 50 });
        ledger.before(
            PID,
            Before { start: 0xc000, end: 0x10000, access: true, is_brk: true, read_ns: 50 },
        );
        events.iter().for_each(|event| ledger.apply(event));
        assert_eq!(of_thread(&ledger, 1), mapped_and_live, "{events:?}");
        let counts = ledger.counts();
        let seen = (counts.before_bytes, counts.before_given_back_bytes);
        assert_eq!(seen, before_and_back, "{events:?}");
    }
}

/// The map is read again after calls that no event tells of: what they did was there before.
#[test]
fn map_read_again() {
    let p = 0x1000;
    let mut ledger = Ledger::default();
    let read = |ledger: &mut Ledger, start, end, access, is_brk, read_ns| {
        ledger.before(PID, Before { start, end, access, is_brk, read_ns });
    };
    read(&mut ledger, p, 5 * p, false, false, 50);
    read(&mut ledger, 0xc000, 0xe000, true, true, 50);
    // Meanwhile three pages were made accessible, and the break was moved up by two.
    read(&mut ledger, p, 4 * p, true, false, 90);
    read(&mut ledger, 4 * p, 5 * p, false, false, 90);
    read(&mut ledger, 0xc000, 0x10000, true, true, 90);
    assert_eq!(ledger.counts().before_bytes, 7 * p);
    ledger.apply(&brk(0x11000));
    ledger.apply(&protect(1, p, 4 * p, true));
    assert_eq!(of_thread(&ledger, 1), (2 * p, 2 * p));
    assert_eq!(ledger.counts().before_given_back_bytes, 0);
}

/// A process without a heap says where its heap will begin: the first growth counts.
#[test]
fn heap_that_begins() {
    let mut ledger = Ledger::default();
    ledger
        .before(PID, Before { start: 0x8123, end: 0x8123, access: true, is_brk: true, read_ns: 0 });
    ledger.apply(&brk(0xa000));
    assert_eq!((of_thread(&ledger, 1), ledger.counts().before_bytes), ((0x1000, 0x1000), 0));
}

#[test]
fn streams() {
    // (what happened, opened, live, ended by whom, ended before, end missed)
    type Case = (Vec<Event>, u64, u64, Vec<(u32, u32, u64)>, u64, u64);
    let native = |what: fn(StreamKind, u64) -> What, address| {
        event(1, 7, what(StreamKind::Inflate, address))
    };
    let native_init = |kind, address| What::StreamInit { kind, address };
    let native_end = |kind, address| What::StreamEnd { kind, address };
    let cases: Vec<Case> = vec![
        (vec![init(1, 8), init(1, 16), end(1, 8)], 2, 1, vec![(0, 0, 1)], 0, 0),
        (vec![init(1, 8), init(1, 16), end(2, 8), end(2, 16)], 2, 0, vec![(0, 1, 2)], 0, 0),
        (vec![end(1, 8)], 0, 0, vec![], 1, 0),
        (vec![init(1, 8), init(1, 8)], 2, 1, vec![], 0, 1),
        // zlib's own functions tell of the same stream once more.
        (
            vec![native(native_init, 8), init(1, 8), end(1, 8), native(native_end, 8)],
            1,
            0,
            vec![(0, 0, 1)],
            0,
            0,
        ),
        (
            vec![init(1, 8), native(native_init, 8), end(1, 8), native(native_end, 8)],
            1,
            0,
            vec![(0, 0, 1)],
            0,
            0,
        ),
        (vec![native(native_init, 8), native(native_end, 8)], 1, 0, vec![(0, 0, 1)], 0, 0),
    ];
    for (events, opened, live, ended_by, ended_before, end_missed) in cases {
        let mut ledger = Ledger::default();
        events.iter().for_each(|event| ledger.apply(event));
        assert_eq!(
            ledger.totals().iter().map(|total| total.streams).sum::<u64>(),
            opened,
            "{events:?}"
        );
        assert_eq!(
            ledger.totals().iter().map(|total| total.streams_live).sum::<u64>(),
            live,
            "{events:?}"
        );
        assert_eq!(ledger.ended_by(), ended_by, "{events:?}");
        let counts = ledger.counts();
        assert_eq!(
            (counts.streams_ended_before, counts.streams_end_missed),
            (ended_before, end_missed),
            "{events:?}"
        );
    }
}

/// A stream that zlib's own functions tell of once more counts once with its thread, and at its stack only.
#[test]
fn streams_told_twice() {
    let native = |what| event(1, 7, what);
    let kind = StreamKind::Inflate;
    let opens = native(What::StreamInit { kind, address: 8 });
    let ends = native(What::StreamEnd { kind, address: 8 });
    for events in [[opens, init(1, 8), end(1, 8), ends], [init(1, 8), opens, end(1, 8), ends]] {
        let mut ledger = Ledger::default();
        events.iter().for_each(|event| ledger.apply(event));
        assert_eq!(ledger.threads()[0].n_events, 2, "{events:?}");
        let stacks: Vec<_> = ledger.totals().iter().map(|total| total.stack).collect();
        assert_eq!(stacks, [StackId(1)], "{events:?}");
        assert_eq!((ledger.n(Kind::INFLATE_INIT), ledger.n(Kind::INFLATER_INIT)), (0, 1));
    }
}
