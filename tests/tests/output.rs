//! Where outputs go: files and streams, whose they are, what they replace, and what is said of them.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    process::Command,
};

use memtrace_tests::{
    fixtures::built,
    memtrace::{Memtrace, program},
    subject::Subject,
    turn,
    watch::watch,
};

const NOBODY: u32 = 65534;

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

/// An old trace is lost only to a new one: not where tracing could not begin, and not where the command could not.
#[test]
fn old_trace_stays() {
    let _turn = turn::together();
    let folder = tempfile::TempDir::new().unwrap();
    let (trace, text) = (folder.path().join("trace.mt"), folder.path().join("text"));
    fs::write(&trace, "an old trace").unwrap();
    fs::write(&text, "no program\n").unwrap();
    let text = text.to_str().unwrap();
    let powerless: &[&str] = &["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"];
    // Larger than a block of the trace file, and no larger than the arguments of a command may be.
    let long = vec!["x".repeat(100_000); 15];
    let long: Vec<&str> = long.iter().map(String::as_str).collect();
    // (memtrace's starter, command, its arguments, memtrace's exit status)
    let cases: [(&[&str], &str, &[&str], i32); 4] = [
        (powerless, "true", &[], 125),
        (&[], "no-such-command", &[], 127),
        (&[], text, &[], 126),
        (&[], "no-such-command", &long, 127),
    ];
    for (starter, command, arguments, code) in cases {
        let memtrace = Memtrace::started_by(starter).arg("--output").arg(&trace);
        let outcome = memtrace.command(command, arguments).run();
        assert_eq!(outcome.code(), Some(code), "{command}: {}", outcome.stderr);
        assert_eq!(fs::read(&trace).unwrap(), b"an old trace", "{command}");
    }
    let outcome = Memtrace::new().arg("-o").arg(&trace).command("true", &[]).run();
    assert_eq!(outcome.code(), Some(0), "{}", outcome.stderr);
    let outcome = Memtrace::new().arg("report").arg(&trace).run();
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
    let outcome = Memtrace::with_mounts("mount --bind \"$1\" \"$1\"", path)
        .args(["--json", path])
        .command("true", &[])
        .run();
    assert_eq!(outcome.code(), Some(0), "{}", outcome.stderr);
    let text = std::fs::read_to_string(&json).unwrap();
    assert!(text.starts_with('{') && text.trim_end().ends_with('}'), "{}", text.len());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "something was left behind");
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
