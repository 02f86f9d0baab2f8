//! `--malloc exact` of a JVM: what three threads leak in Java's three ways is found, with owner, count and bytes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, process::Command};

use memtrace_tests::{
    exactness::Sum,
    fixtures::built,
    java::{Jdk, all_jdks, classes, system_jdk},
    memtrace::Memtrace,
    report::Report,
    said::Said,
    skip::{runs_all, skip},
    subject::Subject,
    turn,
};

const N: u64 = 1000;
/// The VM's function behind `Unsafe.allocateMemory`, in some releases with a 0 at its end.
const UNSAFE: &str = "Unsafe_AllocateMemory";

fn leak(jdk: &Jdk) -> (Said, Report) {
    // A JVM in a root of its own sees the folder that it is started in.
    let folder = tempfile::tempdir().unwrap();
    for class in fs::read_dir(classes()).unwrap().flatten() {
        fs::copy(class.path(), folder.path().join(class.file_name())).unwrap();
    }
    fs::copy(built("libblocks.so"), folder.path().join("libblocks.so")).unwrap();
    let mut java = Command::new(jdk.java());
    java.current_dir(folder.path());
    java.args(["-Djava.library.path=.", "-cp", ".", "Blocks", &N.to_string(), "--wait"]);
    let mut subject = Subject::start(&mut java);
    let tracing = Memtrace::of_process(subject.pid()).args(["--malloc", "exact"]).attached();
    let said = subject.finish();
    let report = tracing.stop().report();
    assert!(subject.leave().success(), "the JVM was disturbed");
    (said, report)
}

/// What thread `name` asked for, or has left of it, by way of the frames `by`, the outermost first.
fn of(report: &Report, metric: &str, name: &str, by: &[&str]) -> Sum {
    let tid = report.thread_named(name).tid;
    let stacks = report.stacks(metric).into_iter().filter(|stack| stack.tid == tid);
    let stacks = stacks.filter(|stack| {
        let mut frames = stack.frames.iter();
        by.iter().all(|&part| frames.any(|frame| frame.contains(part)))
    });
    stacks.fold(Sum::default(), |sum, stack| {
        assert_eq!(stack.quality, "complete", "{stack:#?}");
        Sum { n: sum.n + stack.blocks.unwrap_or(stack.events), bytes: sum.bytes + stack.value }
    })
}

/// A thousand each of Inflaters, direct buffers, memory of Unsafe's, and blocks of a library's.
#[test]
fn leaks_of_three_threads() {
    let _turn = turn::together();
    let zlib = zlib();
    for jdk in if runs_all() { all_jdks() } else { vec![system_jdk()] } {
        let (said, report) = leak(&jdk);
        let about = format!("{jdk:?} {}", report.about_malloc());
        assert!(report.lost_events().is_empty(), "{about}");
        // (thread, frames, bytes of each, kept, asked for)
        let cases: [(&str, &[&str], u64, u64, u64); 3] = [
            (
                "buffers",
                &["Blocks.buffers", "DirectByteBuffer.<init>", UNSAFE],
                said.number("direct_bytes"),
                N,
                N,
            ),
            (
                "natives",
                &["Blocks.natives", "Blocks.get", "Java_Blocks_get", "get_block"],
                said.number("native_bytes"),
                N,
                N + N / 2,
            ),
            (
                "buffers",
                &["Blocks.buffers", "java.lang.reflect.Method.invoke", UNSAFE],
                said.number("unsafe_bytes"),
                N,
                N + N / 2,
            ),
        ];
        // Without the name of the VM's function its blocks can't be told from what the VM asks for besides.
        let is_without_names = jdk.is_in_own_root() && jdk.major == 8;
        if is_without_names {
            skip("malloc_java, buffers of JDK 8", "Debian's libjvm of 8 has no such symbols");
        }
        for (thread, frames, bytes, kept, n) in cases {
            if is_without_names && frames.contains(&UNSAFE) {
                continue;
            }
            let what = format!("{thread} {frames:?} {about}");
            let asked = of(&report, "malloc", thread, frames);
            assert_eq!(asked, Sum { n, bytes: n * bytes }, "{what}");
            let live = of(&report, "malloc-live", thread, frames);
            assert_eq!(live, Sum { n: kept, bytes: kept * bytes }, "live {what}");
        }
        let opened = &["Blocks.inflaters", "java.util.zip.Inflater.init", "Inflater_init"];
        let live = of(&report, "malloc-live", "inflaters", opened);
        assert_eq!(live.n, N * (1 + zlib.number("blocks")), "{about}");
        assert_eq!(live.bytes % N, 0, "{live:?} {about}");
        if has_zlib_of_the_system(&jdk) {
            let each = zlib.number("stream_bytes") + zlib.number("bytes");
            assert_eq!(live.bytes, N * each, "{about}");
        }
        let opener = report.thread_named("inflaters");
        assert_eq!((opener.inflaters, opener.inflaters_live), (N + N / 2, N), "{about}");
    }
}

/// What Inflaters hold that nobody ended is told by thread and in all.
#[test]
fn held_by_open_inflaters() {
    let _turn = turn::together();
    let zlib = zlib();
    for jdk in if runs_all() { all_jdks() } else { vec![system_jdk()] } {
        let (_, report) = leak(&jdk);
        assert!(report.lost_events().is_empty(), "{jdk:?} {}", report.about_malloc());
        check_held(&jdk, &report, &zlib);
    }
}

/// Streams in use have a window, too.
fn check_held(jdk: &Jdk, report: &Report, zlib: &Said) {
    let about = format!("{jdk:?} {}", report.about_malloc());
    let by_stack =
        of(report, "malloc-live", "inflaters", &["Blocks.inflaters", "util_zip_Inflater_"]);
    assert_eq!(by_stack.n, N * (1 + zlib.number("blocks_in_use")), "{about}");
    if has_zlib_of_the_system(jdk) {
        let each = zlib.number("stream_bytes") + zlib.number("bytes_in_use");
        assert_eq!(by_stack.bytes, N * each, "{about}");
    }
    let opener = report.thread_named("inflaters").malloc.unwrap();
    assert_eq!(opener.inflaters_live_bytes, by_stack.bytes, "{about}");
    // Others in the JVM may have opened some, too.
    let others: Vec<_> = report.threads().into_iter().filter_map(|it| it.malloc).collect();
    let sum: u64 = others.iter().map(|malloc| malloc.inflaters_live_bytes).sum();
    assert_eq!(report.malloc("inflaters_live_bytes"), sum, "{about}");
    assert!(report.malloc("inflaters_live_blocks") >= by_stack.n, "{about}");
}

/// What the system's zlib asks for, for each stream.
fn zlib() -> Said {
    let output = Command::new(built("zlib_sizes")).output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().collect()
}

/// Whether the JDK has no zlib of its own.
fn has_zlib_of_the_system(jdk: &Jdk) -> bool {
    if jdk.is_in_own_root() {
        return false;
    }
    let needed = Command::new("readelf").arg("-d").arg(jdk.libzip()).output().unwrap();
    String::from_utf8_lossy(&needed.stdout).contains("[libz.so.1]")
}
