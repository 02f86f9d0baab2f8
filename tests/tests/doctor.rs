//! What `memtrace doctor` says where something is missing, and that tracing is refused for the same reason.

use memtrace_tests::{
    memtrace::{Memtrace, Outcome},
    own_mounts::own_mounts,
    skip::{has_tool, skip},
    turn,
};

/// The line of a check, with the advice below it.
fn check<'a>(outcome: &'a Outcome, begin: &str) -> (&'a str, &'a str) {
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    let at = lines.iter().position(|line| line.starts_with(begin));
    let at = at.unwrap_or_else(|| panic!("`{begin}` is not in:\n{}", outcome.stdout));
    (lines[at], lines[at + 1])
}

/// Where nothing is missing every check of the kernel says so.
#[test]
fn nothing_is_missing() {
    let _turn = turn::together();
    let outcome = Memtrace::new().arg("doctor").run();
    assert_eq!(outcome.code(), Some(0), "{}", outcome.stdout);
    assert!(outcome.stdout.ends_with("\ntracing will work\n"), "{}", outcome.stdout);
    assert!(!outcome.stdout.contains('\x1b'), "colors in a pipe: {}", outcome.stdout);
    check(&outcome, "ok   BPF ");
    check(&outcome, "ok   tracefs ");
}

/// Without rights, without `/sys` and in a pid namespace doctor names what is missing, with what to do about it.
#[test]
fn something_is_missing() {
    let _turn = turn::together();
    if !has_tool("setpriv") || !has_tool("unshare") {
        return skip("doctor::something_is_missing", "no setpriv or unshare");
    }
    let without = |what| Memtrace::started_by(&["setpriv", "--bounding-set", what]);
    let own_proc = "mount -t proc proc /proc && exec \"$@\"";
    let mut own_pids =
        Memtrace::started_by(&["unshare", "--pid", "--fork", "sh", "-c", own_proc, "sh"]);
    own_mounts(own_pids.raw());
    // (memtrace where something is taken away, the check that fails)
    let cases = [
        (without("-bpf,-perfmon,-sys_admin"), "FAIL capabilities "),
        (without("-all"), "FAIL BPF "),
        (Memtrace::with_mounts("mount -t tmpfs none \"$1\"", "/sys"), "FAIL BTF "),
        (own_pids, "FAIL place "),
    ];
    for (memtrace, begin) in cases {
        let outcome = memtrace.arg("doctor").run();
        assert_eq!(outcome.code(), Some(2), "{begin}: {}", outcome.stdout);
        let (_, advice) = check(&outcome, begin);
        assert!(advice.starts_with("     -> "), "{begin}: {}", outcome.stdout);
        assert!(outcome.stdout.contains("tracing will not work"), "{}", outcome.stdout);
    }
}

/// A process that does not exist fails its check, and the kernel's checks are made all the same.
#[test]
fn no_such_process() {
    let _turn = turn::together();
    let outcome = Memtrace::new().args(["doctor", "--pid", "1073741824"]).run();
    assert_eq!(outcome.code(), Some(2), "{}", outcome.stdout);
    check(&outcome, "ok   kernel ");
    let (line, advice) = check(&outcome, "FAIL process ");
    assert!(line.ends_with("failed to find process 1073741824: no such process"), "{line}");
    assert!(advice.starts_with("     -> `pgrep"), "{advice}");
}
