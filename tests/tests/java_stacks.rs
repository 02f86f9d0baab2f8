//! Stacks of Java and native frames together: each is compared with what the fixture has called.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::Duration,
};

use memtrace_tests::{
    java::{Jdk, all_jdks, classes, system_jdk},
    memtrace::Memtrace,
    own_mounts::own_mounts,
    report::{Report, Stack},
    said::Said,
    skip::{runs_all, skip},
    subject::Subject,
    turn,
    watch::watch_subject,
};

const INIT: &str = "java.util.zip.Inflater.<init>";
const FROZEN: &str = "[frozen virtual thread frames]";

fn jdks() -> Vec<Jdk> {
    if runs_all() { all_jdks() } else { vec![system_jdk()] }
}

fn watched(jdk: &Jdk, options: &[&str]) -> (Said, Report) {
    let subject = Subject::ready_java(jdk, options, "JavaStacks", &[]);
    let watched = watch_subject(subject, &[]);
    (watched.said, watched.report)
}

/// The fixture's own frames, the library's that opens, and qsort, outermost first; lambdas are only the way there.
fn own(stack: &Stack) -> Vec<&str> {
    let is_own = |frame: &&str| {
        (frame.starts_with("JavaStacks") && !frame.contains("lambda$") && !frame.contains("$$"))
            || [INIT, "qsort", FROZEN].contains(frame)
    };
    // glibc's qsort may only jump to a function with a few more letters.
    let names = stack.frames.iter().map(|frame| match frame.starts_with("qsort") {
        true => "qsort",
        // A guess is marked, in a stack that says so.
        false if stack.quality == "approximate" => frame.strip_suffix("_[?]").unwrap_or(frame),
        false => frame.as_str(),
    });
    let mut names: Vec<&str> =
        names.filter(is_own).filter(|name| *name != "JavaStacks.run").collect();
    names.dedup_by(|later, first| *later == "qsort" && *first == "qsort");
    names
}

/// What stands between a thread's `run` and `Inflater.<init>`, by the fixture's name of the thread; `None` where it
/// isn't always the same.
fn expected(thread: &str) -> Vec<Vec<&'static str>> {
    let path = |names: &[&'static str]| {
        let opened = ["JavaStacks.open", INIT];
        names.iter().copied().chain(opened).collect::<Vec<_>>()
    };
    match thread {
        "recursion" => vec![path(&["JavaStacks.recurse"; 31])],
        "initializer" => vec![
            path(&["JavaStacks$Initialized.touch", "JavaStacks$Initialized.<clinit>"]),
            path(&["JavaStacks$Initialized.<clinit>"]),
        ],
        "transition" => ["JavaStacks$Round.visit", "JavaStacks$Square.visit"]
            .map(|visit| path(&["JavaStacks.transition", visit, "JavaStacks.openEach"]))
            .into(),
        "reflection" => vec![path(&["JavaStacks.reflect", "JavaStacks.reflected"])],
        "unloading" => vec![path(&["JavaStacks.unload", "JavaStacks.handle"])],
        "upcall" => vec![path(&["JavaStacks.upcall", "qsort", "JavaStacks.compare"])],
        _ => panic!("{thread} is no thread of the fixture"),
    }
}

/// Every stack that ends in an opened Inflater is right or marked. Returns how many are marked, but for those that lead
/// through a class which may be gone before memtrace looks at it.
fn assert_right(report: &Report, said: &Said, what: &str) -> u64 {
    let stacks = report.stacks("inflaters");
    let mut n_marked = 0;
    for name in ["recursion", "initializer", "transition", "reflection", "unloading", "upcall"] {
        let Some(n) = said.number_if_said(name) else { continue };
        let tid = report.thread_named(name).tid;
        let mut n_seen = 0;
        for stack in stacks.iter().filter(|stack| stack.tid == tid) {
            n_seen += stack.value;
            let is_right = expected(name).contains(&own(stack));
            if stack.quality == "complete" {
                assert!(is_right, "{what} {name}: {stack:#?}");
                assert!(
                    stack.frames.iter().any(|frame| frame == "java.lang.Thread.run"),
                    "{stack:#?}"
                );
            } else if name != "unloading" {
                n_marked += stack.value;
            }
        }
        assert_eq!(n_seen, n, "{what} {name}");
    }
    n_marked
}

/// Hardly a stack is broken. Those of the thread that throws its classes away all the time are apart: their code may be
/// gone before it can be looked at, which is said, and how often depends on how busy the machine is.
fn assert_broken(report: &Report, said: &Said, what: &str) {
    let unloading = report.thread_named("unloading").tid;
    let n_of_unloading = |metric| -> u64 {
        let stacks = report.stacks(metric);
        let broken = stacks.iter().filter(|it| it.tid == unloading && it.quality == "broken");
        broken.map(|stack| stack.events).sum()
    };
    let n_opened = n_of_unloading("inflaters");
    let n_others = report.stacks_that_are("broken") - n_opened - n_of_unloading("mapped");
    let n_complete = report.stacks_that_are("complete");
    assert!(n_others * 50 <= n_complete, "{what}: {n_others} broken");
    let n = said.number("unloading");
    assert!(n_opened * 2 <= n, "{what}: {n_opened} of {n} stacks of unloaded code broken");
}

/// Frames of a virtual thread that are on the stack, and the carrier's; those in the heap are marked as missing. Hardly a
/// stack has a guess, and then the right one.
fn assert_virtual(report: &Report, said: &Said, what: &str) {
    let Some(n) = said.number_if_said("virtual") else { return };
    let naps = vec!["JavaStacks.nap"; 7];
    let whole = [&["JavaStacks.virtual"][..], &naps, &["JavaStacks.open", INIT]].concat();
    let (mut n_seen, mut n_frozen, mut n_marked) = (0, 0, 0);
    for stack in report.stacks("inflaters") {
        let is_virtual = stack.frames.iter().any(|frame| frame.contains("Continuation"));
        if !is_virtual {
            continue;
        }
        let frames = own(&stack);
        n_seen += stack.value;
        let is_first = frames == ["JavaStacks.virtual", "JavaStacks.open", INIT];
        let is_thawed = frames.split_first().is_some_and(|(first, rest)| {
            *first == FROZEN && rest.len() >= 3 && whole.ends_with(rest)
        });
        assert!(is_first || is_thawed || frames == whole, "{what}: {stack:#?}");
        n_frozen += u64::from(is_thawed) * stack.value;
        let carrier = "java.util.concurrent.ForkJoinWorkerThread.run";
        assert!(stack.frames.iter().any(|frame| frame == carrier), "{what}: {stack:#?}");
        assert_ne!(stack.quality, "broken", "{what}: {stack:#?}");
        n_marked += u64::from(stack.quality == "approximate") * stack.value;
    }
    assert_eq!(n_seen, n, "{what}");
    let n_opened = report.events("inflater_init");
    assert!(
        n_marked * 200 <= n_opened,
        "{what}: {n_marked} stacks of virtual threads are marked, more than 0.5 % of {n_opened}"
    );
    assert!(n_frozen > 0, "{what}: no frame was frozen");
}

/// No event was lost. Where the kernel's word of mapped code is lost, on a machine that builds something, maps are read.
fn assert_lost_nothing(report: &Report, what: &str) {
    let lost: Vec<_> = report.lost().into_iter().filter(|(name, _)| name != "code_maps").collect();
    assert!(lost.is_empty(), "{what}: {lost:?}");
}

/// Each shape of stack, on each JDK, with its own collector and compilers.
#[test]
fn every_shape() {
    let _turn = turn::together();
    let mut has_upcalls = false;
    for jdk in jdks() {
        let (said, report) = watched(&jdk, &[]);
        let what = format!("{jdk:?}");
        let n_marked = assert_right(&report, &said, &what);
        assert!(n_marked * 100 <= report.events("inflater_init"), "{what}: {n_marked} are marked");
        assert_virtual(&report, &said, &what);
        assert_broken(&report, &said, &what);
        assert_lost_nothing(&report, &what);
        has_upcalls |= said.number_if_said("upcall").is_some();
    }
    if !has_upcalls {
        skip("java_stacks::upcalls", "no JDK of 22 or newer was asked for");
    }
}

/// The same with code that is compiled all the time, by one compiler or none, and other collectors.
#[test]
fn every_way_to_run() {
    let _turn = turn::together();
    let ways: [&[&str]; 5] = [
        &["-Xint"],
        &["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"],
        &["-XX:-TieredCompilation", "-XX:+UseParallelGC"],
        &[
            "-XX:+UnlockDiagnosticVMOptions",
            "-XX:+DeoptimizeALot",
            "-XX:+IgnoreUnrecognizedVMOptions",
        ],
        &["-XX:+UseZGC"],
    ];
    for jdk in jdks() {
        for options in ways {
            if options == ["-XX:+UseZGC"] && jdk.major < 15 {
                continue;
            }
            let what = format!("{jdk:?} {options:?}");
            let (said, report) = watched(&jdk, options);
            let n_marked = assert_right(&report, &said, &what);
            assert!(
                n_marked * 50 <= report.events("inflater_init"),
                "{what}: {n_marked} are marked"
            );
            assert_virtual(&report, &said, &what);
        }
    }
}

/// memtrace comes late to every stack: code and classes are gone, other code is in their place. What it can't know
/// any more it marks.
#[test]
fn walked_late() {
    let _turn = turn::together();
    for jdk in jdks() {
        let options = ["-XX:ReservedCodeCacheSize=5m", "-Xmx64m"];
        let mut subject = Subject::ready_java(&jdk, &options, "JavaStacks", &[]);
        let tracing = Memtrace::of_process(subject.pid()).recorded().attached();
        subject.begin();
        for _ in 0..4 {
            tracing.signal(libc::SIGSTOP);
            sleep(Duration::from_millis(1200));
            tracing.signal(libc::SIGCONT);
            sleep(Duration::from_millis(100));
        }
        let said = subject.done();
        let report = tracing.stop().report();
        assert!(subject.leave().success());
        assert_right(&report, &said, &format!("{jdk:?} late"));
        assert_lost_nothing(&report, &format!("{jdk:?}"));
    }
}

/// Attached while the JVM starts: before its library is mapped, before it has a thread, before it runs Java.
#[test]
fn starting_jvm() {
    let _turn = turn::together();
    for jdk in jdks() {
        for delay_ms in [0, 10, 30, 60, 120] {
            let mut shell = Command::new("sh");
            shell.args(["-c", "echo ready; read line; exec \"$@\"", "sh"]).arg(jdk.java());
            shell.current_dir(classes()).args(["-cp", ".", "JavaStacks", "--wait"]);
            let mut subject = Subject::start(&mut shell);
            subject.begin();
            sleep(Duration::from_millis(delay_ms));
            let pid = subject.pid();
            let tracing = Memtrace::of_process(pid).recorded().attached();
            subject.hear_until("ready");
            let said = subject.finish();
            let report = tracing.stop().report();
            assert!(subject.leave().success());
            let what = format!("{jdk:?} after {delay_ms} ms");
            assert_right(&report, &said, &what);
            assert_lost_nothing(&report, &what);
        }
    }
}

/// The process that wrappers have become or wait for: always the first child.
fn innermost(pid: u32) -> u32 {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.split_ascii_whitespace().next().map_or(pid, |child| innermost(child.parse().unwrap()))
}

fn watch_wrapped(mut wrapper: Command, what: &str) {
    // Another user can't get to the classes where they were built in root's home.
    let folder = env::temp_dir().join(format!("memtrace-classes-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("anyone may write there");
    for class in fs::read_dir(classes()).expect("they are built").flatten() {
        fs::copy(class.path(), folder.join(class.file_name())).expect("both can be accessed");
    }
    let mut subject =
        Subject::start(wrapper.current_dir(&folder).args(["-cp", ".", "JavaStacks", "--wait"]));
    let pid = innermost(subject.pid());
    let tracing = Memtrace::of_process(pid).recorded().attached();
    let said = subject.finish();
    let report = tracing.stop().report();
    assert!(subject.leave().success());
    fs::remove_dir_all(&folder).expect("it was just made");
    assert_right(&report, &said, what);
    assert_virtual(&report, &said, what);
    assert_lost_nothing(&report, what);
}

/// A JVM with another pid and other mounts than memtrace's, run by another user.
#[test]
fn own_namespaces() {
    let _turn = turn::together();
    for jdk in jdks() {
        let mut unshare = Command::new("unshare");
        own_mounts(&mut unshare).args(["--propagation", "unchanged", "--mount-proc"]);
        unshare.args(["--pid", "--fork", "--kill-child"]);
        if jdk.is_in_own_root() {
            unshare.env("MEMTRACE_TEST_USER", "65534:65533").arg(jdk.java());
        } else {
            unshare.args(["setpriv", "--reuid=65534", "--regid=65533", "--clear-groups"]);
            unshare.arg(jdk.java());
        }
        watch_wrapped(unshare, &format!("{jdk:?} in namespaces"));
    }
}

/// A copy of a JDK's folder.
fn copy_of(home: &Path, to: &Path) -> PathBuf {
    let copied = Command::new("cp").arg("-a").arg(home).arg(to.join("jdk")).status().unwrap();
    assert!(copied.success());
    to.join("jdk")
}

/// An upgrade has put another file in the place of the library that the JVM runs, or none.
#[test]
fn replaced_libjvm() {
    let _turn = turn::together();
    let folder = tempfile::tempdir().unwrap();
    let home = copy_of(&system_jdk().home.canonicalize().unwrap(), folder.path());
    let library = home.join("lib/server/libjvm.so");
    for is_replaced in [true, false] {
        let sound = fs::read(&library).unwrap();
        let mut java = Command::new(home.join("bin/java"));
        java.current_dir(classes()).args(["-cp", ".", "JavaStacks", "--wait"]);
        let mut subject = Subject::start(&mut java);
        fs::remove_file(&library).unwrap();
        if is_replaced {
            fs::write(&library, b"\x7fELF is what it begins with").unwrap();
        }
        let tracing = Memtrace::of_process(subject.pid()).recorded().attached();
        let said = subject.finish();
        let report = tracing.stop().report();
        assert!(subject.leave().success());
        let n_marked = assert_right(&report, &said, "replaced");
        assert_eq!(n_marked, 0, "{is_replaced}");
        fs::write(&library, sound).unwrap();
    }
}
