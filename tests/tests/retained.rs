//! Who made resident what malloc holds free: as the program knows it, in arenas of one thread and of several.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, fs};

use memtrace_tests::{
    fixtures::built, memtrace::Memtrace, report::Report, said::Said, skip::skip, subject::Subject,
    turn,
};

/// Of retained bytes, what may be given to a wrong thread where nothing is estimated.
const MAX_WRONG: f64 = 0.02;
/// Half of an interval of 95 %, in standard errors; and an estimate that is farther off is none.
const Z_95: f64 = 1.96;
const TOO_FAR: f64 = 4.0;

/// Whether the heap may get huge pages without asking for them: then a fault is no page.
fn has_huge_pages() -> bool {
    let mode = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    mode.is_ok_and(|mode| mode.contains("[always]"))
}

fn traced(shape: &str) -> (Said, Report) {
    let mut subject = Subject::ready(&built("retained"), &[shape]);
    let tracing =
        Memtrace::of_process(subject.pid()).recorded().args(["--metric", "retained"]).attached();
    let said = subject.finish();
    let outcome = tracing.stop();
    assert!(subject.leave().success());
    // The recorded trace says the same.
    let again = Memtrace::report_of(&outcome.file("trace.mt")).run().report();
    assert_eq!(again.value()["retained"], outcome.report().value()["retained"]);
    (said, outcome.report())
}

fn number(report: &Report, key: &str) -> u64 {
    report.value()["retained"][key].as_u64().unwrap()
}

/// Bytes and what they may be off by, of each thread.
fn threads(report: &Report) -> BTreeMap<u32, (f64, f64)> {
    let threads = report.value()["retained"]["threads"].as_array().unwrap();
    let of = |thread: &serde_json::Value, key: &str| thread[key].as_f64().unwrap();
    let thread = |it| (of(it, "tid") as u32, (of(it, "bytes"), of(it, "error_bytes")));
    threads.iter().map(thread).collect()
}

/// Half of the bytes by which all threads' shares are off: each wrong byte is missing elsewhere.
fn wrong_bytes(said: &Said, report: &Report) -> f64 {
    let shares = threads(report);
    let truth = said.numbers_of("thread", "resident");
    let others = shares.iter().filter(|(tid, _)| !truth.contains_key(tid)).map(|(_, it)| it.0);
    let share = |tid| shares.get(tid).map_or(0.0, |share| share.0);
    let off = truth.iter().map(|(tid, &bytes)| (share(tid) - bytes as f64).abs());
    (others.sum::<f64>() + off.sum::<f64>()) / 2.0
}

fn truth(said: &Said) -> f64 {
    said.numbers_of("thread", "resident").values().sum::<u64>() as f64
}

/// All that is retained is listed, by thread and by stack, and it is what the program left.
fn assert_adds_up(said: &Said, report: &Report) {
    let about = format!("{} {:?}", report.value()["retained"], report.lost());
    assert!(report.lost_events().is_empty(), "{about}");
    let bytes = number(report, "bytes");
    assert!((bytes as f64 - truth(said)).abs() < 0.02 * truth(said), "{about}");
    let in_threads: f64 = threads(report).values().map(|it| it.0).sum();
    let unknown = number(report, "unknown_bytes") as f64;
    assert!((in_threads + unknown - bytes as f64).abs() < 100.0, "{about}");
    let in_stacks: u64 = report.stacks("retained").iter().map(|stack| stack.value).sum();
    assert!((in_stacks as f64 - in_threads).abs() < 1000.0, "{in_stacks} {about}");
}

/// Each byte to a function of the thread that made it resident.
fn assert_stacks(said: &Said, report: &Report) {
    for (tid, bytes) in said.numbers_of("thread", "resident") {
        let stacks = report.stacks("retained").into_iter().filter(|stack| stack.tid == tid);
        let in_fill = stacks.filter(|stack| stack.frames.iter().any(|frame| frame == "fill"));
        let in_fill: u64 = in_fill.map(|stack| stack.value).sum();
        assert!(in_fill as f64 > 0.9 * bytes as f64, "{tid}: {in_fill} of {bytes}");
    }
}

/// Arenas of one thread each: who grew them, to 2 %, without an estimate.
#[test]
fn arenas_of_their_own() {
    let _turn = turn::together();
    let (said, report) = traced("own");
    assert_adds_up(&said, &report);
    assert_stacks(&said, &report);
    let about = report.value()["retained"].to_string();
    assert!(wrong_bytes(&said, &report) <= MAX_WRONG * truth(&said), "{about}");
    assert!(number(&report, "exact_bytes") as f64 > 0.97 * truth(&said), "{about}");
}

/// Threads that share the main arena, and one that gets pages which had been given back: by samples, as near as they say.
#[test]
fn shared_and_given_back() {
    let _turn = turn::together();
    if has_huge_pages() {
        return skip("retained::shared_and_given_back", "heaps get huge pages here");
    }
    for shape in ["shared", "again"] {
        let (said, report) = traced(shape);
        assert_adds_up(&said, &report);
        let about = format!("{shape}: {}", report.value()["retained"]);
        assert!(number(&report, "estimated_bytes") as f64 > 0.9 * truth(&said), "{about}");
        assert!(number(&report, "samples") > 100, "{about}");
        let shares = threads(&report);
        for (tid, bytes) in said.numbers_of("thread", "resident") {
            let (is, error) = shares.get(&tid).copied().unwrap_or_default();
            // Beside what is by chance, pages of blocks that are kept.
            let may_be_off = TOO_FAR * error / Z_95 + MAX_WRONG * truth(&said);
            assert!((is - bytes as f64).abs() < may_be_off, "{tid}: {about}");
        }
    }
}

/// Who got pages again that were resident did not make them so; that others may have is said.
#[test]
fn reused() {
    let _turn = turn::together();
    if has_huge_pages() {
        return skip("retained::reused", "heaps get huge pages here");
    }
    let (said, report) = traced("reused");
    assert_adds_up(&said, &report);
    let about = report.value()["retained"].to_string();
    assert!(wrong_bytes(&said, &report) <= 2.0 * MAX_WRONG * truth(&said), "{about}");
}
