//! Stacks that go from Java to C and back to Java: every frame of the program's own is there, each where it belongs.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, process::Command};

use memtrace_tests::{
    fixtures::built,
    java::{Jdk, all_jdks, classes, system_jdk},
    memtrace::Memtrace,
    report::Stack,
    skip::runs_all,
    subject::Subject,
    turn,
};

/// What each call maps, which nothing else does.
const MAGIC: u64 = 0x123000;
/// Outermost first.
const BACK: [&str; 4] = ["call_back", "Upcalls.back", "Upcalls.map", "Java_Upcalls_map"];

/// The program's own frames, and the VM's way from C to Java.
fn own(stack: &Stack) -> Vec<&str> {
    let is_own = |frame: &&str| {
        frame.contains("Upcalls")
            || ["call_back", "own_thread", "[call_stub]", "java.lang.Thread.run"].contains(frame)
    };
    stack.frames.iter().map(String::as_str).filter(is_own).collect()
}

fn assert_whole(jdk: &Jdk, options: &[&str]) {
    let what = format!("{jdk:?} {options:?}");
    // A JVM in a root of its own sees the folder that it is started in.
    let folder = tempfile::tempdir().unwrap();
    for class in fs::read_dir(classes()).unwrap().flatten() {
        fs::copy(class.path(), folder.path().join(class.file_name())).unwrap();
    }
    fs::copy(built("libupcalls.so"), folder.path().join("libupcalls.so")).unwrap();
    let mut java = Command::new(jdk.java());
    java.current_dir(folder.path()).args(options);
    java.args(["-Djava.library.path=.", "-cp", ".", "Upcalls", "--wait"]);
    let mut subject = Subject::start(&mut java);
    let tracing = Memtrace::of_process(subject.pid()).recorded().attached();
    let said = subject.finish();
    let report = tracing.stop().report();
    assert!(subject.leave().success());

    let call_back = |way: &[&'static str]| -> Vec<&'static str> {
        let [first, rest @ ..] = BACK;
        way.iter().copied().chain([first, "[call_stub]"]).chain(rest).collect()
    };
    let from_java =
        ["[call_stub]", "java.lang.Thread.run", "Upcalls.run", "Upcalls.down", "Java_Upcalls_down"];
    // (what it said, its frames, the one that every thread of libc's begins with comes before)
    let cases = [("down", call_back(&from_java)), ("attached", call_back(&["own_thread"]))];
    let stacks = report.stacks("mapped");
    let is_ours = |stack: &&Stack| stack.value == MAGIC * stack.events;
    for (name, expected) in cases {
        let of_this = stacks.iter().filter(is_ours).filter(|stack| own(stack) == expected);
        let mut n = 0;
        for stack in of_this {
            assert_eq!(stack.quality, "complete", "{what} {name}: {stack:#?}");
            assert!(stack.frames[0].starts_with("libc.so.6+"), "{what} {name}: {stack:#?}");
            assert_eq!(stack.frames.last().unwrap(), "mmap", "{what} {name}: {stack:#?}");
            n += stack.events;
        }
        let ours: Vec<_> = stacks.iter().filter(is_ours).collect();
        assert_eq!(n, said.number(name), "{what} {name}: {ours:#?}");
    }
}

/// A call into Java from C that Java has called, and from a thread of C's that was attached: interpreted and compiled.
#[test]
fn whole() {
    let _turn = turn::together();
    for jdk in if runs_all() { all_jdks() } else { vec![system_jdk()] } {
        for options in [&["-Xint"][..], &["-Xcomp"], &[]] {
            assert_whole(&jdk, options);
        }
    }
}
