//! `cargo xtask test`: everything that CI runs.
//!
//! In: the sources and a machine. Out: lints, unit tests and integration tests, and at the very
//! end which tests could not run here and why. A test of [`MUST_RUN`] that could not is a failure:
//! a machine that lacks what they need proves nothing.

use std::{env, fs, path::Path, process::Command};

use anyhow::{Context, bail};

use crate::{
    demo, glibcs, jdks, kernels, lint,
    needs::Part,
    repository::Repository,
    run,
    setup::{self, Policy},
};

/// Names of tests that must not be skipped, as they stand in the file of skipped tests.
///
/// With these, a green run says that memtrace traced a real process on a real kernel.
const MUST_RUN: &[&str] =
    &["bad_input::no_permission", "threads::java_names_from_a_file", "bad_input::kernel_thread"];

/// Which tests to run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Run the heavy matrices too, on JDKs from 8 to 26, glibcs from 2.31 and kernels from 6.1 that are fetched for it
    #[arg(long)]
    all: bool,

    /// Run only tests whose name contains one of these
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
}

/// A test that could not run on this machine.
#[derive(Debug, PartialEq, Eq)]
struct Skipped {
    name: String,
    reason: String,
}

/// Lints, builds and tests.
pub(crate) fn run(
    repository: &Repository,
    policy: Policy,
    options: &Options,
) -> anyhow::Result<()> {
    setup::ensure(policy, &[Part::Build, Part::Lint, Part::Tests])?;
    lint::run(repository, policy)?;
    // With all targets, crates get the same features as for the lints and tests: built once.
    run::run(&mut repository.cargo(&["build", "--release", "--workspace", "--all-targets"]))?;
    let demo_jar = demo::build(repository)?;
    demo::build_servers(repository)?;

    let record = repository.target.join("skipped-tests");
    let mut tests = test_command(repository, options);
    tests.env("MEMTRACE", repository.memtrace()).env("MEMTRACE_DEMO_JAR", demo_jar);
    tests.env("MEMTRACE_SKIPPED", &record);
    let mut missing = String::new();
    if options.all {
        let kernels = kernels::fetch(repository, policy, &[])?;
        missing += &lines_of_missing("every test on", &kernels.missing);
        tests.env("MEMTRACE_TEST_KERNELS", env::join_paths(&kernels.folders)?);
        let jdks = jdks::fetch(repository, policy)?;
        missing += &lines_of_missing("every JVM test on", &jdks.missing);
        let glibcs = glibcs::fetch(repository)?;
        missing += &lines_of_missing("heaps of", &glibcs.missing);
        tests.env("MEMTRACE_TEST_JDKS", env::join_paths(&jdks.homes)?);
        tests.env("MEMTRACE_TEST_GLIBCS", env::join_paths(&glibcs.folders)?);
    }
    fs::write(&record, missing).with_context(|| format!("failed to write {}", record.display()))?;
    let ran = run::run(&mut tests);

    let skipped = read_skipped(&record)?;
    eprint!("{}", closing_lines(&skipped));
    ran?;
    let missed = missed(&skipped, MUST_RUN);
    if !missed.is_empty() {
        bail!("tests that must run were skipped: {}", missed.join(", "));
    }
    Ok(())
}

/// What could not be fetched for the tests, as lines of the file of skipped tests.
fn lines_of_missing(tests: &str, missing: &[(String, String)]) -> String {
    missing.iter().map(|(name, why)| format!("{tests} {name}: {why}\n")).collect()
}

/// `cargo test`, whose programs run as root: they load BPF and read other processes.
fn test_command(repository: &Repository, options: &Options) -> Command {
    let mut command = repository.cargo(&["test", "--release", "--workspace", "--no-fail-fast"]);
    if options.all {
        command.env("MEMTRACE_TEST_ALL", "1");
    }
    if !run::is_root() {
        let runner = run::sudo().map(|word| word.to_string_lossy().into_owned());
        for host in ["x86_64", "aarch64"] {
            // A list, not words in a variable: a PATH may have spaces in it.
            let setting = format!("target.{host}-unknown-linux-gnu.runner={runner:?}");
            command.arg("--config").arg(setting);
        }
    }
    if !options.filters.is_empty() {
        command.arg("--").args(&options.filters);
    }
    command
}

fn read_skipped(record: &Path) -> anyhow::Result<Vec<Skipped>> {
    let text = fs::read_to_string(record)
        .with_context(|| format!("failed to read {}", record.display()))?;
    Ok(parse_skipped(&text))
}

/// The tests in a file with lines `name: reason`; names of Rust tests hold `::`, never `: `.
fn parse_skipped(text: &str) -> Vec<Skipped> {
    let mut skipped: Vec<Skipped> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let (name, reason) = line.split_once(": ").unwrap_or((line, "no reason given"));
        let test = Skipped { name: name.trim().to_owned(), reason: reason.trim().to_owned() };
        if !skipped.contains(&test) {
            skipped.push(test);
        }
    }
    skipped
}

/// What is printed last.
fn closing_lines(skipped: &[Skipped]) -> String {
    let mut text = format!("skipped {}", skipped.len());
    for (i, Skipped { name, reason }) in skipped.iter().enumerate() {
        text.push_str(if i == 0 { ": " } else { "; " });
        text.push_str(&format!("{name} ({reason})"));
    }
    text.push('\n');
    text
}

/// The tests of `must_run` that were skipped.
fn missed<'a>(skipped: &[Skipped], must_run: &[&'a str]) -> Vec<&'a str> {
    let is_skipped = |name: &&str| skipped.iter().any(|test| test.name == *name);
    must_run.iter().copied().filter(is_skipped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(name: &str, reason: &str) -> Skipped {
        Skipped { name: name.to_owned(), reason: reason.to_owned() }
    }

    /// A line is a test; a name may hold `::`, a reason may hold `: `, and repeats count once.
    #[test]
    fn skipped_tests_are_read() {
        let cases: [(&str, &[Skipped]); 5] = [
            ("", &[]),
            ("\n\n", &[]),
            ("stacks::gdb: no gdb\n", &[test("stacks::gdb", "no gdb")]),
            ("a: b: c\na: b: c\n", &[test("a", "b: c")]),
            ("torn line", &[test("torn line", "no reason given")]),
        ];
        for (text, want) in cases {
            assert_eq!(parse_skipped(text), want, "{text:?}");
        }
    }

    #[test]
    fn closing_lines_name_each_test() {
        assert_eq!(closing_lines(&[]), "skipped 0\n");
        let two = [test("a", "no gdb"), test("b", "not root")];
        assert_eq!(closing_lines(&two), "skipped 2: a (no gdb); b (not root)\n");
    }

    /// Only a test of the minimum fails the run, and only by its whole name.
    #[test]
    fn the_minimum_must_run() {
        let skipped = [test("trace::mmap", "not root"), test("heavy", "not asked for")];
        assert_eq!(missed(&skipped, &["trace::mmap", "trace::brk"]), ["trace::mmap"]);
        assert!(missed(&skipped, &["mmap", "trace"]).is_empty());
        assert!(missed(&[], &["trace::mmap"]).is_empty());
    }
}
