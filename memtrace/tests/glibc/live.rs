//! Heaps that change while they are read.

use std::{fs, thread, time::Duration};

use memtrace::footprint::glibc::Malloc;
use memtrace_tests::{fixtures::built, subject::Subject};

use super::{Scan, rollup};

/// What is read of a process that allocates is what is read of it stopped, right before or right after: it moves on
/// between them. Nothing is lost on the way.
#[test]
fn while_it_allocates() {
    // (threads, operations between two pauses, microseconds of a pause)
    for (threads, operations, pause) in
        [("2", "256", "0"), ("4", "256", "100"), ("8", "256", "1000"), ("1", "256", "20000")]
    {
        let mut subject = Subject::ready(&built("heap_busy"), &[threads, operations, pause]);
        subject.finish();
        for round in 0..5 {
            let before = stopped(&subject);
            let running = Scan::of(subject.pid());
            let after = stopped(&subject);
            let losses = running.malloc.losses;
            let [live, trim] = [Malloc::live_bytes, Malloc::trim_returns_bytes]
                .map(|of| [&before, &running, &after].map(|scan| of(&scan.malloc)));
            eprintln!(
                "{threads} threads, round {round}: live {live:?}, trim {trim:?}, {:?}, {losses:?}",
                running.took
            );
            assert!(!losses.is_late && !losses.is_ring_broken, "{losses:?}");
            assert_eq!(losses.n_lying_heaps, 0, "{losses:?}");
            assert_eq!((losses.n_skips, losses.unknown_bytes), (0, 0), "{threads}: {losses:?}");
            assert_eq!(running.malloc.arenas.len(), after.malloc.arenas.len());
            assert!(is_near(live, 3), "{threads}: live {live:?}");
            assert!(is_near(trim, 15), "{threads}: trim {trim:?}");
        }
    }
}

/// Whether the second is within so many percent of what lies between the first and the third.
fn is_near([before, running, after]: [u64; 3], percent: u64) -> bool {
    let (low, high) = (before.min(after), before.max(after));
    running * 100 >= low * (100 - percent) && running * 100 <= high * (100 + percent)
}

/// A look at a process that is stopped for it.
fn stopped(subject: &Subject) -> Scan {
    subject.signal(libc::SIGSTOP);
    wait_until_stopped(subject.pid());
    let scan = Scan::of(subject.pid());
    subject.signal(libc::SIGCONT);
    scan
}

/// Reading makes no page resident: RSS of a stopped process is the same to the byte, and of all its pages each is what
/// it was.
#[test]
fn reading_changes_nothing() {
    for shape in [("tops", ""), ("mixed", ""), ("mmapped", "")] {
        let shaped =
            super::Shaped::start(&mut std::process::Command::new(built("heap_shapes")), &shape);
        let pid = shaped.subject.pid();
        let before =
            (rollup(pid, "Rss:"), rollup(pid, "Anonymous:"), shaped.scan().resident.total());
        let after =
            (rollup(pid, "Rss:"), rollup(pid, "Anonymous:"), shaped.scan().resident.total());
        assert_eq!(before, after, "{shape:?}");
    }
}

/// Waits until no thread of process `pid` runs any more.
fn wait_until_stopped(pid: u32) {
    let is_stopped = |tid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.starts_with('T')
    };
    while !memtrace::target::threads(pid).iter().all(is_stopped) {
        thread::sleep(Duration::from_micros(200));
    }
}

/// Every thread is found in the arena that it allocates from, as many as the arena counts itself.
#[test]
fn threads_have_arenas() {
    let mut subject = Subject::ready(&built("heap_busy"), &["6", "256", "1000"]);
    subject.finish();
    let scan = stopped(&subject);
    let mut threads: Vec<u32> = Vec::new();
    for arena in &scan.malloc.arenas {
        assert_eq!(arena.attached_threads, Some(arena.threads.len() as u64), "{arena:#x?}");
        threads.extend(&arena.threads);
    }
    threads.sort_unstable();
    let mut own = memtrace::target::threads(subject.pid());
    own.sort_unstable();
    assert_eq!(threads, own);
}
