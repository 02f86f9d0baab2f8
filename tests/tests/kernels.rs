//! memtrace on other kernels: tests that are run there as they are here, and what only happens there.
//!
//! `cargo xtask kernels` fetches the kernels, `MEMTRACE_TEST_KERNELS` names their folders. On each one the programs of other
//! tests are run, which are the ones that lie beside this one; `cargo test` has built them all before it runs any.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use memtrace_tests::{
    fixtures::built,
    java::{classes, system_jdk},
    kernel::{Kernel, Ran},
    memtrace::{self, Memtrace},
    skip::{runs_all, skip},
    subject::Subject,
};
use serde_json::Value;

/// The oldest kernel that memtrace traces on among those that are fetched, and the first one that is run without `--all`.
const OLDEST: &str = "6.1";
/// The one that is too old.
const TOO_OLD: &str = "5.10";
/// For everything that is run on one kernel, which is emulated.
const LIMIT: Duration = Duration::from_secs(500);

/// Tests of other files, by file: what depends on the kernel. None of them measures a time.
const EVERYWHERE: [(&str, &[&str]); 6] = [
    ("doctor", &["nothing_is_missing"]),
    ("counts", &["every_call", "guarded_functions", "zlib"]),
    ("malloc_exact", &["one_by_one_and_together"]),
    ("inflaters", &["opened_and_ended"]),
    ("footprint", &["stands_still", "outputs"]),
    ("kernels", &["inside::container_of_version_2"]),
];
/// More of them, for `--all`.
const WITH_ALL: [(&str, &[&str]); 7] = [
    ("counts", &["before", "stacks_add_up", "from_the_first_instruction"]),
    ("life", &["children", "target_executes", "nothing_left"]),
    ("malloc_exact", &["from_the_first_instruction", "each_block"]),
    ("malloc_sampled", &["sums_are_exact", "threads_that_end"]),
    ("stacks_now", &["text_and_folded"]),
    ("threads", &["renamed_and_ended", "java_names_of_the_vm"]),
    ("footprint", &["collectors"]),
];

/// The kernels to test on, but for the one that is too old; none of them is a skip that is said aloud.
fn kernels(test: &str) -> Vec<Kernel> {
    let mut kernels = Kernel::all();
    kernels
        .retain(|kernel| kernel.version() != TOO_OLD && (runs_all() || kernel.version() == OLDEST));
    if kernels.is_empty() {
        skip(test, "no kernel was fetched: `cargo xtask kernels` does");
    }
    kernels
}

/// The program of the tests in file `name`: the newest of those that cargo built.
fn tests_of(name: &str) -> PathBuf {
    let own = env::current_exe().unwrap();
    let is_it = |path: &PathBuf| {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let hash = file.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
        hash.is_some_and(|hash| hash.chars().all(|c| c.is_ascii_hexdigit()))
    };
    let built = fs::read_dir(own.parent().unwrap()).unwrap();
    let programs = built.map(|entry| entry.unwrap().path()).filter(is_it);
    let newest = programs.max_by_key(|path| fs::metadata(path).unwrap().modified().unwrap());
    newest.unwrap_or_else(|| panic!("the tests of {name} are not built"))
}

/// What a test needs is built here: nothing can be written there.
fn build_all() {
    for fixture in ["map_ops", "guarded_zip", "zlib_user", "blocks", "residency", "threads"] {
        built(fixture);
    }
    for fixture in ["reuse", "stack_deep", "stack_deep_static", "forks", "names"] {
        built(fixture);
    }
    for fixture in ["blocks_each", "blocks_crowd", "stack_waits"] {
        built(fixture);
    }
    classes();
}

/// Runs tests on `kernel`, one after the other; all must succeed, and those that were skipped there are skipped here.
fn run_tests(kernel: &Kernel, tests: &[(&str, &[&str])]) {
    let mut script = String::from("failed=0\n");
    for (file, names) in tests {
        let program = tests_of(file);
        let names = names.join(" ");
        script += &format!(
            "{} --exact --include-ignored --test-threads=1 --nocapture {names} || failed=1\n",
            program.display()
        );
    }
    script += "exit $failed\n";
    let ran = run(kernel, Command::new("sh").args(["-c", &script]));
    eprintln!("kernel {kernel}:\n{}", ran.printed);
    assert_eq!(ran.code(), Some(0), "kernel {kernel}: {}{}", ran.printed, ran.console);
    let n_passed: usize = ran.printed.matches(" ... ok\n").count();
    let n_tests: usize = tests.iter().map(|(_, names)| names.len()).sum();
    assert_eq!(n_passed, n_tests, "kernel {kernel}: {}", ran.printed);
    for line in ran.printed.lines().filter_map(|line| line.strip_prefix("skipped ")) {
        let (name, reason) = line.split_once(": ").unwrap();
        skip(&format!("{name} on kernel {kernel}"), reason);
    }
}

/// Runs a command of memtrace's on `kernel`.
fn run(kernel: &Kernel, command: &mut Command) -> Ran {
    command.env("MEMTRACE", memtrace::program());
    if runs_all() {
        command.env("MEMTRACE_TEST_ALL", "1");
    }
    kernel.run(command, LIMIT).unwrap()
}

/// What memtrace counts, names and adds up is the same on every kernel.
#[test]
fn same_everywhere() {
    let kernels = kernels("kernels::same_everywhere");
    build_all();
    for kernel in kernels {
        run_tests(&kernel, &EVERYWHERE);
        if runs_all() {
            run_tests(&kernel, &WITH_ALL);
        }
    }
}

/// A kernel that is too old is named in one line, and doctor says what it lacks.
#[test]
fn too_old() {
    let kernel = Kernel::all().into_iter().find(|kernel| kernel.version() == TOO_OLD);
    let Some(kernel) = kernel.filter(|_| runs_all()) else {
        return skip("kernels::too_old", "kernel 5.10 was not fetched, or --all not asked for");
    };
    let program = memtrace::program();
    let refused = run(&kernel, Command::new(&program).args(["--", "true"]));
    assert_eq!(refused.code(), Some(125), "{refused:?}");
    let lines: Vec<&str> = refused.printed.lines().collect();
    let [error, hint] = lines[..] else { panic!("{}", refused.printed) };
    assert!(error.starts_with("memtrace: failed to load the kernel side: kernel 5.10."), "{error}");
    assert!(error.ends_with(" is older than 5.15"), "{error}");
    assert!(hint.contains("registers of tasks and attach cookies"), "{hint}");
    let doctor = run(&kernel, Command::new(&program).arg("doctor"));
    assert_eq!(doctor.code(), Some(2), "{doctor:?}");
    assert!(doctor.printed.contains("FAIL kernel "), "{}", doctor.printed);
    assert!(doctor.printed.contains("tracing will not work"), "{}", doctor.printed);
}

/// A kernel that may not be changed is traced; one that may not be read says why not.
#[test]
fn locked_down() {
    if !runs_all() {
        return skip("kernels::locked_down", "--all was not asked for");
    }
    let Some(kernel) = kernels("kernels::locked_down").into_iter().next() else { return };
    build_all();
    run_tests(&kernel.clone().with("lockdown=integrity"), &[("counts", &["every_call"])]);
    let kernel = kernel.with("lockdown=confidentiality");
    let refused = run(&kernel, Command::new(memtrace::program()).args(["--", "true"]));
    assert_eq!(refused.code(), Some(125), "{refused:?}");
    assert!(refused.printed.contains("locked down (confidentiality)"), "{}", refused.printed);
}

/// Tests that only make sense on a kernel of their own, whose state they change.
mod inside {
    use super::*;

    const GROUPS: &str = "/sys/fs/cgroup";
    const LIMIT_BYTES: u64 = 512 << 20;

    fn number(path: &Path) -> u64 {
        fs::read_to_string(path).unwrap().trim().parse().unwrap()
    }

    fn stat(group: &Path, name: &str) -> u64 {
        let text = fs::read_to_string(group.join("memory.stat")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap().parse().unwrap()
    }

    /// A JVM in a group of version 2 that lies in another one with a lower limit: limit, charge and parts are the kernel's,
    /// and anonymous memory is the process's own.
    #[test]
    #[ignore = "it needs a kernel of its own: `same_everywhere` runs it there"]
    fn container_of_version_2() {
        let above = Path::new(GROUPS).join("above");
        let group = above.join("group");
        fs::write(Path::new(GROUPS).join("cgroup.subtree_control"), "+memory").unwrap();
        fs::create_dir(&above).unwrap();
        fs::write(above.join("cgroup.subtree_control"), "+memory").unwrap();
        fs::create_dir(&group).unwrap();
        fs::write(above.join("memory.max"), LIMIT_BYTES.to_string()).unwrap();
        fs::write(group.join("memory.max"), (2 * LIMIT_BYTES).to_string()).unwrap();

        // A shell enters the group and becomes the JVM: pages are charged where they are touched first.
        let java = system_jdk().java();
        let script = format!("echo $$ > {}/cgroup.procs; exec \"$@\"", group.display());
        let mut command = Command::new("sh");
        command.args(["-c", &script, "sh"]).arg(java).arg("-Xmx64m");
        command.current_dir(classes()).args(["-cp", ".", "Idle", "--wait"]);
        let subject = Subject::start(&mut command);

        let usage = |group: &Path| (number(&group.join("memory.current")), stat(group, "anon"));
        let before = usage(&group);
        let pid = subject.pid().to_string();
        let json = Memtrace::new().args(["footprint", &pid, "--json", "-"]).run();
        let text = Memtrace::new().args(["footprint", &pid]).run();
        let after = usage(&group);
        assert_eq!((json.code(), text.code()), (Some(0), Some(0)), "{}", json.stderr);
        let document: Value = serde_json::from_str(&json.stdout).unwrap();
        let footprint = &document["footprint"];
        let container = &footprint["container"];
        assert_eq!(container["version"], 2, "{container}");
        assert_eq!(container["limit_bytes"], LIMIT_BYTES, "{container}");
        // What each processor has in stock for the group is charged or not: 64 pages (mm/memcontrol.c, MEMCG_CHARGE_BATCH).
        let near = |bytes: &Value, (before, after): (u64, u64)| {
            let bytes = bytes.as_u64().unwrap();
            before.min(after) <= bytes + (1 << 20) && bytes <= before.max(after) + (1 << 20)
        };
        assert!(near(&container["usage_bytes"], (before.0, after.0)), "{container} {before:?}");
        let parts = &container["parts"];
        assert!(near(&parts["anon"], (before.1, after.1)), "{container} {before:?}");
        for name in ["file", "kernel_stack", "pagetables", "slab", "shmem"] {
            assert!(parts[name].is_u64(), "{name}: {container}");
        }
        // Whose pages these are.
        let rss_anonymous = anonymous_bytes(subject.pid());
        assert!(
            near(&parts["anon"], (rss_anonymous, rss_anonymous)),
            "{container} {rss_anonymous}"
        );
        let line = text.stdout.lines().find(|line| line.starts_with("container "));
        let line = line.unwrap_or_else(|| panic!("{}", text.stdout));
        assert!(line.contains("limit 512.0 MiB, charged "), "{line}");
    }

    fn anonymous_bytes(pid: u32) -> u64 {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
    }
}
