//! What memtrace writes: files, streams, exit statuses, and the trace that gives the same report again.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, symlink},
        process::CommandExt,
    },
    path::Path,
    process::Command,
};

use memtrace_tests::{
    fixtures::built,
    memtrace::{Memtrace, Outcome, program},
    subject::Subject,
    turn,
    watch::{Watched, watch},
};
use serde_json::Value;

const NOBODY: u32 = 65534;

/// The report of a recorded trace, in a process without any right.
fn replay(trace: &Path, options: &[&str]) -> Outcome {
    let mut memtrace = Memtrace::new().arg("report").arg(trace).args(options);
    memtrace.raw().uid(NOBODY).gid(NOBODY);
    memtrace.run()
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

/// Only one output may be stdout.
#[test]
fn one_stdout() {
    let _turn = turn::together();
    let subject = Subject::ready(&built("map_ops"), &[]);
    let pid = subject.pid().to_string();
    let outcome = Memtrace::new().args(["--json", "-", "--folded", "-", "--pid", &pid]).run();
    assert_eq!(outcome.code(), Some(2), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("only one output can be `-`"), "{}", outcome.stderr);
    assert_eq!(outcome.stdout, "");
}

/// An output that cannot be written is refused before anything is traced or started.
#[test]
fn unwritable_output() {
    let _turn = turn::together();
    let folder = tempfile::TempDir::new().unwrap();
    for option in ["--json", "--folded", "--flamegraph", "--output"] {
        let witness = folder.path().join("started");
        let outcome = Memtrace::new()
            .args([option, "/no/such/folder/file"])
            .command("touch", &[witness.to_str().unwrap()])
            .run();
        assert_eq!(outcome.code(), Some(125), "{option}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("/no/such/folder/file"), "{option}: {}", outcome.stderr);
        assert!(!witness.exists(), "{option}: the command was started");
    }
}

/// An old trace is lost only to a new one: not where tracing could not begin.
#[test]
fn old_trace_stays() {
    let _turn = turn::together();
    let folder = tempfile::TempDir::new().unwrap();
    let trace = folder.path().join("trace.mt");
    std::fs::write(&trace, "an old trace").unwrap();
    let outcome =
        Memtrace::started_by(&["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"])
            .args(["--output", trace.to_str().unwrap()])
            .command("true", &[])
            .run();
    assert_ne!(outcome.code(), Some(0), "{}", outcome.stderr);
    assert_eq!(std::fs::read(&trace).unwrap(), b"an old trace");
    let outcome = Memtrace::new().args(["-o", trace.to_str().unwrap()]).command("true", &[]).run();
    assert_eq!(outcome.code(), Some(0), "{}", outcome.stderr);
    let outcome = Memtrace::new().args(["report", trace.to_str().unwrap()]).run();
    assert_eq!(outcome.code(), Some(0), "{}", outcome.stderr);
}

/// A file that is mounted where it is (as `docker -v` has it) can't be replaced, and is written all the same.
#[test]
fn mounted_output() {
    let _turn = turn::together();
    let folder = tempfile::TempDir::new().unwrap();
    let json = folder.path().join("report.json");
    std::fs::write(&json, "x".repeat(1 << 20)).unwrap();
    let path = json.to_str().unwrap();
    let script = "mount --bind \"$1\" \"$1\" && shift && exec \"$@\"";
    let outcome = Memtrace::started_by(&["unshare", "--mount", "sh", "-c", script, "sh", path])
        .args(["--json", path])
        .command("true", &[])
        .run();
    assert_eq!(outcome.code(), Some(0), "{}", outcome.stderr);
    let text = std::fs::read_to_string(&json).unwrap();
    assert!(text.starts_with('{') && text.trim_end().ends_with('}'), "{}", text.len());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "something was left behind");
}

/// A disk that becomes full is said, and the trace ends in order: the other outputs are written.
#[test]
fn disk_full() {
    let _turn = turn::alone();
    let disk = tempfile::TempDir::new().unwrap();
    let disk = disk.path().to_str().unwrap();
    let script = "mount -t tmpfs -o size=64k small \"$1\" && shift && exec \"$@\"";
    let mut subject = Subject::ready(&built("storm"), &["2", "3"]);
    let tracing = Memtrace::started_by(&["unshare", "--mount", "sh", "-c", script, "sh", disk])
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

/// What is written belongs to the user who called sudo, and nobody else can read it.
#[test]
fn owner_of_files() {
    let _turn = turn::together();
    let mut subject = Subject::ready(&built("map_ops"), &[]);
    let mut memtrace = Memtrace::of_process(subject.pid())
        .recorded()
        .file("--folded", "folded")
        .file("--flamegraph", "graph.svg");
    let user = NOBODY.to_string();
    memtrace.raw().env("SUDO_UID", &user).env("SUDO_GID", &user).env("SUDO_USER", "nobody");
    let tracing = memtrace.attached();
    subject.finish();
    let outcome = tracing.stop();
    for name in ["report.json", "trace.mt", "folded", "graph.svg"] {
        let file = fs::metadata(outcome.file(name)).unwrap();
        assert_eq!(
            (file.uid(), file.gid(), file.mode() & 0o777),
            (NOBODY, NOBODY, 0o600),
            "{name}"
        );
    }
}

/// A command that is launched under sudo runs as the user who called sudo, or as `--user` says.
#[test]
fn user_of_the_command() {
    let _turn = turn::together();
    // (options, the user id that the command has)
    let cases: [(&[&str], u32); 2] = [(&[], NOBODY), (&["--user", "root"], 0)];
    for (options, uid) in cases {
        let mut memtrace = Memtrace::with_json().args(options).command("id", &["-u"]);
        let user = NOBODY.to_string();
        memtrace.raw().env("SUDO_UID", &user).env("SUDO_GID", &user).env("SUDO_USER", "nobody");
        let outcome = memtrace.run();
        assert_eq!(outcome.code(), Some(0), "{}", outcome.stderr);
        assert_eq!(outcome.stdout.lines().next(), Some(uid.to_string().as_str()), "{options:?}");
        let name = if uid == 0 { "root" } else { "nobody" };
        assert!(outcome.stderr.contains(name), "{options:?}: {}", outcome.stderr);
    }
}

/// A reader that goes away is no error.
#[test]
fn broken_pipe() {
    let _turn = turn::together();
    let watched = watch("threads", &[], &[]);
    let trace = watched.outcome.file("trace.mt");
    let script = "set -o pipefail; \"$1\" report --quiet \"$2\" --flamegraph - | true";
    let mut shell = Command::new("bash");
    let output = shell.args(["-c", script, "bash"]).arg(program()).arg(&trace).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), said.as_ref()), (Some(0), ""));
}

/// With `--quiet` nothing is said when nothing is wrong.
#[test]
fn quiet() {
    let _turn = turn::together();
    let outcome = Memtrace::with_json().arg("--quiet").command(built("stack_deep"), &[]).run();
    assert_eq!((outcome.code(), outcome.stderr.as_str()), (Some(0), ""));
}

/// No output takes the place of another or of the trace that is read, however it is spelled; nothing was begun then.
#[test]
fn same_file() {
    let _turn = turn::together();
    let watched = watch("exits", &["code", "0"], &[]);
    let folder = tempfile::TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let trace = at("trace.mt");
    fs::copy(watched.outcome.file("trace.mt"), &trace).unwrap();
    fs::hard_link(&trace, at("hard")).unwrap();
    symlink("trace.mt", at("soft")).unwrap();
    let whole = fs::read(&trace).unwrap();
    let (new, newer) = (at("new"), at("./new"));
    let cases: [&[&str]; 7] = [
        &["report", &trace, "--json", &trace],
        &["report", &trace, "--folded", &at("./trace.mt")],
        &["report", &trace, "--flamegraph", &at("hard")],
        &["report", &at("soft"), "--json", &trace],
        &["report", &trace, "--json", &new, "--folded", &newer],
        &["report", &trace, "--jstack", &new, "--folded", &newer],
        &["--output", &new, "--json", &newer, "--", "touch", &new],
    ];
    for arguments in cases {
        let outcome = Memtrace::new().args(arguments).run();
        let code = if arguments[0] == "report" { 2 } else { 125 };
        assert_eq!(outcome.code(), Some(code), "{arguments:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("are the same file"), "{arguments:?}: {}", outcome.stderr);
        let n_lines = outcome.stderr.lines().filter(|line| line.starts_with("memtrace: ")).count();
        assert_eq!(n_lines, 1, "{arguments:?}: {}", outcome.stderr);
        assert_eq!(fs::read(&trace).unwrap(), whole, "{arguments:?}");
        assert!(!Path::new(&new).exists(), "{arguments:?}");
    }
    let null = "/dev/null";
    let both = Memtrace::new().args(["report", &trace, "--json", null, "--folded", null]).run();
    assert_eq!(both.code(), Some(0), "{}", both.stderr);
}

/// A file that is to be written stays what it was when nothing comes of it, and takes its new contents at once.
#[test]
fn whole_files() {
    let _turn = turn::together();
    let watched = watch("exits", &["code", "0"], &[]);
    let folder = tempfile::TempDir::new().unwrap();
    let (foreign, old) = (folder.path().join("foreign"), folder.path().join("old"));
    fs::write(&foreign, "no trace").unwrap();
    fs::write(&old, "old").unwrap();
    fs::set_permissions(&old, fs::Permissions::from_mode(0o640)).unwrap();
    let report = |trace: &Path| {
        Memtrace::new().arg("report").arg(trace).arg("--json").arg(&old).run().code()
    };
    assert_eq!(report(&foreign), Some(2));
    assert_eq!(fs::read_to_string(&old).unwrap(), "old");
    assert_eq!(report(&watched.outcome.file("trace.mt")), Some(0));
    assert!(fs::read_to_string(&old).unwrap().starts_with('{'));
    assert_eq!(fs::metadata(&old).unwrap().mode() & 0o777, 0o640);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "something was left behind");
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

/// A trace on stdout would be mixed up with another output, or with what the command writes.
#[test]
fn trace_to_a_taken_stdout() {
    let _turn = turn::together();
    let subject = Subject::ready(&built("map_ops"), &[]);
    let pid = subject.pid().to_string();
    // (arguments, exit status, a part of what is said)
    let cases: [(&[&str], i32, &str); 2] = [
        (&["--output", "-", "--json", "-", "--pid", &pid], 2, "only one output can be `-`"),
        (&["--output", "-", "--", "true"], 125, "goes with --pid only"),
    ];
    for (arguments, code, part) in cases {
        let outcome = Memtrace::new().args(arguments).run();
        assert_eq!((outcome.code(), outcome.stdout.as_str()), (Some(code), ""), "{arguments:?}");
        assert!(outcome.stderr.contains(part), "{arguments:?}: {}", outcome.stderr);
    }
}
