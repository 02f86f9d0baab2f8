//! The programs in C that are measured.
//!
//! In: a source. Out: a compiled program, and what it writes down of its run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;
use serde_json::Value;

use crate::{
    bench::{Bed, path, target::Target},
    run,
};

/// A compiled program.
pub(super) struct Program {
    binary: PathBuf,
    figures: PathBuf,
}

impl Program {
    /// Compiles a program, with frame pointers, which some of the tools need for a stack.
    pub(super) fn compile(bed: &Bed, name: &str, source: &str) -> anyhow::Result<Self> {
        let file = bed.folder.join(format!("{name}.c"));
        fs::write(&file, source).with_context(|| format!("failed to write {}", file.display()))?;
        let binary = bed.folder.join(name);
        // A pair of malloc and free that nobody sees could be left out by the compiler.
        let options = ["-O2", "-g", "-fno-builtin", "-fno-omit-frame-pointer", "-pthread", "-o"];
        run::run(Command::new("cc").args(options).arg(&binary).arg(&file))?;
        Ok(Self { binary, figures: bed.folder.join(format!("{name}.json")) })
    }

    /// Where it is.
    pub(super) fn binary(&self) -> &Path {
        &self.binary
    }

    /// The program with its arguments behind the name of the file for its figures.
    pub(super) fn target(&self, arguments: &[u64]) -> Target {
        self.target_of_words(arguments.iter().map(u64::to_string))
    }

    /// The same with arguments of any kind.
    pub(super) fn target_of_words(&self, words: impl IntoIterator<Item = String>) -> Target {
        let mut arguments = vec![path(&self.figures)];
        arguments.extend(words);
        Target::native(&self.binary, arguments)
    }

    /// What the last run wrote down. It is taken away: no other run can seem to have written it.
    pub(super) fn take_figures(&self) -> anyhow::Result<Value> {
        let file = &self.figures;
        let text = fs::read_to_string(file).with_context(|| {
            format!("failed to read {}: the program did not run", file.display())
        })?;
        fs::remove_file(file).with_context(|| format!("failed to remove {}", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("failed to parse {}", file.display()))
    }
}

/// A whole number of a program's figures.
pub(super) fn number(figures: &Value, name: &str) -> anyhow::Result<u64> {
    figures[name].as_u64().with_context(|| format!("the program's figures have no number {name}"))
}
