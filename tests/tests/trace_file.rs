//! The trace file: it gives the same report again, in every form, and is read as far as it is whole.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap, fs, io, os::unix::fs::PermissionsExt, path::Path, process::Command,
    thread::sleep, time::Duration,
};

use memtrace_tests::{
    fixtures::built,
    memtrace::{Memtrace, Outcome, program},
    subject::Subject,
    turn,
    watch::{Watched, watch},
};
use serde_json::Value;

/// The report of a recorded trace, in a process without any right.
fn replay(trace: &Path, options: &[&str]) -> Outcome {
    Memtrace::of_nobody().arg("report").arg(trace).args(options).run()
}

/// The trace of a run, where everyone can read it.
fn readable_trace(watched: &Watched) -> std::path::PathBuf {
    let trace = watched.outcome.file("trace.mt");
    let folder = trace.parent().unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&trace, fs::Permissions::from_mode(0o644)).unwrap();
    trace
}

/// What a report says, without what memtrace itself cost.
fn comparable(json: &str) -> Value {
    let mut value: Value = serde_json::from_str(json).unwrap();
    value.as_object_mut().unwrap().remove("self");
    value
}

/// `memtrace report FILE` says the same as the run that recorded it, without root and without the process.
#[test]
fn replayed() {
    let _turn = turn::together();
    for fixture in ["map_ops", "threads", "names"] {
        let options = ["--folded", "-", "--metric", "mapped-live"];
        let watched = watch(fixture, &[], &options);
        let trace = readable_trace(&watched);
        let json = replay(&trace, &["--json", "-"]);
        assert_eq!(json.code(), Some(0), "{fixture}: {}", json.stderr);
        let live = comparable(&watched.outcome.written("report.json"));
        assert_eq!(comparable(&json.stdout), live, "{fixture}");
        let folded = replay(&trace, &options);
        assert_eq!(folded.stdout, watched.outcome.stdout, "{fixture}");
    }
}

/// The screen at the end names threads, sizes and losses, and is the same when replayed.
#[test]
fn end_screen() {
    let _turn = turn::together();
    let watched = watch("threads", &[], &[]);
    let screen = &watched.outcome.stdout;
    for name in watched.said.texts_of("thread", "name").values() {
        assert!(screen.contains(name), "{name}:\n{screen}");
    }
    assert!(screen.to_lowercase().contains("lost"), "{screen}");
    assert!(!screen.contains('\x1b'), "colour without a terminal: {screen:?}");
    let again = replay(&readable_trace(&watched), &[]);
    assert_eq!(again.stdout, *screen);
    assert!(
        replay(&watched.outcome.file("trace.mt"), &["--color", "always"]).stdout.contains('\x1b')
    );
}

/// Folded stacks: thread first, outermost frame next, whole numbers, and in sum what the JSON says.
#[test]
fn folded() {
    let _turn = turn::together();
    let watched = watch("threads", &[], &["--folded", "-"]);
    let trace = readable_trace(&watched);
    for metric in ["mapped", "mapped-live"] {
        let folded = replay(&trace, &["--folded", "-", "--metric", metric]).stdout;
        let mut by_line = BTreeMap::new();
        for line in folded.lines() {
            let (stack, value) = line.rsplit_once(' ').unwrap();
            by_line.insert(stack.to_owned(), value.parse::<u64>().unwrap());
        }
        let mut expected = BTreeMap::new();
        for stack in watched.report.stacks(metric).iter().filter(|stack| stack.value > 0) {
            let name = watched.report.thread(stack.tid).name;
            let line = format!("[{name} tid={}];{}", stack.tid, stack.frames.join(";"));
            expected.insert(line, stack.value);
        }
        assert_eq!(by_line, expected, "{metric}");
    }
}

/// The flame graph is an SVG that names its metric and lets no thread name through as markup.
#[test]
fn flame_graph() {
    let _turn = turn::together();
    let watched = watch("names", &[], &[]);
    let trace = readable_trace(&watched);
    let svg = replay(&trace, &["--flamegraph", "-"]).stdout;
    assert!(svg.starts_with("<?xml"), "{svg:.100}");
    assert!(svg.trim_end().ends_with("</svg>"));
    assert!(svg.contains("mapped"));
    assert!(svg.contains("map_pages") || svg.contains("work"), "no frame of the fixture");
    assert!(!svg.contains("<b>"), "a thread name got through as markup");
    assert!(!svg.chars().any(|c| c.is_control() && c != '\n' && c != '\t'));
}

/// A trace at its size limit stops recording, says so, and can be read.
#[test]
fn size_limit() {
    let _turn = turn::together();
    let mut subject = Subject::ready(&built("storm"), &["2", "2"]);
    let memtrace = Memtrace::of_process(subject.pid()).recorded().args(["--max-size", "64K"]);
    let tracing = memtrace.attached();
    subject.finish();
    let outcome = tracing.stop();
    assert_eq!(outcome.code(), Some(0), "{}", outcome.stderr);
    let notes = outcome.report().value()["notes"].to_string();
    assert!(notes.contains("reached its largest size"), "{notes}");
    let trace = outcome.file("trace.mt");
    assert!(fs::metadata(&trace).unwrap().len() <= 64 << 10);
    let replayed = Memtrace::report_of(&trace).run();
    assert!(replayed.report_anyhow().events("mmap") < outcome.report().events("mmap"));
}

/// A disk that becomes full is said, and the trace ends in order: the other outputs are written.
#[test]
fn disk_full() {
    let _turn = turn::alone();
    let disk = tempfile::TempDir::new().unwrap();
    let disk = disk.path().to_str().unwrap();
    let mut subject = Subject::ready(&built("storm"), &["2", "3"]);
    let tracing = Memtrace::with_mounts("mount -t tmpfs -o size=64k small \"$1\"", disk)
        .args(["--pid", &subject.pid().to_string(), "--output", &format!("{disk}/trace.mt")])
        .file("--json", "report.json")
        .attached();
    let said = subject.finish();
    let outcome = tracing.end();
    assert!(subject.leave().success());
    assert_eq!(outcome.code(), Some(2), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("No space left on device"), "{}", outcome.stderr);
    let recorded = outcome.report_anyhow().events("mmap");
    assert!(recorded > 0 && recorded <= said.number("mmap"), "{recorded}");
}

/// A disk that becomes full in the last second is said in one line, and the trace is good up to there.
#[test]
fn disk_full_at_the_end() {
    let _turn = turn::alone();
    let disk = tempfile::TempDir::new().unwrap();
    let disk = disk.path().to_str().unwrap();
    let mut subject = Subject::ready(&built("storm"), &["2", "5"]);
    let tracing = Memtrace::with_mounts("mount -t tmpfs -o size=64m small \"$1\"", disk)
        .args(["--pid", &subject.pid().to_string(), "--output", &format!("{disk}/trace.mt")])
        .file("--json", "report.json")
        .attached();
    // The disk is memtrace's alone, and lasts as long as a file of it is open.
    let seen_here = format!("/proc/{}/root{disk}", tracing.pid());
    let mut trace = fs::File::open(format!("{seen_here}/trace.mt")).unwrap();
    subject.begin();
    let recorded = || trace.metadata().unwrap().len();
    let before = recorded();
    while recorded() < before + (64 << 10) {
        sleep(Duration::from_millis(5));
    }
    let filler = fs::File::create(format!("{seen_here}/filler")).unwrap();
    let full = io::copy(&mut io::repeat(0), &mut &filler).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    let outcome = tracing.stop();
    subject.done();
    assert!(subject.leave().success());

    assert_eq!(outcome.code(), Some(2), "{}", outcome.stderr);
    let told = outcome.stderr.lines().filter(|line| line.contains("No space left on device"));
    assert_eq!(told.count(), 1, "{}", outcome.stderr);
    let copy = outcome.file("copy.mt");
    io::copy(&mut trace, &mut fs::File::create(&copy).unwrap()).unwrap();
    let replayed = Memtrace::report_of(&copy).run();
    assert_eq!(replayed.code(), Some(3), "{}", replayed.stderr);
    let n_replayed = replayed.report_anyhow().events("mmap");
    let n_seen = outcome.report_anyhow().events("mmap");
    assert!(n_replayed > 0 && n_replayed < n_seen, "{n_replayed} of {n_seen}");
}

/// A trace that is cut anywhere is read up to the cut, and that is said.
#[test]
fn cut_anywhere() {
    let _turn = turn::together();
    let watched = watch("map_ops", &[], &[]);
    let whole = fs::read(watched.outcome.file("trace.mt")).unwrap();
    let folder = tempfile::TempDir::new().unwrap();
    let cut = folder.path().join("cut.mt");
    let n = whole.len();
    for length in [13, 20, 21, n / 4, n / 2, n - n / 4, n - 9, n - 1] {
        fs::write(&cut, &whole[..length]).unwrap();
        let outcome = Memtrace::report_of(&cut).run();
        assert_eq!(outcome.code(), Some(3), "{length} of {n}: {}", outcome.stderr);
        let lines: Vec<&str> = outcome.stderr.lines().collect();
        assert!(lines[0].starts_with("memtrace: "), "{length} of {n}: {lines:?}");
        outcome.report_anyhow();
    }
}

/// A damaged trace is no reason to panic: each byte is changed in turn.
#[test]
fn damaged_anywhere() {
    let _turn = turn::together();
    let watched = watch("exits", &["code", "0"], &[]);
    let whole = fs::read(watched.outcome.file("trace.mt")).unwrap();
    let folder = tempfile::TempDir::new().unwrap();
    let damaged = folder.path().join("damaged.mt");
    let step = (whole.len() / 64).max(1);
    for at in (0..whole.len()).step_by(step) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        fs::write(&damaged, &bytes).unwrap();
        let outcome = Memtrace::new().arg("report").arg(&damaged).run();
        // In the first eight bytes it is a foreign file, in the next four a newer one.
        let code = if at < 12 { 2 } else { 3 };
        assert_eq!(outcome.code(), Some(code), "byte {at}: {}", outcome.stderr);
    }
}

/// A file that is no trace, or of a newer format, is refused with one line.
#[test]
fn foreign_files() {
    let _turn = turn::together();
    let folder = tempfile::TempDir::new().unwrap();
    let newer = [b"memtrace".as_slice(), &99_u32.to_le_bytes(), &[0; 100]].concat();
    // (contents, a part of what is said)
    let cases: [(&[u8], &str); 5] = [
        (b"", "not a memtrace trace"),
        (b"\x7fELF and so on", "not a memtrace trace"),
        (b"memtra", "not a memtrace trace"),
        (&newer, "format 99"),
        (b"PK\x03\x04 a jar", "not a memtrace trace"),
    ];
    for (contents, part) in cases {
        let path = folder.path().join("file");
        fs::write(&path, contents).unwrap();
        let outcome = Memtrace::new().arg("report").arg(&path).run();
        assert_eq!(outcome.code(), Some(2), "{contents:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(part), "{contents:?}: {}", outcome.stderr);
        assert_eq!(outcome.stderr.lines().filter(|line| line.starts_with("memtrace: ")).count(), 1);
    }
    let outcome = Memtrace::new().args(["report", "/no/such/trace.mt"]).run();
    assert_eq!(outcome.code(), Some(2));
    assert!(outcome.stderr.contains("/no/such/trace.mt"), "{}", outcome.stderr);
}

/// `--output -` is stdout, and a trace comes back from stdin; no file has that name.
#[test]
fn trace_through_a_pipe() {
    let _turn = turn::together();
    let folder = tempfile::TempDir::new().unwrap();
    let subject = Subject::ready(&built("map_ops"), &[]);
    let script =
        "set -o pipefail; \"$1\" --output - --json live.json --pid \"$2\" -d 300ms 2>said |
        \"$1\" report - --json read.json";
    let mut shell = Command::new("bash");
    shell.current_dir(folder.path()).args(["-c", script, "bash"]);
    let output = shell.arg(program()).arg(subject.pid().to_string()).output().unwrap();
    let said = fs::read_to_string(folder.path().join("said")).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}{output:?}");
    let written = |name| comparable(&fs::read_to_string(folder.path().join(name)).unwrap());
    assert_eq!(written("read.json"), written("live.json"));
    assert!(said.contains("Recorded") && !said.contains("memtrace report -"), "{said}");
    assert!(!folder.path().join("-").exists());
}
