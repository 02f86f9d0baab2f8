//! `memtrace try`: what a JVM is predicted to return, against what it returns.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

use memtrace_tests::{
    fixtures::built,
    java::{Jdk, all_jdks, system_jdk},
    memtrace::{Memtrace, Outcome},
    skip::skip,
    subject::Subject,
    turn,
};
use serde_json::Value;

const MIB: i64 = 1 << 20;

fn tried(what: &str, pid: u32) -> Outcome {
    Memtrace::new().args(["try", what]).arg(pid.to_string()).file("--json", "t.json").run()
}

fn trial(outcome: &Outcome) -> Value {
    assert_eq!(outcome.code(), Some(0), "{}", outcome.stderr);
    serde_json::from_str(&outcome.written("t.json")).unwrap()
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// Whether this JVM has what a trial asks it for.
fn has_trim(jdk: &Jdk, pid: u32) -> bool {
    let jcmd = jdk.home.join("bin/jcmd");
    // A JVM may come without its tools.
    let Ok(help) = Command::new(jcmd).args([&pid.to_string(), "help"]).output() else {
        return jdk.major >= 18;
    };
    String::from_utf8_lossy(&help.stdout).contains("System.trim_native_heap")
}

/// A trim returns what it was to, within two percent or a MiB, and it is told before what it costs. A JVM that has no such
/// command says so.
#[test]
fn trims() {
    let _turn = turn::together();
    for jdk in all_jdks().into_iter().filter(|jdk| !jdk.is_in_own_root()) {
        let what = jdk.home.display().to_string();
        let subject = Subject::ready_java(&jdk, &[], "Givable", &["1", "1", "0", "8000"]);
        let outcome = tried("trim", subject.pid());
        if !has_trim(&jdk, subject.pid()) {
            assert_eq!(outcome.code(), Some(2), "{what}: {}", outcome.stderr);
            let says = "has no command System.trim_native_heap";
            assert!(outcome.stderr.contains(says), "{what}: {}", outcome.stderr);
            assert!(outcome.stderr.contains("hint: "), "{what}: {}", outcome.stderr);
            continue;
        }
        let told = trial(&outcome);
        let predicted = number(&told["trial"]["predicted"]["from_bytes"]);
        let returned = number(&told["trial"]["returned_bytes"]);
        eprintln!("{what}: predicted {predicted}, returned {returned}");
        assert!(predicted > 30 * MIB, "{what}: {}", told["trial"]);
        assert!(
            (predicted - returned).abs() <= MIB.max(predicted / 50),
            "{what}: {}",
            told["trial"]
        );
        assert_eq!(told["trial"]["as_predicted"], true, "{what}");
        let rss = |when: &str| number(&told[when]["rss_bytes"]);
        let less = rss("before") - rss("after");
        assert!((less - returned).abs() <= MIB.max(predicted / 50), "{what}: {less} {returned}");
        let [costs, predicts] = ["malloc_trim(0) locks", "predicted to return"]
            .map(|part| outcome.stderr.find(part).unwrap_or_else(|| panic!("{}", outcome.stderr)));
        assert!(costs < predicts, "{}", outcome.stderr);
        assert!(outcome.stdout.contains(", as predicted"), "{}", outcome.stdout);
    }
}

/// What a collection returns is in a range that is no wider than a quarter of the heap, with each collector.
#[test]
fn collections() {
    let _turn = turn::together();
    let shapes = [["20", "300", "0", "0"], ["60", "400", "0", "0"]];
    for jdk in all_jdks().into_iter().filter(|jdk| jdk.major >= 17 && !jdk.is_in_own_root()) {
        for collector in ["G1", "Serial", "Parallel", "Shenandoah", "Z"] {
            let flag = format!("-XX:+Use{collector}GC");
            let what = format!("{} {collector}", jdk.home.display());
            let mut java = Command::new(jdk.java());
            if !java.args([&flag, "-version"]).output().unwrap().status.success() {
                skip("trials::collections", &format!("{what}: this JVM has no such collector"));
                continue;
            }
            for shape in &shapes {
                let subject = Subject::ready_java(&jdk, &[&flag], "Givable", shape);
                let outcome = tried("gc", subject.pid());
                let told = trial(&outcome);
                let heap = number(&told["before"]["java_heap"]["resident_bytes"]);
                let (predicted, returned) =
                    (&told["trial"]["predicted"], number(&told["trial"]["returned_bytes"]));
                let (from, to) = (number(&predicted["from_bytes"]), number(&predicted["to_bytes"]));
                let in_mib = [from, to, returned, heap].map(|bytes| bytes / MIB);
                eprintln!("{what} {shape:?}: from, to, returned, heap: {in_mib:?}");
                assert!((from..=to).contains(&returned), "{what} {shape:?}: {in_mib:?}");
                assert!(to - from <= heap / 4 + MIB, "{what} {shape:?}: {in_mib:?}");
                assert!(
                    outcome.stderr.contains("all Java threads stand still"),
                    "{}",
                    outcome.stderr
                );
            }
        }
    }
}

/// Garbage that is old is not foreseen, and that is said.
#[test]
fn old_garbage() {
    let _turn = turn::together();
    let options = ["-XX:+UseG1GC", "-Xms16m"];
    let subject =
        Subject::ready_java(&system_jdk(), &options, "Givable", &["20", "300", "300", "0"]);
    let outcome = tried("gc", subject.pid());
    let told = trial(&outcome);
    assert_eq!(told["trial"]["as_predicted"], false, "{}", told["trial"]);
    let says = "more than predicted: less was alive than what was taken to be";
    assert!(outcome.stdout.contains(says), "{}", outcome.stdout);
}

/// Who can't be asked is left alone, and told why.
#[test]
fn refused() {
    let _turn = turn::together();
    let jdk = system_jdk();
    let native = Subject::ready(&built("residency"), &[]);
    let deaf = Subject::ready_java(&jdk, &["-XX:+DisableAttachMechanism"], "Idle", &[]);
    let unwilling = Subject::ready_java(&jdk, &["-XX:+DisableExplicitGC"], "Idle", &[]);
    // (what, process, what is said)
    let cases = [
        ("trim", native.pid(), "it is not a HotSpot JVM"),
        ("gc", native.pid(), "it is not a HotSpot JVM"),
        ("trim", deaf.pid(), "it runs with -XX:+DisableAttachMechanism"),
        ("gc", unwilling.pid(), "runs with -XX:+DisableExplicitGC"),
        ("gc", 4_000_000, "no such process"),
    ];
    for (what, pid, says) in cases {
        let outcome = tried(what, pid);
        assert_eq!(outcome.code(), Some(2), "{what}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(says), "{what}: {}", outcome.stderr);
        assert!(outcome.stdout.is_empty(), "{}", outcome.stdout);
    }
}
