//! `memtrace footprint`: rows that add up to what the kernel counts, of a process that stands still and of one that does not.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{process::Command, thread::sleep, time::Duration};

use memtrace_tests::{
    fixtures::built,
    footprint::{Footprint, Stopped, footprint, kernels_rss},
    java::{Jdk, all_jdks},
    memtrace::Memtrace,
    skip::skip,
    subject::Subject,
    turn,
};
use serde_json::Value;

const COLLECTORS: [&str; 5] = ["Serial", "Parallel", "G1", "Shenandoah", "Z"];
/// What may be unexplained of a JVM that does nothing: a few tables of the collectors' are not found.
const MAX_UNEXPLAINED_BYTES: u64 = 256 << 10;

/// Of a process that stands still rows add up to the kernel's sum to the byte, and to look at it changes nothing: pages
/// that were never touched, that were only read, and 64 TB with three pages among them.
#[test]
fn stands_still() {
    let _turn = turn::together();
    let mut subject = Subject::ready(&built("residency"), &[]);
    subject.finish();
    let before = kernels_rss(subject.pid());
    let footprint = Footprint::of(subject.pid());
    footprint.assert_adds_up("residency");
    assert_eq!(footprint.rss(), before, "{}", footprint.0);
    assert_eq!(kernels_rss(subject.pid()), before);
    // 1000 written, 2000 of 4000, 32 before the guards, three in 64 TB.
    assert!(footprint.row("anonymous") >= 3035 * 4096, "{}", footprint.0);
    assert!(subject.leave().success(), "the fixture was disturbed");
}

/// Each collector of each JVM that is installed: stopped, to the byte; and almost all of it explained.
#[test]
fn collectors() {
    let _turn = turn::together();
    for jdk in all_jdks() {
        for collector in COLLECTORS {
            let what = format!("{} {collector}", jdk.home.display());
            let flag = format!("-XX:+Use{collector}GC");
            // Before JDK 15 Z has to be unlocked.
            let flags = ["-XX:+UnlockExperimentalVMOptions", flag.as_str()];
            if !knows(&jdk, &flags) {
                skip("footprint::collectors", &format!("{what}: this JVM has no such collector"));
                continue;
            }
            let options = [&flags[..], &["-Xms256m", "-Xmx256m"]].concat();
            let subject = Subject::ready_java(&jdk, &options, "Idle", &[]);
            let stopped = Stopped::new(&subject);
            let before = kernels_rss(subject.pid());
            let footprint = Footprint::of(subject.pid());
            footprint.assert_adds_up(&what);
            assert_eq!(footprint.rss(), before, "{what}: {}", footprint.0);
            assert_eq!(kernels_rss(subject.pid()), before, "{what}");
            if jdk.major < 11 {
                // Its tables do not lead to metaspace: that is said, and is unexplained.
                assert!(footprint.notes().contains("do not lead to its metaspace"), "{what}");
                continue;
            }
            for kind in ["java_heap_used", "metaspace", "code_cache", "thread_stacks", "library"] {
                assert!(footprint.row(kind) > 0, "{what}: {kind}: {}", footprint.0);
            }
            let unexplained = footprint.row("unexplained");
            eprintln!("{what}: {unexplained} bytes of {} unexplained", footprint.rss());
            assert!(unexplained <= MAX_UNEXPLAINED_BYTES, "{what}: {}", footprint.0);
            let heap = &footprint.0["java_heap"];
            let [used, committed] = ["used_bytes", "committed_bytes"].map(|key| heap[key].as_u64());
            assert!(used.is_some() && used <= committed, "{what}: {heap}");
            assert!(footprint.0["malloc"]["live_bytes"].as_u64().unwrap() > 1 << 20, "{what}");
            drop(stopped);
        }
    }
}

fn knows(jdk: &Jdk, flags: &[&str]) -> bool {
    let mut java = Command::new(jdk.java());
    java.args(flags).arg("-version").output().unwrap().status.success()
}

/// Of a process that allocates as fast as it can rows add up all the same, and the sum is what the kernel counts right
/// before, right after, or between, within a hundredth.
#[test]
fn goes_on() {
    let _turn = turn::together();
    let mut subject = Subject::ready(&built("heap_busy"), &["4", "256", "100"]);
    subject.finish();
    for round in 0..20 {
        let before = kernels_rss(subject.pid());
        let footprint = Footprint::of(subject.pid());
        let after = kernels_rss(subject.pid());
        footprint.assert_adds_up(&format!("round {round}"));
        let (rss, low, high) = (footprint.rss(), before.min(after), before.max(after));
        let off = low.saturating_sub(rss).max(rss.saturating_sub(high));
        assert!(off <= before / 100, "round {round}: {before} {rss} {after}");
    }
}

/// What can't be looked at is said in one line, with what to do where there is something.
#[test]
fn bad_input() {
    let _turn = turn::together();
    let subject = Subject::ready(&built("residency"), &[]);
    let mut ended = Command::new("true").spawn().unwrap();
    sleep(Duration::from_millis(200));
    // (process, what is said)
    let cases = [
        (4_000_000, "no such process"),
        (2, "thread of the kernel"),
        (ended.id(), "has ended already"),
    ];
    for (pid, says) in cases {
        let outcome = footprint(pid, &[]);
        assert_eq!(outcome.code(), Some(2), "{pid}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(says), "{pid}: {}", outcome.stderr);
        assert!(outcome.stdout.is_empty(), "{pid}: {}", outcome.stdout);
    }
    ended.wait().unwrap();
    let of_nobody = Memtrace::of_nobody().arg("footprint").arg(subject.pid().to_string()).run();
    assert_eq!(of_nobody.code(), Some(2), "{}", of_nobody.stderr);
    assert!(of_nobody.stderr.contains("hint: "), "{}", of_nobody.stderr);
}

/// Text for people, a file for programs, and the difference of two of these.
#[test]
fn outputs() {
    let _turn = turn::together();
    let mut subject = Subject::ready(&built("residency"), &[]);
    subject.finish();
    let text = footprint(subject.pid(), &[]);
    assert_eq!(text.code(), Some(0), "{}", text.stderr);
    assert!(text.stdout.contains("resident in all"), "{}", text.stdout);
    let written = Memtrace::new().arg("footprint").arg(subject.pid().to_string());
    let written = written.file("--json", "now.json").run();
    assert_eq!(written.code(), Some(0), "{}", written.stderr);
    assert!(written.stdout.contains("resident in all"), "{}", written.stdout);
    let document: Value = serde_json::from_str(&written.written("now.json")).unwrap();
    assert!(document["footprint"]["rss_bytes"].as_u64().unwrap() > 3035 * 4096, "{document}");
    let file = written.file("now.json");
    let diff = Memtrace::new().arg("footprint").arg("--diff").arg(&file).arg(&file).run();
    assert_eq!(diff.code(), Some(0), "{}", diff.stderr);
}
