//! Names of threads, from the kernel, from the JVM's memory and from its thread dump.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, process::Command};

use memtrace_tests::{
    java::{all_jdks, classes, system_jdk},
    memtrace::Memtrace,
    said::Said,
    skip::{has_tool, runs_all, skip},
    subject::{Subject, send},
    turn,
    watch::{watch, watch_java},
};

/// Threads that were renamed have their last name, and those that have ended keep it, with what they hold.
#[test]
fn renamed_and_ended() {
    let _turn = turn::together();
    let watched = watch("threads", &[], &[]);
    let mapped = watched.said.numbers_of("thread", "mapped");
    let live = watched.said.numbers_of("thread", "live");
    for (tid, name) in watched.said.texts_of("thread", "name") {
        let thread = watched.report.thread(tid);
        assert_eq!((thread.name.as_str(), thread.name_from.as_str()), (name, "comm"));
        assert_eq!((thread.mapped, thread.live), (mapped[&tid], live[&tid]), "{name}");
    }
}

/// A thread name can hold any byte; nothing of it gets through that a terminal or a folded file would obey.
#[test]
fn hostile_names() {
    let _turn = turn::together();
    let watched = watch("names", &[], &["--folded", "-"]);
    let mapped = watched.said.numbers_of("thread", "mapped");
    for (tid, hex) in watched.said.texts_of("thread", "name_hex") {
        let thread = watched.report.thread(tid);
        assert_eq!(thread.mapped, mapped[&tid], "{hex}");
        let bytes: Vec<u8> = hex_bytes(hex);
        // The report keeps what is text: JSON can say it. A part that is none is replaced.
        let letters = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).collect::<String>();
        let wanted = letters(&String::from_utf8_lossy(&bytes));
        assert!(letters(&thread.name).contains(&wanted), "{hex}: {:?}", thread.name);
    }
    for line in watched.outcome.stdout.lines() {
        assert!(!line.chars().any(char::is_control), "{line:?}");
        let (stack, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<u64>().is_ok(), "{line:?}");
        let thread = stack.split(';').next().unwrap();
        assert!(thread.starts_with('[') && thread.ends_with(']'), "{line:?}");
        assert!(thread.contains(" tid="), "{line:?}");
    }
    let lines: u64 = watched.outcome.stdout.lines().count() as u64;
    assert_eq!(lines, mapped.len() as u64, "one line a thread: {}", watched.outcome.stdout);
    let said = &watched.outcome.stderr;
    assert!(!said.chars().any(|c| c.is_control() && c != '\n'), "{said:?}");
}

fn hex_bytes(hex: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect()
}

const JAVA_NAMES: [&str; 6] = [
    "a-thread-with-a-name-longer-than-the-kernel-keeps",
    "fäden-λ-線程-🧵",
    "quoted \"name\" with #12 and tid=0x1",
    "semi;colon\\back",
    "http-nio-8080-exec-1",
    "",
];

/// Without being asked, memtrace has the whole names from the VM's memory: of threads that were renamed, by themselves or
/// by another, that have ended, and of the carriers of virtual threads.
#[test]
fn java_names_of_the_vm() {
    let _turn = turn::together();
    for jdk in all_jdks() {
        let watched = watch_java(&jdk, "ThreadsThatEnd", &[], &[]);
        let thread_of = |n: u64| {
            let threads = watched.report.threads();
            let found = threads.iter().find(|thread| thread.inflaters == n).cloned();
            found.unwrap_or_else(|| panic!("{jdk:?}: {n} Inflaters in {threads:#?}"))
        };
        let names = watched.said.texts_of("thread", "name");
        assert_eq!(names.len(), 3, "{jdk:?}: {:?}", watched.said);
        for (n, name) in names {
            let thread = thread_of(n.into());
            assert_eq!((thread.name.as_str(), thread.name_from.as_str()), (name, "vm"), "{jdk:?}");
        }
        if jdk.major >= 21 {
            let carrier = thread_of(watched.said.number("carrier"));
            assert!(carrier.name.starts_with("ForkJoinPool-1-worker-"), "{jdk:?}: {carrier:?}");
        }
        // The VM's own threads have their whole names, too; the launcher's first thread has the kernel's.
        let own = watched.report.thread_named("VM Periodic Task Thread");
        let first = watched.report.thread(watched.pid);
        assert_eq!((own.name_from.as_str(), first.name_from.as_str()), ("vm", "comm"), "{jdk:?}");
        // From the trace file as well.
        let replayed = Memtrace::report_of(&watched.outcome.file("trace.mt")).run().report();
        assert_eq!(replayed.threads(), watched.report.threads(), "{jdk:?}");
    }
}

/// A JVM that is started by memtrace has not one thread when its library is first seen; one in a pid namespace of its
/// own has other ids.
#[test]
fn java_names_of_a_jvm_that_starts() {
    // Some threads live for milliseconds: their names are read in that time, or never.
    let _turn = turn::alone();
    for jdk in all_jdks() {
        let java = jdk.java();
        let java = java.to_str().unwrap();
        let classes = classes();
        let program = ["-cp", classes.to_str().unwrap(), "ThreadsThatEnd"];
        for starter in [&["unshare", "--pid", "--fork", "--kill-child", java][..], &[java][..]] {
            let arguments = [&starter[1..], &program[..]].concat();
            let outcome = Memtrace::with_json().command(starter[0], &arguments).run();
            let report = outcome.report();
            let said = Said::from_iter(outcome.stdout.lines());
            for (n, name) in said.texts_of("thread", "name") {
                let thread = report.thread_named(name);
                let what = (thread.inflaters, thread.name_from.as_str());
                assert_eq!(what, (n.into(), "vm"), "{jdk:?} {starter:?}");
            }
            assert_eq!(report.thread_named("Reference Handler").name_from, "vm", "{jdk:?}");
        }
    }
}

/// A library of the right name that describes nothing is told of in one line, and its process is traced as any other.
#[test]
fn jvm_without_tables() {
    let _turn = turn::together();
    for options in [&[][..], &["--no-java-frames"]] {
        let watched = watch("fake_jvm", &[], options);
        let text = &watched.outcome.stdout;
        let lines = text.lines().filter(|line| line.contains("can't be read from outside"));
        assert_eq!(lines.count(), 1, "{options:?}: {text}");
        let notes = watched.report.value()["notes"].to_string();
        assert!(notes.contains("exports no gHotSpotVMStructs"), "{options:?}: {notes}");
        let stack = watched.report.stack_of_size(watched.said.number("magic"));
        let from_main = stack.frames.iter().skip_while(|frame| *frame != "main");
        let from_main: Vec<&str> = from_main.map(String::as_str).collect();
        assert_eq!(
            from_main[..4],
            ["main", "JNI_CreateJavaVM", "work", "map_magic"],
            "{options:?}: {stack:?}"
        );
        assert_eq!(stack.quality, "complete");
        assert_eq!(watched.report.thread(watched.pid).name_from, "comm");
    }
}

/// With `--jstack attach` the threads that live have their whole names, from every JVM.
#[test]
fn java_names_by_attach() {
    let _turn = turn::together();
    let jdks = if runs_all() { all_jdks() } else { vec![system_jdk()] };
    for jdk in jdks {
        let watched = watch_java(&jdk, "ThreadNames", &[], &["--jstack", "attach"]);
        for (i, name) in JAVA_NAMES.iter().enumerate() {
            let threads = watched.report.threads();
            let found = threads.iter().find(|thread| thread.inflaters == i as u64 + 1);
            let thread = found.unwrap_or_else(|| panic!("{jdk:?}: {name:?} in {threads:#?}"));
            // Every second thread has ended before the dump.
            if i % 2 == 0 {
                assert_eq!(thread.name, *name, "{jdk:?}");
                assert_eq!(thread.name_from, "jstack", "{jdk:?}");
            } else {
                assert_ne!(thread.name_from, "jstack", "{jdk:?}");
            }
        }
    }
}

/// A thread dump that was saved while the threads lived names them in a recorded trace.
#[test]
fn java_names_from_a_file() {
    let _turn = turn::together();
    if !has_tool("jstack") {
        return skip("threads::java_names_from_a_file", "no jstack");
    }
    let mut subject = Subject::ready_java(&system_jdk(), &[], "ThreadNames", &[]);
    let tracing = Memtrace::of_process(subject.pid()).recorded().attached();
    subject.finish();
    let dump = Command::new("jstack").arg(subject.pid().to_string()).output().unwrap();
    let outcome = tracing.stop();
    assert!(subject.leave().success());

    let saved = tempfile::NamedTempFile::new().unwrap();
    fs::write(saved.path(), &dump.stdout).unwrap();
    let replayed = Memtrace::report_of(&outcome.file("trace.mt"));
    let report = replayed.arg("--jstack").arg(saved.path()).run().report();
    let thread = report.thread_named(JAVA_NAMES[0]);
    assert_eq!((thread.inflaters, thread.name_from.as_str()), (1, "jstack"));
}

/// A dump of a JVM in a pid namespace of its own has that namespace's ids: while the JVM runs they can be told.
#[test]
fn java_names_from_another_namespace() {
    let _turn = turn::together();
    if !has_tool("jstack") {
        return skip("threads::java_names_from_another_namespace", "no jstack");
    }
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child"]).arg(system_jdk().java());
    command.arg("-cp").arg(classes()).args(["ThreadNames", "--wait"]);
    let mut subject = Subject::start(&mut command);
    let path = format!("/proc/{0}/task/{0}/children", subject.pid());
    let jvm: u32 = fs::read_to_string(path).unwrap().trim().parse().unwrap();
    let dump = Command::new("jstack").arg(jvm.to_string()).output().unwrap();
    let saved = tempfile::NamedTempFile::new().unwrap();
    fs::write(saved.path(), &dump.stdout).unwrap();

    let tracing = Memtrace::of_process(jvm).recorded().arg("--jstack").arg(saved.path());
    let tracing = tracing.attached();
    subject.finish();
    let outcome = tracing.stop();
    let report = outcome.report();
    // A name that is longer than the kernel keeps.
    assert_eq!(report.thread_named("Reference Handler").name_from, "jstack");
    assert!(!report.value()["notes"].to_string().contains("dump matched"), "{report:?}");
    // In order: a JVM that is killed leaves the socket that `jstack` had asked for.
    send(jvm, libc::SIGTERM);
    subject.wait();

    let replayed = Memtrace::report_of(&outcome.file("trace.mt"));
    let report = replayed.arg("--jstack").arg(saved.path()).run().report();
    let notes = report.value()["notes"].to_string();
    assert!(
        notes.contains("0 of ") && notes.contains("threads of the thread dump matched"),
        "{notes}"
    );
}

/// A process that is no JVM is not asked for names, and that is said.
#[test]
fn jstack_of_what_is_no_jvm() {
    let _turn = turn::together();
    let watched = watch("threads", &[], &["--jstack", "attach"]);
    let notes = watched.report.value()["notes"].to_string();
    assert!(notes.contains("not a HotSpot JVM"), "{notes}");
    // Above all the process has not been sent a signal that it does not handle: it went on to its end.
    assert_eq!(watched.report.events("mmap"), 14);
}
