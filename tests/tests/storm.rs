//! As much as the kernel can do: nothing is lost without being counted.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

use memtrace_tests::{fixtures::built, memtrace::Memtrace, subject::Subject, turn};

/// memtrace's own memory, of which the ring buffer counts twice, must stay below this.
const MAX_RSS_BYTES: u64 = 150 << 20;

/// Eight threads map and unmap for ten seconds: recorded and lost are together what they did, and
/// when nothing was lost, every thread's bytes are its own.
#[test]
fn ten_seconds() {
    let _turn = turn::alone();
    let mut subject = Subject::ready(&built("storm"), &["8", "10"]);
    let tracing = Memtrace::of_process(subject.pid()).attached();
    subject.begin();
    let peak = peak_rss(tracing.pid(), Duration::from_secs(11));
    let said = subject.done();
    let report = tracing.stop().report();
    assert!(subject.leave().success());

    // What came too late for its place in the order is recorded all the same.
    let lost: u64 =
        report.lost().iter().filter(|(name, _)| **name != "out_of_order").map(|(_, n)| n).sum();
    let recorded = report.events("mmap") + report.events("munmap");
    let done = said.number("mmap") + said.number("munmap");
    assert_eq!(recorded + lost, done, "{:?}", report.lost());
    assert!(peak <= MAX_RSS_BYTES, "memtrace took {peak} bytes");
    if report.lost().is_empty() {
        let live = said.numbers_of("thread", "live");
        for (tid, mapped) in said.numbers_of("thread", "mapped") {
            let thread = report.thread(tid);
            assert_eq!((thread.mapped, thread.live), (mapped, live[&tid]), "thread {tid}");
        }
    }
}

/// A storm that the consumer can follow loses nothing at all.
#[test]
fn a_short_one_loses_nothing() {
    let _turn = turn::alone();
    let mut subject = Subject::ready(&built("storm"), &["2", "0.05"]);
    let tracing = Memtrace::of_process(subject.pid()).attached();
    let said = subject.finish();
    let report = tracing.stop().report();
    assert!(report.lost().is_empty(), "{:?}", report.lost());
    let live = said.numbers_of("thread", "live");
    for (tid, mapped) in said.numbers_of("thread", "mapped") {
        let thread = report.thread(tid);
        assert_eq!((thread.mapped, thread.live), (mapped, live[&tid]), "thread {tid}");
    }
}

/// The highest resident set of process `pid` during a time.
fn peak_rss(pid: u32, time: Duration) -> u64 {
    let end = Instant::now() + time;
    let mut peak = 0;
    while Instant::now() < end {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        peak = peak.max(kib << 10);
        sleep(Duration::from_millis(200));
    }
    peak
}
