//! `cargo xtask bench`: what tracing costs.
//!
//! In: built programs and a quiet machine. Out: tables on stdout, their raw figures in
//! `target/bench/`. Nothing here decides whether a figure is good; the bars are only named.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;

use crate::{
    build, demo,
    needs::Part,
    repository::Repository,
    setup::{self, Policy},
};

mod async_profiler;
mod beside;
mod bystander;
mod footprint;
mod heap;
mod jvm;
mod malloc;
mod process;
mod program;
mod quiet;
mod resolving;
mod run;
mod said;
mod stacks;
mod startup;
mod statistics;
mod table;
mod target;
pub(crate) mod timed;
mod tool;

/// How the names of the dumps begin that jemalloc's profiler writes.
const JEMALLOC_DUMPS: &str = "jemalloc";

use target::Target;

/// What can be measured.
#[derive(clap::Subcommand)]
pub(crate) enum Bench {
    /// Measure the demo application's start-up under memtrace and under other tools
    Startup(startup::Options),
    /// Measure how many stacks a second are resolved, Java and native, on one core
    ///
    /// The demo application is started several times, its stacks are captured, and then streamed through what a trace does
    /// with them, beside the living JVMs. Takes 4 GB of memory and more.
    Stacks(stacks::Options),
    /// Measure what tracing an allocator's calls costs, how many a second can be traced, and the memory that takes
    ///
    /// A loop of malloc and free under memtrace and under other tools; calls from stacks of 20 frames at a rate that rises
    /// until memtrace loses something; 10 million live blocks.
    Malloc(malloc::Options),
    /// Measure what a look at a process's footprint takes, and how long that makes the process wait
    ///
    /// The demo application and a program with 1 GB of small blocks are looked at again and again. Then a program that maps
    /// and touches memory without pause measures its own pauses, with a look beside it and without. Takes 3 GB of memory.
    Footprint(footprint::Options),
    /// Measure how fast a heap dump of a gigabyte is read, and how much memory that takes, beside other readers
    Heap(heap::Options),
}

/// Where everything that a benchmark needs is.
struct Bed {
    /// The memtrace under test.
    memtrace: PathBuf,
    /// Where figures, and what the tools write, go.
    folder: PathBuf,
}

/// Builds what is measured, then measures.
pub(crate) fn run(repository: &Repository, policy: Policy, bench: &Bench) -> anyhow::Result<()> {
    let (given, mut parts) = match bench {
        Bench::Startup(options) => (&options.memtrace, vec![Part::Demo, Part::Bench]),
        Bench::Stacks(options) => (&options.memtrace, vec![Part::Demo]),
        Bench::Malloc(options) => (&options.memtrace, vec![Part::Bench]),
        Bench::Footprint(options) => (&options.memtrace, vec![Part::Demo, Part::Bench]),
        Bench::Heap(options) => (&options.memtrace, Vec::new()),
    };
    if given.is_none() {
        parts.insert(0, Part::Build);
    }
    setup::ensure(policy, &parts)?;
    let memtrace = match given {
        Some(binary) => fs::canonicalize(binary)
            .with_context(|| format!("failed to find {}", binary.display()))?,
        None => build::run(repository, policy)?,
    };
    let folder = repository.target.join("bench");
    fs::create_dir_all(&folder)
        .with_context(|| format!("failed to create {}", folder.display()))?;
    let bed = Bed { memtrace, folder };
    let jar = || demo::build(repository);
    match bench {
        Bench::Startup(options) if crate::run::is_root() => {
            return startup::run(&bed, &Target::demo(&jar()?), options);
        }
        Bench::Startup(options) => {
            jar()?;
            startup::prepare(&bed, options)?;
        }
        Bench::Stacks(options) if crate::run::is_root() => {
            return stacks::run(&bed, &jar()?, options);
        }
        Bench::Stacks(_) => drop(jar()?),
        Bench::Malloc(options) if crate::run::is_root() => return malloc::run(&bed, options),
        Bench::Malloc(options) => malloc::prepare(&bed, options)?,
        Bench::Footprint(options) if crate::run::is_root() => {
            return footprint::run(&bed, &jar()?, options);
        }
        Bench::Footprint(_) => drop(jar()?),
        // A dump is read with anybody's rights.
        Bench::Heap(options) => return heap::run(repository, policy, &bed, options),
    }
    again_as_root(given.is_none().then_some(&bed.memtrace))
}

/// Starts this task again with root's rights, to measure `built` unless another memtrace was given. Nothing is left to
/// build or to fetch: what root built, the user could not build again.
fn again_as_root(built: Option<&PathBuf>) -> anyhow::Result<()> {
    let xtask = env::current_exe().context("failed to find the running program")?;
    let mut again = crate::run::as_root(xtask);
    again.args(env::args_os().skip(1));
    if let Some(built) = built {
        again.arg("--memtrace").arg(built);
    }
    crate::run::run(&mut again)
}

/// A command without what cargo adds to the environment of the programs it runs.
fn clean_command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_remove("LD_LIBRARY_PATH");
    command
}

fn path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A number with its digits in groups of three.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_in_groups() {
        let cases = [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")];
        for (n, want) in cases {
            assert_eq!(grouped(n), want);
        }
        assert_eq!(grouped(u64::MAX), "18,446,744,073,709,551,615");
    }
}
