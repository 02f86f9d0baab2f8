//! `cargo xtask bench heap`: how fast a heap dump is read, beside other readers.
//!
//! In: a bed with everything built. Out: a table. The dump is made up, the same each time. In each round every reader reads
//! it once, beginning with another one than in the round before, so that a machine that becomes slower slows all alike; a
//! ratio is of two runs of one round.

mod measure;
mod table;
mod tools;

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;
use serde_json::{Value, json};

use self::{
    measure::{Taken, measure},
    table::{Report, Size},
    tools::{Places, Reader},
};
use super::{Bed, quiet};
use crate::{repository::Repository, run, setup::Policy};

/// Objects of the dump: a gigabyte of them.
const N_OBJECTS: u64 = 14_000_000;
const N_OBJECTS_QUICK: u64 = 200_000;

/// What to measure and how long.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Measure only this reader; may be given several times
    #[arg(long = "reader", value_name = "READER")]
    readers: Vec<Reader>,

    /// Let every reader read the dump so often
    #[arg(long, value_name = "N", default_value_t = 7)]
    rounds: usize,

    /// Run one round with a small dump, as a trial of the benchmark itself
    #[arg(long)]
    quick: bool,

    /// Measure this memtrace in place of the one built from the sources
    #[arg(long, value_name = "FILE")]
    pub(super) memtrace: Option<PathBuf>,
}

/// Measures and prints.
pub(super) fn run(
    repository: &Repository,
    policy: Policy,
    bed: &Bed,
    options: &Options,
) -> anyhow::Result<()> {
    let root = repository.target.join("bench-tools");
    tools::ensure(policy, &root)?;
    let places = Places { memtrace: bed.memtrace.clone(), peers: root.join("bin") };
    let n_objects = if options.quick { N_OBJECTS_QUICK } else { N_OBJECTS };
    let dump = bed.folder.join("heap.hprof");
    let size = make_dump(repository, &dump, n_objects)?;
    let rounds = if options.quick { 1 } else { options.rounds };
    let report = measure_all(bed, &places, &dump, size, &options.chosen(), rounds);
    fs::remove_file(&dump).with_context(|| format!("failed to remove {}", dump.display()))?;
    write!(io::stdout().lock(), "{}", table::format(&report?)).context("failed to write the table")
}

impl Options {
    fn chosen(&self) -> Vec<Reader> {
        if self.readers.is_empty() { Reader::ALL.to_vec() } else { self.readers.clone() }
    }
}

/// Has the fixture write the dump, which leaves it in the page cache.
fn make_dump(repository: &Repository, dump: &Path, n_objects: u64) -> anyhow::Result<Size> {
    let build = ["build", "--release", "-p", "memtrace-tests", "--bin", "made-up-heap"];
    run::run(&mut repository.cargo(&build))?;
    eprintln!("Writing a dump of {n_objects} objects.");
    let mut make = Command::new(repository.target.join("release/made-up-heap"));
    let said = run::output(make.arg(dump).arg(n_objects.to_string()))?;
    let truth: Value = serde_json::from_str(&said).context("failed to parse what was written")?;
    let number = |key: &str| truth[key].as_u64().with_context(|| format!("no {key} was told"));
    Ok(Size {
        file_bytes: number("file_bytes")?,
        n_objects: number("objects")?,
        n_references: number("references")?,
    })
}

fn measure_all(
    bed: &Bed,
    places: &Places,
    dump: &Path,
    size: Size,
    readers: &[Reader],
    n_rounds: usize,
) -> anyhow::Result<Report> {
    let raw = bed.folder.join("heap.jsonl");
    let mut raw =
        File::create(&raw).with_context(|| format!("failed to create {}", raw.display()))?;
    let mut rows: Vec<(Reader, Vec<Taken>)> =
        readers.iter().map(|reader| (*reader, Vec::new())).collect();
    let mut n_noisy = 0;
    for round in 0..n_rounds {
        for i in 0..rows.len() {
            let turn = (round + i) % rows.len();
            let (reader, taken) = &mut rows[turn];
            n_noisy += usize::from(!quiet::wait_until_quiet());
            let run = measure(&mut reader.command(places, dump))?;
            taken.push(run);
            writeln!(raw, "{}", json_line(*reader, round, run))
                .context("failed to write the raw figures")?;
        }
    }
    Ok(Report { size, rows, n_noisy })
}

fn json_line(reader: Reader, round: usize, taken: Taken) -> Value {
    json!({
        "reader": reader.name(), "round": round, "wall_seconds": taken.wall_seconds,
        "cpu_seconds": taken.cpu_seconds, "max_rss_bytes": taken.max_rss_bytes,
        "max_anon_bytes": taken.max_anon_bytes,
    })
}
