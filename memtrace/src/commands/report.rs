//! `memtrace report`: the report of a recorded trace.

use std::{fs::File, io::BufReader, process::ExitCode};

use anyhow::{Context, anyhow};

use super::{args::ReportArgs, failure::Failure, jstack, outputs::Outputs, outputs::to_stderr};
use crate::trace::{Recording, read};

/// The exit status when a trace was read only in part.
const IN_PART: u8 = 3;

pub(super) fn run(args: &ReportArgs) -> Result<ExitCode, Failure> {
    let name = args.file.display();
    let file = File::open(&args.file).with_context(|| format!("failed to open {name}"))?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(Failure::new(anyhow!("failed to read {name}: it is a folder"), None));
    }
    let outputs = Outputs::open(&args.outputs)?;
    let mut recording = Recording::default();
    let outcome = read(BufReader::new(file), |record| recording.apply(record))
        .map_err(|error| Failure::new(anyhow!("failed to read {name}: {error}"), None))?;
    if let Some(path) = &args.outputs.jstack {
        jstack::name_from_file(&mut recording, path)?;
    }
    if outcome.n_unknown > 0 && !args.outputs.quiet {
        let n = outcome.n_unknown;
        to_stderr(&format!(
            "memtrace: {n} records are of kinds that a newer memtrace writes; they were passed over\n"
        ));
    }
    outputs.write(&recording, &args.outputs)?;
    if outcome.is_cut || recording.end.is_none() {
        to_stderr(&format!("memtrace: {name} was cut; the report is of what came before\n"));
        return Ok(ExitCode::from(IN_PART));
    }
    Ok(ExitCode::SUCCESS)
}
