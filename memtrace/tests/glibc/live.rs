//! Heaps that change while they are read.

use std::{fs, thread, time::Duration};

use memtrace::footprint::glibc::Malloc;
use memtrace_tests::{fixtures::built, subject::Subject, turn};

use super::{Scan, rollup};

/// What is read of a process that allocates is what is read of it stopped, right before or right after: it moves on
/// between them. In the time that one look takes, two threads that do nothing else ask for five times as much as is live,
/// so that single looks differ by up to twice as much as most do. Nothing is lost on the way.
#[test]
fn while_it_allocates() {
    let _turn = turn::alone();
    // (threads, operations between two pauses, microseconds of a pause)
    for (threads, operations, pause) in
        [("2", "256", "0"), ("4", "256", "100"), ("8", "256", "1000"), ("1", "256", "20000")]
    {
        let mut subject = Subject::ready(&built("heap_busy"), &[threads, operations, pause]);
        subject.finish();
        let (mut live_off, mut trim_off) = (Vec::new(), Vec::new());
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
            live_off.push(off(live));
            trim_off.push(off(trim));
        }
        for (what, mut off, most) in [("live", live_off, 0.03), ("trim", trim_off, 0.15)] {
            off.sort_by(f64::total_cmp);
            let about = format!("{threads} threads: {what} is off by {off:?}");
            assert!(off[off.len() / 2] <= most && off[off.len() - 1] <= 2.0 * most, "{about}");
        }
    }
}

/// By what part the second is outside of what lies between the first and the third.
fn off([before, running, after]: [u64; 3]) -> f64 {
    let (low, high) = (before.min(after), before.max(after));
    let outside = low.saturating_sub(running).max(running.saturating_sub(high));
    outside as f64 / high.max(1) as f64
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
