//! `memtrace footprint --diff A.json B.json`: what changed between two footprints that were written.

use std::{
    fs::File,
    io::{BufReader, Read},
    path::Path,
    process::ExitCode,
};

use anyhow::{Context, Result};

use super::{
    super::{failure::Failure, outputs},
    json,
};
use crate::report::footprint::{changes, write_changes};

/// What is read of a file: the report of a long trace has hundreds of MiB.
const MAX_FILE_BYTES: u64 = 4 << 30;

pub(super) fn run(before: &Path, after: &Path) -> Result<ExitCode, Failure> {
    let (before, after) = (read(before)?, read(after)?);
    let rss = (before.rss_bytes, after.rss_bytes);
    let changes = changes(&before.by_name(), &after.by_name());
    outputs::to_stdout_by(|out| Ok(write_changes(&changes, rss, out)?))?;
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> Result<json::WrittenRows> {
    let name = path.display();
    let file = File::open(path).with_context(|| format!("failed to open {name}"))?;
    let text = BufReader::new(file.take(MAX_FILE_BYTES));
    json::read_footprint(text).with_context(|| format!("failed to read a footprint from {name}"))
}
