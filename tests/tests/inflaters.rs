//! Inflaters and Deflaters of Java: who opened them where, and who ended them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use memtrace_tests::{
    java::{Jdk, all_jdks, classes, system_jdk},
    memtrace::Memtrace,
    report::Report,
    skip::runs_all,
    subject::Subject,
    turn,
    watch::{Watched, watch_java},
};

const INIT: &str = "Java_java_util_zip_Inflater_init";

/// The JDKs to test with: the system's, or with `MEMTRACE_TEST_ALL` every one that is installed.
fn jdks() -> Vec<Jdk> {
    if runs_all() { all_jdks() } else { vec![system_jdk()] }
}

fn watch_inflaters(jdk: &Jdk, arguments: &[&str]) -> Watched {
    watch_java(jdk, "Inflaters", arguments, &[])
}

/// How many streams that `opener` opened were ended, by the name of the thread that ended them.
fn ended_by(report: &Report, opener: &str) -> BTreeMap<String, u64> {
    let threads = report.value()["threads"].as_array().unwrap();
    let row = threads.iter().find(|row| row["name"] == opener).unwrap();
    let rows = row["inflaters_ended_by"].as_array().unwrap();
    let name = |row: &serde_json::Value| row["name"].as_str().unwrap().to_owned();
    rows.iter().map(|row| (name(row), row["count"].as_u64().unwrap())).collect()
}

/// Two thousand Inflaters: how many were opened, by whom they were ended, and how many are left.
#[test]
fn opened_and_ended() {
    let _turn = turn::together();
    for jdk in jdks() {
        let report = watch_inflaters(&jdk, &["2000", "300", "500", "hold"]).report;
        assert_eq!(report.events("inflater_init"), 2000, "{jdk:?}");
        assert_eq!(report.events("inflater_end"), 800, "{jdk:?}");
        let opener = report.thread_named("opener");
        assert_eq!((opener.inflaters, opener.inflaters_live), (2000, 1200), "{jdk:?}");
        let expected = BTreeMap::from([("opener".to_owned(), 300), ("closer".to_owned(), 500)]);
        assert_eq!(ended_by(&report, "opener"), expected, "{jdk:?}");
        assert!(report.lost().is_empty(), "{jdk:?} {:?}", report.lost());
    }
}

/// What nobody ends is ended by the JVM: by its Cleaner, or before JDK 9 by its Finalizer.
#[test]
fn ended_by_the_jvm() {
    let _turn = turn::together();
    for jdk in jdks() {
        let report = watch_inflaters(&jdk, &["2000", "100", "0", "drop"]).report;
        assert_eq!(report.events("inflater_end"), 2000, "{jdk:?}");
        let cleaner = if jdk.major < 9 { "Finalizer" } else { "Common-Cleaner" };
        let expected = BTreeMap::from([("opener".to_owned(), 100), (cleaner.to_owned(), 1900)]);
        assert_eq!(ended_by(&report, "opener"), expected, "{jdk:?}");
    }
}

/// Without Java's frames each Inflater was opened by the JNI function, called from Java.
#[test]
fn opened_from_java() {
    let _turn = turn::together();
    for jdk in jdks() {
        let arguments = ["2000", "0", "0", "hold"];
        let watched = watch_java(&jdk, "Inflaters", &arguments, &["--no-java-frames"]);
        let opener = watched.report.thread_named("opener").tid;
        let mut n = 0;
        for stack in watched.report.stacks("inflaters") {
            if stack.tid == opener {
                assert_eq!(stack.frames.last().map(String::as_str), Some(INIT), "{stack:#?}");
                assert_from_java(&stack.frames);
                n += stack.value;
            }
        }
        assert_eq!(n, 2000, "{jdk:?}");
    }
}

/// Each Inflater's stack goes from the thread's first frame by way of every method.
#[test]
fn java_frames() {
    let _turn = turn::together();
    for jdk in jdks() {
        let arguments = ["2000", "0", "0", "hold"];
        let report = watch_java(&jdk, "Inflaters", &arguments, &[]).report;
        let opener = report.thread_named("opener").tid;
        let mut n = 0;
        for stack in report.stacks("inflaters").iter().filter(|stack| stack.tid == opener) {
            let methods: Vec<&str> =
                stack.frames.iter().filter_map(|frame| frame.strip_prefix("Inflaters.")).collect();
            assert!(
                matches!(methods[..], [lambda, "open"] if lambda.starts_with("lambda$main$0")),
                "{stack:#?}"
            );
            let end = ["java.util.zip.Inflater.<init>", "java.util.zip.Inflater.init", INIT];
            assert_eq!(stack.frames[stack.frames.len() - 3..], end, "{jdk:?}");
            assert!(stack.frames.iter().any(|frame| frame == "java.lang.Thread.run"), "{stack:#?}");
            assert!(stack.frames[0].starts_with("libc.so.6+"), "{stack:#?}");
            n += stack.value;
        }
        assert_eq!(n, 2000, "{jdk:?}");
        assert_eq!(report.stacks_that_are("broken"), 0, "{jdk:?}");
        assert_eq!(report.stacks_that_are("truncated"), 0, "{jdk:?}");
    }
}

/// Every growth of an arena inside an Inflater's opening shows the whole way from Java to mprotect.
#[test]
fn growth_inside_inflater_init() {
    let _turn = turn::together();
    for (jdk, options) in
        jdks().into_iter().flat_map(|jdk| [(jdk.clone(), &[][..]), (jdk, &["--no-java-frames"])])
    {
        let arguments = ["2000", "0", "0", "hold"];
        let report = watch_java(&jdk, "Inflaters", &arguments, options).report;
        let mut stacks = report.stacks("mapped");
        stacks.retain(|stack| stack.frames.iter().any(|frame| frame == INIT));
        // A stream has more than 7 KB of state, so that 2000 are more than 13 MB.
        let grown: u64 = stacks.iter().map(|stack| stack.value).sum();
        assert!(grown > 13_000_000, "{grown}");
        for stack in &stacks {
            let frames: Vec<&str> = stack.frames.iter().map(String::as_str).collect();
            let init = frames.iter().position(|frame| *frame == INIT).unwrap();
            let allocation = frames.iter().position(|frame| allocates(frame)).unwrap_or_default();
            assert!(allocation > init, "{frames:#?}");
            let last = *frames.last().unwrap();
            assert!(
                ["mprotect", "__mprotect", "mmap", "mmap64", "__mmap"].contains(&last),
                "{frames:#?}"
            );
            match options {
                [] => assert_eq!(frames[init - 1], "java.util.zip.Inflater.init", "{frames:#?}"),
                _ => assert_from_java(&stack.frames[..=init]),
            }
        }
        assert_eq!(report.stacks_that_are("broken"), 0, "{jdk:?}");
        assert_eq!(report.stacks_that_are("truncated"), 0, "{jdk:?}");
    }
}

/// A libzip that is mapped only after the attach is caught, and so is a JVM that is launched.
#[test]
fn libzip_from_the_start() {
    let _turn = turn::together();
    for jdk in jdks().into_iter().filter(|jdk| !jdk.is_in_own_root()) {
        let classes = memtrace_tests::java::classes();
        let report = Memtrace::with_json()
            .arg("--")
            .arg(jdk.java())
            .args(["-cp", classes.to_str().unwrap(), "Inflaters", "500", "200", "0", "hold"])
            .run()
            .report();
        let opener = report.thread_named("opener");
        assert_eq!((opener.inflaters, opener.inflaters_live), (500, 300), "{jdk:?}");
        assert!(report.lost().is_empty(), "{jdk:?} {:?}", report.lost());
    }
}

/// A JVM that does nothing opens no Inflater while it is watched.
#[test]
fn idle() {
    let _turn = turn::together();
    let jdk = system_jdk();
    let subject = Subject::ready_java(&jdk, &["-Xint"], "Idle", &[]);
    let report = memtrace_tests::watch::watch_subject(subject, &[]).report;
    assert_eq!(report.events("inflater_init"), 0);
    let version = report.value()["target"]["jvm"]["major"].as_u64();
    assert_eq!(version, Some(u64::from(jdk.major)));
}

/// The JNI function takes the stream from calloc, and zlib its state from malloc where it clears it itself.
fn allocates(frame: &str) -> bool {
    ["calloc", "__libc_calloc", "malloc", "__libc_malloc"].contains(&frame)
}

/// The native function that is last was called from Java, and Java from the thread's beginning.
fn assert_from_java(frames: &[String]) {
    let n = frames.len();
    assert!(n >= 2, "{frames:#?}");
    assert_eq!(frames[n - 2], "[java]", "{frames:#?}");
    assert_eq!(frames.iter().filter(|frame| *frame == "[java]").count(), 1, "{frames:#?}");
}

/// The very first stacks of a JVM that starts have its methods, with their lines.
#[test]
fn java_frames_of_a_jvm_that_starts() {
    let _turn = turn::together();
    for jdk in all_jdks() {
        let (java, classes) = (jdk.java(), classes());
        let arguments = ["-cp", classes.to_str().unwrap(), "ThreadsThatEnd"];
        let report = Memtrace::with_json().command(java, &arguments).run().report();
        let stacks = report.value()["stacks"].as_array().unwrap();
        let openings: Vec<_> = stacks.iter().filter(|row| row["metric"] == "inflaters").collect();
        assert!(openings.len() >= 4, "{jdk:?}: {stacks:?}");
        for row in openings {
            let frames = row["frames"].as_array().unwrap();
            assert!(!frames.contains(&"[java]".into()), "{jdk:?}: {row}");
            // What opened it is the method right before Java's own classes.
            let opener = frames
                .iter()
                .rposition(|frame| frame.as_str().unwrap().starts_with("ThreadsThatEnd."));
            let source = &row["sources"][opener.unwrap()];
            assert_eq!(source["file"], "ThreadsThatEnd.java", "{jdk:?}: {row}");
            assert!(source["line"].as_u64().is_some(), "{jdk:?}: {row}");
        }
    }
}
