//! `cargo xtask bench`: what tracing costs.
//!
//! In: built programs and a quiet machine. Out: tables on stdout, their raw figures in
//! `target/bench/`. Nothing here decides whether a figure is good; the bars are only named.

use std::{env, fs, path::PathBuf, process::Command};

use anyhow::Context;

use crate::{
    build, demo,
    needs::Part,
    repository::Repository,
    run,
    setup::{self, Policy},
};

mod async_profiler;
mod bystander;
mod process;
mod quiet;
mod resolving;
mod stacks;
mod startup;
mod statistics;
mod table;
pub(crate) mod timed;
mod tool;

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
}

/// Where everything that a benchmark needs is.
struct Bed {
    /// The memtrace under test.
    memtrace: PathBuf,
    /// The demo application.
    jar: PathBuf,
    /// Where figures, and what the tools write, go.
    folder: PathBuf,
}

/// Builds what is measured, then measures.
pub(crate) fn run(repository: &Repository, policy: Policy, bench: &Bench) -> anyhow::Result<()> {
    let (given, mut parts) = match bench {
        Bench::Startup(options) => (&options.memtrace, vec![Part::Demo, Part::Bench]),
        Bench::Stacks(options) => (&options.memtrace, vec![Part::Demo]),
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
    let jar = demo::build(repository)?;
    let folder = repository.target.join("bench");
    fs::create_dir_all(&folder)
        .with_context(|| format!("failed to create {}", folder.display()))?;
    let bed = Bed { memtrace, jar, folder };
    match bench {
        Bench::Startup(options) if run::is_root() => return startup::run(&bed, options),
        Bench::Startup(options) => startup::prepare(&bed, options)?,
        Bench::Stacks(options) if run::is_root() => return stacks::run(&bed, options),
        Bench::Stacks(_) => {}
    }
    again_as_root(given.is_none().then_some(&bed.memtrace))
}

/// Starts this task again with root's rights, to measure `built` unless another memtrace was given. Nothing is left to
/// build or to fetch: what root built, the user could not build again.
fn again_as_root(built: Option<&PathBuf>) -> anyhow::Result<()> {
    let xtask = env::current_exe().context("failed to find the running program")?;
    let mut again = run::as_root(xtask);
    again.args(env::args_os().skip(1));
    if let Some(built) = built {
        again.arg("--memtrace").arg(built);
    }
    run::run(&mut again)
}

/// A command without what cargo adds to the environment of the programs it runs.
fn clean_command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_remove("LD_LIBRARY_PATH");
    command
}
