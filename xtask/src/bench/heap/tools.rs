//! What reads heap dumps, and where it comes from.
//!
//! In: a tool. Out: its command line. Readers of others are built by cargo into a folder of their own, once.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::bail;

use crate::{
    bench::{clean_command, path},
    run,
    setup::Policy,
};

/// The readers of others, with the releases that are measured.
const CRATES: [&str; 2] = ["hprof-slurp@0.10.0", "hprof-analyzer@0.3.2"];

/// A reader in one of its modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub(super) enum Reader {
    /// memtrace's whole analysis
    Full,
    /// memtrace's histogram of classes
    Histogram,
    /// hprof-slurp, a histogram of classes
    HprofSlurp,
    /// hprof-analyzer, a whole analysis
    HprofAnalyzer,
}

impl Reader {
    pub(super) const ALL: [Self; 4] =
        [Self::Full, Self::Histogram, Self::HprofSlurp, Self::HprofAnalyzer];

    /// Its row in the table.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Full => "memtrace heap",
            Self::Histogram => "memtrace heap, histogram",
            Self::HprofSlurp => "hprof-slurp",
            Self::HprofAnalyzer => "hprof-analyzer",
        }
    }

    /// The command line that reads `dump`.
    pub(super) fn command(self, places: &Places, dump: &Path) -> Command {
        let Places { memtrace, peers } = places;
        let dump = path(dump);
        match self {
            Self::Full => with(memtrace, &["heap", &dump]),
            Self::Histogram => with(memtrace, &["heap", "histogram", &dump]),
            Self::HprofSlurp => with(&peers.join("hprof-slurp"), &[&dump]),
            Self::HprofAnalyzer => with(&peers.join("hprof-analyzer"), &[&dump]),
        }
    }
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub(super) memtrace: PathBuf,
    /// The folder of the others' programs.
    pub(super) peers: PathBuf,
}

/// Installs the others' readers below `root` unless they are there; says so first.
pub(super) fn ensure(policy: Policy, root: &Path) -> anyhow::Result<()> {
    let is_there = |name: &str| {
        let program = name.split('@').next().unwrap_or(name);
        root.join("bin").join(program).is_file()
    };
    let missing: Vec<&str> = CRATES.into_iter().filter(|name| !is_there(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("Missing: {}: they read the same dump beside memtrace.", missing.join(" "));
    let heading = if policy == Policy::Print { "To install it:" } else { "Installing it:" };
    eprintln!(
        "{heading}\n  cargo install --locked --root {} {}",
        root.display(),
        missing.join(" ")
    );
    if policy == Policy::Print {
        bail!("nothing was installed and nothing was done, as --no-install asks");
    }
    let mut install = clean_command("cargo");
    run::run(install.args(["install", "--locked", "--root"]).arg(root).args(missing))
}

fn with(program: &Path, arguments: &[&str]) -> Command {
    let mut command = clean_command(program);
    command.args(arguments);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without leave to install, nothing is started and the missing readers are an error; what is there is not asked for.
    #[test]
    fn nothing_is_installed_unasked() {
        let root = std::env::temp_dir().join(format!("memtrace-readers-{}", std::process::id()));
        assert!(ensure(Policy::Print, &root).is_err());
        std::fs::create_dir_all(root.join("bin")).unwrap();
        for name in ["hprof-slurp", "hprof-analyzer"] {
            std::fs::write(root.join("bin").join(name), "").unwrap();
        }
        ensure(Policy::Print, &root).unwrap();
        std::fs::remove_dir_all(&root).unwrap();
    }
}
