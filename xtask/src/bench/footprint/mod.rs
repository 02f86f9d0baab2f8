//! `cargo xtask bench footprint`: what it takes to look at where a process's memory is.
//!
//! In: a bed with everything built. Out: how long a look takes and how much memory ([`looks`]), of the demo application and
//! of 1 GB of small blocks, with their bars; and for how long the process that is looked at waits meanwhile ([`pauses`]).

mod busy_heap;
mod looks;
mod pauses;

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;

use self::{busy_heap::BusyHeap, looks::Looks};
use super::{Bed, jvm::Jvm, quiet};

/// MiB of small blocks.
const HEAP_MIB: u64 = 1024;
/// Mappings beside it: as many as a large JVM has.
const N_MAPPINGS: u64 = 2000;

/// What to measure and how long.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Measure only this; may be given several times
    #[arg(long = "part", value_name = "PART", value_enum)]
    parts: Vec<Part>,

    /// Look so many times
    #[arg(long, value_name = "N", default_value_t = 25)]
    rounds: usize,

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
    /// A look at the demo application
    Demo,
    /// A look at 1 GB of small blocks
    Heap,
    /// How long the process waits that is looked at
    Pauses,
}

impl Options {
    fn wants(&self, part: Part) -> bool {
        self.parts.is_empty() || self.parts.contains(&part)
    }

    fn rounds(&self) -> usize {
        if self.quick { 2 } else { self.rounds.max(1) }
    }
}

/// Measures and prints.
pub(super) fn run(bed: &Bed, jar: &Path, options: &Options) -> anyhow::Result<()> {
    if options.wants(Part::Demo) {
        eprintln!("Starting the demo application.");
        let mut jvm = Jvm::start_stopped(jar, &bed.folder.join("footprint.log"))?;
        jvm.go_on();
        jvm.wait_until_started()?;
        let looks = Looks::at(bed, jvm.pid(), options.rounds())?;
        print(&looks.lines("the demo application", looks::DEMO_BAR_SECONDS))?;
    }
    if !options.wants(Part::Heap) && !options.wants(Part::Pauses) {
        return Ok(());
    }
    eprintln!("Filling a heap.");
    let mib = if options.quick { HEAP_MIB / 16 } else { HEAP_MIB };
    let mut heap = BusyHeap::start(bed, mib, N_MAPPINGS)?;
    if options.wants(Part::Heap) {
        let looks = Looks::at(bed, heap.pid(), options.rounds())?;
        let what = format!("{mib} MiB in {} small blocks", super::grouped(heap.n_blocks));
        print(&looks.lines(&what, looks::HEAP_BAR_SECONDS))?;
    }
    if options.wants(Part::Pauses) {
        let is_quiet = quiet::wait_until_quiet();
        print(&pauses::run(bed, &mut heap, options.rounds(), is_quiet)?)?;
    }
    Ok(())
}

fn print(lines: &[String]) -> anyhow::Result<()> {
    let mut text = lines.join("\n");
    text.push_str("\n\n");
    io::stdout().lock().write_all(text.as_bytes()).context("failed to write what was measured")
}
