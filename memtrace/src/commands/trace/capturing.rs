//! The capture that is made of a trace if asked: where it goes, and what came of it.

use std::{fs::File, io::BufWriter, path::Path};

use anyhow::{Context, Result};

use super::super::outputs::{self, to_stderr};
use crate::stacks::{Captured, Stacks};

/// Begins to write down in `path` what `stacks` resolves by.
pub(super) fn begin(stacks: &mut Stacks, path: &Path) -> Result<()> {
    let file: File = outputs::create(path)?;
    // A pipe has no length.
    file.set_len(0).ok();
    stacks.capture(Box::new(BufWriter::new(file)));
    Ok(())
}

/// Ends it, and says what is in it.
pub(super) fn end(stacks: &mut Stacks, path: &Path) -> Result<()> {
    let captured = stacks.end_capture();
    let captured = captured.with_context(|| format!("failed to write {}", path.display()))?;
    let Captured { n_stacks, stack_bytes } = captured.unwrap_or_default();
    to_stderr(&format!(
        "memtrace: captured {n_stacks} events with {stack_bytes} bytes of stack in {}\n",
        path.display()
    ));
    Ok(())
}
