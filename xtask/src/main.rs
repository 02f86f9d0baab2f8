//! memtrace's own tasks: `cargo xtask TASK`.
//!
//! In: the command line. Out: the task done, or one line that says what failed.
//! Each task is a module; this file only says which are there.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use repository::Repository;

mod bench;
mod bpf_toolchain;
mod build;
mod debian;
mod demo;
mod fuzz;
mod glibcs;
mod install;
mod jdks;
mod kernels;
mod lint;
mod needs;
mod repository;
mod run;
mod setup;
mod test;

/// Build, check, show and measure memtrace
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,

    /// Print the commands that would install what is missing, and stop
    #[arg(long, global = true)]
    no_install: bool,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building, testing and measuring need
    Setup,
    /// Build the release binary of memtrace
    Build,
    /// Build memtrace and put it on the PATH
    Install(install::Options),
    /// Check formatting and lints of both sides
    Lint,
    /// Run everything that CI runs
    Test(test::Options),
    /// Fetch the JDKs that `test --all` runs with, and print where they are
    Jdks,
    /// Fetch the glibcs that `test --all` runs with, and print where they are
    Glibcs,
    /// Fetch the kernels that `test` boots, and print where they are, or run a command on them
    Kernels(kernels::Options),
    /// Give what reads anyone's bytes those of a fuzzer
    Fuzz(fuzz::Options),
    /// Trace the start-up of a real application
    Demo,
    /// Measure what tracing costs
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Run a program and write down what it used
    #[command(name = "__timed", hide = true)]
    Timed(bench::timed::Options),
}

fn main() -> ExitCode {
    match perform(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(Cli { task, no_install }: Cli) -> anyhow::Result<ExitCode> {
    if let Task::Timed(options) = task {
        return bench::timed::run(&options);
    }
    let repository = Repository::of_this_task()?;
    let policy = if no_install { setup::Policy::Print } else { setup::Policy::Install };
    match task {
        Task::Setup => setup::everything(&repository, policy)?,
        Task::Build => build::run(&repository, policy).map(drop)?,
        Task::Install(options) => install::run(&repository, policy, &options)?,
        Task::Lint => lint::run(&repository, policy)?,
        Task::Test(options) => test::run(&repository, policy, &options)?,
        Task::Jdks => jdks::run(&repository, policy)?,
        Task::Glibcs => glibcs::run(&repository)?,
        Task::Kernels(options) => return kernels::run(&repository, policy, &options),
        Task::Fuzz(options) => fuzz::run(&repository, policy, &options)?,
        Task::Demo => demo::run(&repository, policy)?,
        Task::Bench(bench) => bench::run(&repository, policy, &bench)?,
        Task::Timed(_) => unreachable!("handled above: it needs no repository"),
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// The command line is well-formed, and every task and option has a help text.
    #[test]
    fn every_option_has_help() {
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        let mut commands = vec![&command];
        while let Some(command) = commands.pop() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(
                    argument.get_help().is_some(),
                    "{} {}",
                    command.get_name(),
                    argument.get_id()
                );
            }
            commands.extend(command.get_subcommands());
        }
    }
}
