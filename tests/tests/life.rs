//! What happens to targets and to memtrace itself: ends, kills, forks, executions, stops.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use memtrace_tests::{
    bpftrace::SYSCALLS, fixtures::built, host::Host, maps::accessible_bytes, memtrace::Memtrace,
    report::Report, said::Said, subject::Subject, turn,
};

const MIB: u64 = 1 << 20;

/// Bytes that the innermost function `map` of fixture programs obtained in process or thread `tid`.
fn blocks(report: &Report, tid: u32, size: u64) -> u64 {
    let stacks = report.stacks("mapped");
    let mine = stacks.iter().filter(|stack| stack.tid == tid && stack.value % size == 0);
    mine.filter(|stack| stack.frames.iter().any(|frame| frame == "main")).map(|s| s.value).sum()
}

/// A launched command's exit status is passed on, and the report is written however it ended.
#[test]
fn exit_status() {
    let _turn = turn::together();
    // (how the command ends, its number, memtrace's exit status)
    let cases = [
        ("code", "0", 0),
        ("code", "7", 7),
        ("code", "255", 255),
        ("signal", "9", 137),
        ("signal", "15", 143),
        ("signal", "11", 139),
    ];
    for (how, n, code) in cases {
        let outcome = Memtrace::with_json().command(built("exits"), &[how, n]).run();
        assert_eq!(outcome.code(), Some(code), "{how} {n}: {}", outcome.stderr);
        let report = outcome.report_anyhow();
        report.stack_of_size(MIB);
        assert!(report.lost().is_empty(), "{how} {n} {:?}", report.lost());
    }
}

/// When the command cannot be started the status is `env`'s.
#[test]
fn command_that_cannot_start() {
    let _turn = turn::together();
    let folder = tempfile::TempDir::new().unwrap();
    let not_executable = folder.path().join("text");
    fs::write(&not_executable, "no program\n").unwrap();
    // (command, memtrace's exit status)
    let cases = [
        ("/no/such/program".to_owned(), 127),
        ("no-such-program-on-the-path".to_owned(), 127),
        (not_executable.display().to_string(), 126),
    ];
    for (command, code) in cases {
        let outcome = Memtrace::new().command(&command, &[]).run();
        assert_eq!(outcome.code(), Some(code), "{command}: {}", outcome.stderr);
        assert_one_line(&outcome.stderr, &command);
    }
}

/// One line says what failed, with `part` in it.
fn assert_one_line(stderr: &str, part: &str) {
    let is_error = |line: &&str| line.starts_with("memtrace: ") && !line.contains(": tracing ");
    let lines: Vec<&str> = stderr.lines().filter(is_error).collect();
    assert_eq!(lines.len(), 1, "{stderr}");
    assert!(lines[0].contains(part), "{stderr}");
}

/// A target that ends, or is killed, ends the trace in order.
#[test]
fn target_ends() {
    let _turn = turn::together();
    let mut subject = Subject::ready(&built("vanish"), &["20"]);
    let pid = subject.pid();
    let tracing = Memtrace::of_process(pid).attached();
    subject.begin();
    assert!(subject.wait().success());
    let report = tracing.end().report();
    assert_eq!((report.events("mmap"), report.thread(pid).mapped), (20, 20 * MIB));

    let mut subject = Subject::ready(&built("vanish"), &[]);
    let tracing = Memtrace::of_process(subject.pid()).attached();
    subject.begin();
    sleep(Duration::from_millis(300));
    subject.signal(libc::SIGKILL);
    assert_eq!(subject.wait().signal(), Some(libc::SIGKILL));
    let report = tracing.end().report();
    let (mapped, unmapped) = (report.events("mmap"), report.events("munmap"));
    assert!(mapped > 100, "{mapped}");
    let lost: u64 = report.lost().values().sum();
    assert!(lost > 0 || mapped - unmapped <= 1, "{mapped} {unmapped}");
}

/// A target that executes another program is watched on; what its old image held is given back, whichever thread did it.
#[test]
fn target_executes() {
    let _turn = turn::together();
    for how in ["exec", "thread-exec"] {
        let mut subject = Subject::ready(&built("forks"), &[how]);
        let pid = subject.pid();
        let tracing = Memtrace::of_process(pid).attached();
        subject.begin();
        subject.hear_until("ready");
        let said = subject.finish();
        let report = tracing.stop().report();
        assert!(subject.leave().success());
        // What was mapped by the function that both images map with, in all and by the thread that executed.
        let executer = said.number("executer") as u32;
        let by = |metric, is_of: &dyn Fn(u32) -> bool| {
            let mut stacks = report.stacks(metric);
            stacks.retain(|stack| stack.frames.ends_with(&["map".into(), "mmap".into()]));
            stacks.iter().filter(|stack| is_of(stack.tid)).map(|stack| stack.value).sum::<u64>()
        };
        let all = |metric| by(metric, &|_| true);
        let first = |metric| by(metric, &|tid| tid == pid);
        assert_eq!(executer == pid, how == "exec");
        assert_eq!((all("mapped"), all("mapped-live")), (4 * MIB, 3 * MIB), "{how}");
        // The new image's only thread has the process's id, whoever executed it.
        let of_first = if how == "exec" { 4 * MIB } else { 3 * MIB };
        assert_eq!((first("mapped"), first("mapped-live")), (of_first, 3 * MIB), "{how}");
        assert_eq!(report.stacks_that_are("broken"), 0, "{how}");
        assert!(report.lost().is_empty(), "{how}: {:?}", report.lost());
    }
}

/// The children of a launched command are followed, those of an attached process if asked for.
#[test]
fn children() {
    let _turn = turn::together();
    // (attached, options, whether children are seen)
    let cases: [(bool, &[&str], bool); 3] =
        [(false, &[], true), (true, &[], false), (true, &["--follow"], true)];
    for (attached, options, follows) in cases {
        let (said, report) = if attached {
            let watched = memtrace_tests::watch::watch("forks", &["children", "4"], options);
            (watched.said, watched.report)
        } else {
            let outcome = Memtrace::with_json().command(built("forks"), &["children", "4"]).run();
            (outcome.stdout.lines().collect(), outcome.report())
        };
        let processes = said.numbers_of("process", "mapped");
        assert_eq!(processes.len(), 5);
        for (pid, mapped) in processes {
            let is_child = mapped == 2 * MIB;
            let expected = if is_child && !follows { 0 } else { mapped };
            assert_eq!(blocks(&report, pid, mapped), expected, "{attached} {options:?} {pid}");
        }
    }
}

/// A child that was vforked and executes is another process: its memory is not its parent's.
#[test]
fn vforked_child() {
    let _turn = turn::together();
    let watched = memtrace_tests::watch::watch("forks", &["vfork"], &["--follow"]);
    let report = &watched.report;
    let leaf = report.stack_of_size(3 * MIB);
    assert_ne!(leaf.tid, watched.pid);
    let names: Vec<u32> = report.threads().iter().map(|thread| thread.tid).collect();
    assert!(names.contains(&leaf.tid), "{names:?}");
}

/// A process whose first thread has ended is alive as long as another thread is.
#[test]
fn first_thread_has_ended() {
    let _turn = turn::together();
    let mut subject = Subject::ready(&built("leaderless"), &[]);
    let tracing = Memtrace::of_process(subject.pid()).attached();
    // Longer than memtrace needs to look whether its targets still live.
    sleep(Duration::from_millis(1500));
    let said = subject.finish();
    let report = tracing.stop().report();
    assert!(subject.leave().success());
    let thread = report.thread(said.number("tid") as u32);
    assert_eq!((report.events("mmap"), thread.mapped), (5, said.number("mapped")));
    assert_eq!(report.stack_of(said.number("mapped"), 5).quality, "complete");
    let value = report.value();
    assert!(value["target"]["command"].to_string().contains("leaderless"), "{value}");
    assert!(value["target"]["allocator"].to_string().contains("glibc"), "{value}");
    assert!(value["trace"]["before_bytes"].as_u64().unwrap() > MIB, "{value}");
    assert!(!value["rss"].as_array().unwrap().is_empty(), "{value}");
}

/// What a process maps while memtrace attaches is counted once, as mapped before or as an event.
#[test]
fn growing_while_attached_to() {
    let _turn = turn::together();
    for how in ["map", "mix", "brk"].repeat(3) {
        let mut command = Command::new(built("growing"));
        let mut subject = Subject::start(command.arg(how));
        let tracing = Memtrace::of_process(subject.pid()).attached();
        subject.finish();
        let report = tracing.stop().report();
        let accessible = accessible_bytes(subject.pid());
        assert!(subject.leave().success());
        let number = |name: &str| report.value()["trace"][name].as_u64().unwrap();
        let (before, back) = (number("before_bytes"), number("before_given_back_bytes"));
        let sum = |metric| report.stacks(metric).iter().map(|stack| stack.value).sum::<u64>();
        assert!(report.lost().is_empty(), "{how}: {:?}", report.lost());
        assert_eq!(before - back + sum("mapped-live"), accessible, "{how}: {before} {back}");
        if how != "mix" {
            assert_eq!((before + sum("mapped"), back), (accessible, 0), "{how}: {before}");
            assert!(sum("mapped") > 0, "{how}");
        }
    }
}

/// The break of a process that has no heap yet is known before it moves.
#[test]
fn first_heap() {
    let _turn = turn::together();
    let watched = memtrace_tests::watch::watch("first_brk", &[], &[]);
    let thread = watched.report.thread(watched.pid);
    let said = |key| watched.said.number(key);
    assert_eq!((thread.mapped, thread.live), (said("mapped"), said("live")));
}

/// What a child had mapped is given back at its end; what the process that was asked for holds stays its answer.
#[test]
fn children_that_end() {
    let _turn = turn::together();
    let outcome = Memtrace::with_json().command(built("forks"), &["children", "4"]).run();
    let report = outcome.report();
    let said: Said = outcome.stdout.lines().collect();
    for (pid, mapped) in said.numbers_of("process", "mapped") {
        let (thread, is_child) = (report.thread(pid), mapped == 2 * MIB);
        assert!(thread.mapped >= mapped, "{thread:?}");
        assert!(if is_child { thread.live == 0 } else { thread.live >= mapped }, "{thread:?}");
    }
}

/// A JVM that does not answer at the end makes memtrace lose nothing meanwhile.
#[test]
fn silent_at_the_end() {
    let _turn = turn::together();
    let folder = tempfile::TempDir::new().unwrap();
    let library = folder.path().join("libjvm.so");
    let mut subject = Subject::ready(&built("silent_jvm"), &[library.to_str().unwrap()]);
    let tracing = Memtrace::of_process(subject.pid()).args(["--jstack", "attach"]).attached();
    subject.begin();
    sleep(Duration::from_secs(1));
    let report = tracing.stop().report();
    assert!(report.events("mmap") > 100, "{}", report.events("mmap"));
    assert!(report.lost().is_empty(), "{:?}", report.lost());
    let notes = report.value()["notes"].to_string();
    assert!(notes.contains("thread names are not from a thread dump"), "{notes}");
    subject.signal(libc::SIGKILL);
    subject.wait();
}

/// A stopped target can be attached to and left, stays stopped, and goes on as if nothing had been.
#[test]
fn stopped_target() {
    let _turn = turn::together();
    let mut subject = Subject::ready(&built("map_ops"), &[]);
    subject.signal(libc::SIGSTOP);
    let outcome = Memtrace::of_process(subject.pid()).attached().stop();
    assert_eq!(outcome.code(), Some(0), "{}", outcome.stderr);
    let state = fs::read_to_string(format!("/proc/{}/stat", subject.pid())).unwrap();
    assert!(state.contains(") T "), "{state}");
    subject.signal(libc::SIGCONT);
    subject.finish();
    assert!(subject.leave().success());
}

/// Killed with SIGKILL, memtrace leaves nothing attached, a target that goes on, and a readable trace.
#[test]
fn memtrace_killed() {
    let _turn = turn::alone();
    let before = Host::now();
    let mut subject = Subject::ready(&built("storm"), &["2", "4"]);
    let tracing = Memtrace::of_process(subject.pid()).recorded().attached();
    subject.begin();
    sleep(Duration::from_millis(2500));
    tracing.signal(libc::SIGKILL);
    let outcome = tracing.end();
    assert_eq!(outcome.status.signal(), Some(libc::SIGKILL));
    before.assert_nothing_left();
    subject.done();
    assert!(subject.leave().success());

    let replayed = Memtrace::report_of(&outcome.file("trace.mt")).run();
    assert_eq!(replayed.code(), Some(3), "{}", replayed.stderr);
    assert_one_line(&replayed.stderr, "trace.mt");
    let report = replayed.report_anyhow();
    assert!(report.events("mmap") > 1000, "{}", report.events("mmap"));
    // At most the last second is missing.
    let seconds = report.value()["trace"]["seconds"].as_f64().unwrap();
    assert!(seconds > 1.3, "{seconds}");
}

/// Two memtraces on one target see the same.
#[test]
fn two_at_once() {
    let _turn = turn::together();
    let mut subject = Subject::ready(&built("map_ops"), &[]);
    let first = Memtrace::of_process(subject.pid()).attached();
    let second = Memtrace::of_process(subject.pid()).attached();
    let said = subject.finish();
    for report in [second.stop().report(), first.stop().report()] {
        for call in SYSCALLS {
            assert_eq!(report.events(call), said.number(call), "{call}");
        }
        assert!(report.lost().is_empty(), "{:?}", report.lost());
    }
}

/// A run changes nothing on the machine, neither while it traces nor afterwards.
#[test]
fn nothing_left() {
    let _turn = turn::alone();
    let before = Host::now();
    let mut subject = Subject::ready(&built("map_ops"), &[]);
    let tracing = Memtrace::of_process(subject.pid()).attached();
    let during = Host::now();
    assert_eq!(during.mounts, before.mounts);
    assert!(during.programs.len() > before.programs.len(), "memtrace loaded no program");
    subject.finish();
    tracing.stop().report();
    before.assert_nothing_left();
}

/// `--duration` ends the trace, and the target goes on.
#[test]
fn duration() {
    let _turn = turn::together();
    let mut subject = Subject::ready(&built("map_ops"), &[]);
    let start = Instant::now();
    let outcome = Memtrace::of_process(subject.pid()).args(["--duration", "1s"]).run();
    let report = outcome.report();
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
    let seconds = report.value()["trace"]["seconds"].as_f64().unwrap();
    assert!((0.9..3.0).contains(&seconds), "{seconds}");
    subject.finish();
    assert!(subject.leave().success());
}

/// A terminal that goes away ends the trace in order, but not under `nohup`.
#[test]
fn terminal_goes_away() {
    let _turn = turn::together();
    // (memtrace's starter, whether it traces on)
    let cases: [(&[&str], bool); 2] = [(&[], false), (&["nohup"], true)];
    for (starter, goes_on) in cases {
        let mut subject = Subject::ready(&built("map_ops"), &[]);
        let tracing = Memtrace::started_by(starter)
            .args(["--pid", &subject.pid().to_string()])
            .file("--json", "report.json")
            .attached();
        tracing.signal(libc::SIGHUP);
        let (said, outcome) = if goes_on {
            (subject.finish(), tracing.stop())
        } else {
            let outcome = tracing.end();
            (subject.finish(), outcome)
        };
        assert!(subject.leave().success());
        let expected = if goes_on { said.number("mmap") } else { 0 };
        assert_eq!(outcome.report().events("mmap"), expected, "{starter:?}");
        assert!(outcome.stdout.contains("Recorded"), "{starter:?}: {}", outcome.stdout);
    }
}

/// SIGUSR1 writes a report of the moment to stderr, and the trace goes on.
#[test]
fn report_of_the_moment() {
    let _turn = turn::together();
    let mut subject = Subject::ready(&built("threads"), &[]);
    let tracing = Memtrace::of_process(subject.pid()).attached();
    let said = subject.finish();
    tracing.signal(libc::SIGUSR1);
    // The thread that obtained most is in it for certain.
    tracing.await_part("late-3");
    assert_eq!(said.texts_of("thread", "name").len(), 4);
    let outcome = tracing.stop();
    assert_eq!(outcome.report().events("mmap"), 14);
}
