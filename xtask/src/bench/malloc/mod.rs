//! `cargo xtask bench malloc`: what it costs to trace every call of an allocator.
//!
//! In: a bed with everything built. Out: three figures with their bars. What one call costs ([`tight_loop`]), how many
//! calls a second can be traced without a loss ([`rate`]), and how much memory it takes to know many blocks ([`blocks`]).

mod blocks;
mod rate;
mod tight_loop;

use std::{
    io::{self, Write},
    path::PathBuf,
};

use anyhow::Context;

use super::{Bed, tool::Tool};

/// What to measure and how long.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Measure only this; may be given several times
    #[arg(long = "part", value_name = "PART", value_enum)]
    parts: Vec<Part>,

    /// Run the loop only under this tool; may be given several times
    #[arg(long = "tool", value_name = "TOOL")]
    tools: Vec<Tool>,

    /// Stop after this many rounds of the loop, however wide the interval
    #[arg(long, value_name = "N", default_value_t = 25)]
    max_rounds: usize,

    /// Call at each rate for so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    step_seconds: u64,

    /// Measure little of each part, as a trial of the benchmark itself
    #[arg(long)]
    quick: bool,

    /// Measure this memtrace in place of the one built from the sources
    #[arg(long, value_name = "FILE")]
    pub(super) memtrace: Option<PathBuf>,
}

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// What a pair of malloc and free takes, under each tool
    Loop,
    /// How many calls a second memtrace traces without a loss
    Rate,
    /// memtrace's RSS with 10 million live blocks
    Blocks,
}

impl Options {
    fn wants(&self, part: Part) -> bool {
        self.parts.is_empty() || self.parts.contains(&part)
    }
}

/// Fetches what the tools to be measured are made of.
pub(super) fn prepare(bed: &Bed, options: &Options) -> anyhow::Result<()> {
    let mut installed =
        tight_loop::tools(&options.tools).into_iter().filter(|it| it.is_installed());
    installed.try_for_each(|tool| tool.prepare(bed))
}

/// Measures and prints.
pub(super) fn run(bed: &Bed, options: &Options) -> anyhow::Result<()> {
    if options.wants(Part::Loop) {
        prepare(bed, options)?;
        let length = tight_loop::Length::of(options.max_rounds, options.quick);
        print(&tight_loop::run(bed, &tight_loop::tools(&options.tools), length)?)?;
    }
    if options.wants(Part::Rate) {
        print(&rate::run(bed, rate::Steps::of(options.step_seconds, options.quick))?)?;
    }
    if options.wants(Part::Blocks) {
        print(&blocks::run(bed, if options.quick { 1_000_000 } else { 10_000_000 })?)?;
    }
    Ok(())
}

fn print(lines: &[String]) -> anyhow::Result<()> {
    let mut text = lines.join("\n");
    text.push_str("\n\n");
    io::stdout().lock().write_all(text.as_bytes()).context("failed to write what was measured")
}
