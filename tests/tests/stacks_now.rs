//! `memtrace stacks`: the stacks of all threads at one moment, with and without stopping them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use memtrace_tests::{
    fixtures::{built, built_elf32},
    gdb,
    memtrace::{Memtrace, Outcome},
    said::Said,
    skip::{has_tool, skip},
    subject::Subject,
    turn,
};
use serde_json::Value;

/// A C program whose threads wait at known places; one runs.
fn waiting() -> (Subject, Said) {
    let mut subject = Subject::ready(&built("stack_waits"), &[]);
    let said = subject.finish();
    (subject, said)
}

fn stacks(pid: u32, options: &[&str]) -> Outcome {
    Memtrace::new().arg("stacks").arg(pid.to_string()).args(options).run()
}

/// The threads of a JSON document by id: whether it was consistent, quality, names of frames.
fn threads(outcome: &Outcome) -> Vec<(u64, bool, String, Vec<String>)> {
    assert_eq!(outcome.code(), Some(0), "{}", outcome.stderr);
    let document: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(document["schema"], 1);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let thread = |row: &Value| {
        let frames = row["frames"].as_array().unwrap().iter().map(|frame| text(&frame["name"]));
        let (tid, consistent) =
            (row["tid"].as_u64().unwrap(), row["consistent"].as_bool().unwrap());
        (tid, consistent, text(&row["quality"]), frames.collect())
    };
    document["threads"].as_array().unwrap().iter().map(thread).collect()
}

/// Stacks of threads that wait equal gdb's, frame by frame, whether they are stopped or not; the thread that runs has a
/// right one only if it is stopped, and is marked otherwise.
#[test]
fn equal_gdbs() {
    let _turn = turn::together();
    let (subject, said) = waiting();
    let spinner = said.number("spinner");
    let expected = gdb::stacks_of_process(subject.pid());
    assert_eq!(expected.len(), 5);
    for options in [&["--json"][..], &["--json", "--freeze"]] {
        let outcome = stacks(subject.pid(), options);
        let threads = threads(&outcome);
        assert_eq!(threads.len(), expected.len(), "{options:?}: {threads:#?}");
        for (tid, is_consistent, quality, frames) in threads {
            let is_frozen = options.contains(&"--freeze");
            let is_right = tid != spinner || is_frozen;
            assert_eq!(is_consistent, is_right, "{options:?}: {tid}");
            if !is_right {
                continue;
            }
            assert_eq!(quality, "complete", "{options:?}: {tid} {frames:#?}");
            let wanted = &expected[&tid];
            // What runs is somewhere in its innermost function.
            let same = frames.len() == wanted.len()
                && frames.iter().zip(wanted).all(|(name, frame)| frame.is_called(name));
            assert!(same, "{options:?}: memtrace has {frames:#?}\ngdb has {wanted:#?}");
        }
    }
    assert!(subject.leave().success(), "the process was disturbed");
}

/// As text and folded, every thread is there, with what it does and how its stack was taken.
#[test]
fn text_and_folded() {
    let _turn = turn::together();
    let (subject, said) = waiting();
    let text = stacks(subject.pid(), &[]).stdout;
    let folded = stacks(subject.pid(), &["--folded", "--freeze"]).stdout;
    assert!(text.starts_with(&format!("process {} (", subject.pid())), "{text}");
    assert!(text.lines().next().unwrap().ends_with(": 5 threads, none was stopped"), "{text}");
    for (tid, depth) in said.numbers_of("thread", "depth") {
        let about = format!("\"stack_waits\" tid={tid} nid={tid:#x} consistent, complete\n");
        let thread = text.split("\n\n").find(|part| format!("{part}\n").starts_with(&about));
        let thread = thread.unwrap_or_else(|| panic!("no {about} in {text}"));
        let n = thread.matches("    at go_down (stack_waits)").count() as u64;
        assert_eq!(n, depth + 1, "{thread}");
        let line = folded.lines().find(|line| line.contains(&format!("[stack_waits tid={tid}];")));
        let line = line.unwrap_or_else(|| panic!("no {tid} in {folded}"));
        assert_eq!(line.matches(";go_down").count() as u64, depth + 1, "{line}");
        assert!(line.contains(";wait_here;") && line.ends_with(" 1"), "{line}");
    }
    let spinner = said.number("spinner");
    assert!(text.contains(&format!("tid={spinner} nid={spinner:#x} running, ")), "{text}");
    assert!(folded.contains(&format!("tid={spinner}];")) && folded.contains(";spin_here 1\n"));
    assert!(subject.leave().success(), "the process was disturbed");
}

/// Of stacks that are much more than memtrace may hold each is there.
#[test]
fn more_than_memory() {
    let _turn = turn::together();
    if !has_tool("prlimit") {
        return skip("stacks_now::more_than_memory", "no prlimit");
    }
    let mut subject = Subject::ready(&built("stack_many"), &[]);
    subject.finish();
    // 300 stacks have 300 MB.
    let limited = ["prlimit", "--data=150000000"];
    for options in [&["--json"][..], &["--json", "--freeze"]] {
        let memtrace = Memtrace::started_by(&limited).arg("stacks").arg(subject.pid().to_string());
        let threads = threads(&memtrace.args(options).run());
        let is_whole = |(_, is_consistent, quality, frames): &&(u64, bool, String, Vec<String>)| {
            *is_consistent && quality == "complete" && frames.iter().any(|name| name == "fill")
        };
        assert_eq!((threads.len(), threads.iter().filter(is_whole).count()), (301, 300));
    }
    assert!(subject.leave().success(), "the process was disturbed");
}

/// A field of a thread's or process's status.
fn status(path: &str, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{path}/status")).unwrap_or_default();
    let field = status.lines().find_map(|line| line.strip_prefix(name));
    field.unwrap_or_default().trim().to_owned()
}

/// Whether a memtrace that freezes process `pid` was sent `signal` while it held `thread`: both stand still then.
fn killed_while_it_holds(pid: u32, thread: &str, signal: libc::c_int) -> bool {
    // Who is started in the background may have to ignore SIGINT.
    let memtrace = Memtrace::started_by(&["env", "--default-signal=INT"]);
    let running = memtrace.args(["stacks", "--freeze"]).arg(pid.to_string()).start();
    let memtrace = running.pid().to_string();
    let state = || status(&memtrace, "State:");
    while !state().starts_with('Z') {
        if status(thread, "TracerPid:") == "0" {
            continue;
        }
        running.signal(libc::SIGSTOP);
        while !state().starts_with(['T', 'Z']) {}
        let tracer = status(thread, "TracerPid:");
        let holds = Path::new(&format!("/proc/{memtrace}/task/{tracer}")).exists()
            && status(thread, "State:").starts_with('t');
        if holds {
            running.signal(signal);
        }
        running.signal(libc::SIGCONT);
        if holds {
            let outcome = running.end();
            assert_eq!(outcome.status.signal(), Some(signal), "{}", outcome.stderr);
            return true;
        }
    }
    assert_eq!(running.end().code(), Some(0));
    false
}

/// Waits until none of these threads is traced and each does what it did: who was let go needs a processor to get there.
fn go_on(threads: &[(String, char)]) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let states = || {
        threads.iter().map(|(thread, _)| (status(thread, "State:"), status(thread, "TracerPid:")))
    };
    let is_as_before = |((state, tracer), (_, wanted)): ((String, String), &(String, char))| {
        state.starts_with(*wanted) && tracer == "0"
    };
    while !states().zip(threads).all(is_as_before) {
        assert!(Instant::now() < deadline, "{:?}", states().collect::<Vec<_>>());
        thread::sleep(Duration::from_millis(1));
    }
}

/// However memtrace ends, whichever thread it holds then, no thread stays stopped.
#[test]
fn killed_while_it_holds_threads() {
    let _turn = turn::together();
    let (subject, said) = waiting();
    let (pid, spinner) = (subject.pid(), said.number("spinner"));
    let waiting = said.numbers_of("thread", "depth").into_keys().chain([pid]);
    let of = |tid: u32, state| (format!("{pid}/task/{tid}"), state);
    let threads: Vec<(String, char)> =
        waiting.map(|tid| of(tid, 'S')).chain([of(spinner as u32, 'R')]).collect();
    assert_eq!(threads.len(), 5);
    go_on(&threads);
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGKILL] {
        for (thread, _) in &threads {
            for _ in 0..3 {
                // It holds each thread for less than a millisecond.
                let tries = (1..=1000).find(|_| killed_while_it_holds(pid, thread, signal));
                assert!(tries.is_some(), "it was never seen to hold {thread}");
                go_on(&threads);
            }
        }
    }
    // It says whether its spinner still spins.
    assert!(subject.leave().success(), "a thread was left stopped");
}

/// What can't be looked at is refused as a trace of it is.
#[test]
fn refused() {
    let _turn = turn::together();
    let refused = |pid: u32, part: &str| {
        let outcome = stacks(pid, &[]);
        assert_eq!((outcome.code(), outcome.stdout.as_str()), (Some(2), ""), "{}", outcome.stderr);
        assert!(outcome.stderr.starts_with("memtrace: ") && outcome.stderr.contains(part));
    };
    refused(1 << 30, "no such process");
    let mut child =
        Command::new(built_elf32()).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    refused(child.id(), "32-bit");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

/// Without rights it says which, and what to do.
#[test]
fn no_permission() {
    let _turn = turn::together();
    if !has_tool("setpriv") {
        return skip("stacks_now::no_permission", "no setpriv");
    }
    let (subject, _) = waiting();
    let pid = subject.pid().to_string();
    let fewer = ["setpriv", "--bounding-set=-bpf,-perfmon,-sys_admin,-sys_ptrace"];
    for options in [&[][..], &["--freeze"]] {
        let outcome = Memtrace::started_by(&fewer).arg("stacks").arg(&pid).args(options).run();
        assert_eq!((outcome.code(), outcome.stdout.as_str()), (Some(2), ""), "{options:?}");
        assert!(outcome.stderr.contains("\nhint: "), "{options:?}: {}", outcome.stderr);
    }
    assert!(subject.leave().success());
}
