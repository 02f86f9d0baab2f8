//! Bad input and bad luck: one clear line, and a status that scripts can rely on.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
};

use memtrace_tests::{
    fixtures::{built, built_elf32},
    memtrace::{Memtrace, Outcome, program},
    skip::{has_tool, skip},
    subject::Subject,
    turn,
};

/// It failed with one line that says why, and did not trace.
fn assert_refused(outcome: &Outcome, parts: &[&str]) {
    assert_eq!(outcome.code(), Some(2), "{}", outcome.stderr);
    assert_eq!(outcome.stdout, "");
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    let errors: Vec<&&str> = lines.iter().filter(|line| line.starts_with("memtrace: ")).collect();
    assert_eq!(errors.len(), 1, "{}", outcome.stderr);
    for part in parts {
        assert!(outcome.stderr.contains(part), "`{part}` is not in: {}", outcome.stderr);
    }
    assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
}

/// A pid of no process is refused by its number.
#[test]
fn no_such_process() {
    let _turn = turn::together();
    // One that has just ended, and one that no process can have.
    let mut ended = Command::new("true").spawn().unwrap();
    ended.wait().unwrap();
    for pid in [ended.id(), 1 << 30] {
        let outcome = Memtrace::of_process(pid).run();
        assert_refused(&outcome, &[&pid.to_string(), "no such process"]);
    }
}

/// A process that has ended and was not waited for has no memory to trace.
#[test]
fn zombie() {
    let _turn = turn::together();
    let mut child = Command::new("true").spawn().unwrap();
    let stat = format!("/proc/{}/stat", child.id());
    while !fs::read_to_string(&stat).unwrap().contains(") Z ") {
        thread::yield_now();
    }
    assert_refused(&Memtrace::of_process(child.id()).run(), &[&child.id().to_string()]);
    child.wait().unwrap();
}

/// A thread that is not its process's first is refused with the process to name instead.
#[test]
fn thread_of_a_process() {
    let _turn = turn::together();
    let (sender, tids) = mpsc::channel();
    let thread = thread::spawn(move || {
        // SAFETY: gettid takes nothing and touches no memory.
        sender.send(unsafe { libc::gettid() }.cast_unsigned()).unwrap();
        thread::park();
    });
    let outcome = Memtrace::of_process(tids.recv().unwrap()).run();
    let hint = format!("--pid {}", std::process::id());
    assert_refused(&outcome, &["is a thread of process", &hint]);
    thread.thread().unpark();
    thread.join().unwrap();
}

/// A kernel thread has no memory of its own.
#[test]
fn kernel_thread() {
    let _turn = turn::together();
    let comm = fs::read_to_string("/proc/2/comm").unwrap_or_default();
    if comm.trim() != "kthreadd" {
        return skip("bad_input::kernel_thread", "this container shows no kernel threads");
    }
    assert_refused(&Memtrace::of_process(2).run(), &["a thread of the kernel"]);
}

/// A 32-bit process is refused by name.
#[test]
fn process_of_32_bits() {
    let _turn = turn::together();
    let mut child =
        Command::new(built_elf32()).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let outcome = Memtrace::of_process(child.id()).run();
    assert_refused(&outcome, &["32-bit", &child.id().to_string()]);
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success(), "the process was disturbed");
}

/// Without rights it says which, and what to do.
#[test]
fn no_permission() {
    let _turn = turn::together();
    if !has_tool("setpriv") {
        return skip("bad_input::no_permission", "no setpriv");
    }
    let subject = Subject::ready(&built("map_ops"), &[]);
    let pid = subject.pid().to_string();
    // (what takes the rights away)
    let cases: [&[&str]; 2] = [
        &["--reuid=65534", "--regid=65534", "--clear-groups"],
        &["--bounding-set=-bpf,-perfmon,-sys_admin"],
    ];
    // A path that anybody can execute.
    let folder = tempfile::TempDir::new_in("/tmp").unwrap();
    let copy = folder.path().join("memtrace");
    fs::copy(program(), &copy).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for rights in cases {
        let output = Command::new("setpriv").args(rights).arg(&copy).args(["--pid", &pid]).output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{rights:?}: {said}");
        let errors = said.lines().filter(|line| line.starts_with("memtrace: ")).count();
        let hints = said.lines().filter(|line| line.starts_with("hint: ")).count();
        assert_eq!((errors, hints), (1, 1), "{rights:?}: {said}");
    }
}

/// A kernel without type information is refused, and `doctor` says what is missing.
#[test]
fn kernel_without_btf() {
    let _turn = turn::together();
    let subject = Subject::ready(&built("map_ops"), &[]);
    let pid = subject.pid().to_string();
    let without_btf =
        || Memtrace::with_mounts("mount --bind /dev/null \"$1\"", "/sys/kernel/btf/vmlinux");
    assert_refused(&without_btf().args(["--pid", &pid]).run(), &["BTF"]);
    let doctor = without_btf().arg("doctor").run();
    assert!(doctor.stdout.contains("BTF"), "{}", doctor.stdout);
}

/// A process that is no JVM is traced, and the report says that it is none.
#[test]
fn not_a_jvm() {
    let _turn = turn::together();
    let mut subject = Subject::ready(&built("map_ops"), &[]);
    let tracing = Memtrace::of_process(subject.pid()).attached();
    let said = subject.finish();
    let outcome = tracing.stop();
    let report = outcome.report();
    assert_eq!(report.events("mmap"), said.number("mmap"));
    assert!(report.value()["target"]["jvm"].is_null());
    let all = outcome.stdout + &outcome.stderr;
    assert!(all.contains("is no Java virtual machine"), "{all}");
}

/// A zlib that could not be probed is tried again when it is mapped again.
#[test]
fn zlib_that_was_no_library() {
    let _turn = turn::together();
    let folder = tempfile::TempDir::new().unwrap();
    let library = folder.path().join("libz.so.1");
    let user = Subject::ready(&built("zlib_user"), &["1", "1", "0", "0"]);
    let maps = fs::read_to_string(format!("/proc/{}/maps", user.pid())).unwrap();
    let mut files = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
    let zlib = files.find(|path| path.contains("/libz.so")).expect("zlib_user has zlib");
    let arguments = [library.to_str().unwrap(), zlib];
    let mut subject = Subject::ready(&built("late_zlib"), &arguments);
    let tracing = Memtrace::of_process(subject.pid()).arg("--zlib").attached();
    let said = subject.finish();
    let report = tracing.stop().report();
    assert!(subject.leave().success());
    assert_eq!(report.events("inflate_init"), said.number("inflate_init"));
    let notes = report.value()["notes"].to_string();
    assert!(notes.contains("the Inflaters of a zlib library are not seen"), "{notes}");
}

/// Wrong arguments are refused as clap refuses them.
#[test]
fn wrong_arguments() {
    let _turn = turn::together();
    // (arguments, a part of what is said)
    let cases: [(&[&str], &str); 8] = [
        (&[], "Usage"),
        (&["--pid", "abc"], "abc"),
        (&["--pid", "-5"], "-5"),
        (&["--pid", "1", "--", "true"], "--pid"),
        (&["--pid", "1", "--duration", "soon"], "soon"),
        (&["--pid", "1", "-o", "/dev/null", "--max-size", "5X"], "5X"),
        (&["--pid", "1", "--metric", "moods"], "moods"),
        (&["--no-such-option"], "--no-such-option"),
    ];
    for (arguments, part) in cases {
        let outcome = Memtrace::new().args(arguments).run();
        assert_eq!(outcome.code(), Some(2), "{arguments:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(part), "{arguments:?}: {}", outcome.stderr);
    }
}

/// `doctor` looks at the machine and at a process, and changes neither.
#[test]
fn doctor() {
    let _turn = turn::together();
    let subject = Subject::ready(&built("zlib_user"), &["1", "1", "0", "0"]);
    let pid = subject.pid().to_string();
    let outcome = Memtrace::new().args(["doctor", "--pid", &pid]).run();
    assert_eq!(outcome.code(), Some(0), "{}", outcome.stderr);
    for part in ["kernel", "BTF", "tracefs", "lockdown", "perf_event", "ring buffer", "glibc", &pid]
    {
        let printed = outcome.stdout.to_lowercase();
        assert!(printed.contains(&part.to_lowercase()), "`{part}` is not in:\n{}", outcome.stdout);
    }
    let outcome = Memtrace::new().args(["doctor", "--pid", "1073741824"]).run();
    assert_ne!(outcome.code(), Some(0), "{}", outcome.stdout);
}
