//! The commands: they connect the rooms, and hold the one loop that waits.

mod args;
mod clock;
mod compare;
mod doctor;
mod failure;
mod footprint;
mod heap;
mod interrupts;
mod jstack;
mod outputs;
mod replay;
mod report;
mod self_use;
mod stacks;
mod trace;
mod try_it;
mod units;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};

/// Runs what was typed.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        None => trace::run(&cli.trace),
        Some(Command::Report(args)) => report::run(args),
        Some(Command::Footprint(args)) => footprint::run(args),
        Some(Command::Heap(args)) => heap::run(args),
        Some(Command::Compare(args)) => compare::run(args),
        Some(Command::Try(args)) => try_it::run(args),
        Some(Command::Stacks(args)) => stacks::run(args),
        Some(Command::Doctor(args)) => doctor::run(args),
        Some(Command::Replay(args)) => replay::run(args),
    };
    result.unwrap_or_else(|failure| failure.tell())
}
