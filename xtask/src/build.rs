//! `cargo xtask build`: the release binary.
//!
//! In: the sources. Out: `target/release/memtrace`, with the kernel side inside.

use std::path::PathBuf;

use crate::{
    needs::Part,
    repository::Repository,
    run,
    setup::{self, Policy},
};

/// Builds memtrace and returns where it is.
pub(crate) fn run(repository: &Repository, policy: Policy) -> anyhow::Result<PathBuf> {
    setup::ensure(policy, &[Part::Build])?;
    eprintln!("Building memtrace; the kernel side with {}.", repository.bpf_toolchain()?);
    run::run(&mut repository.cargo(&["build", "--release", "--package", "memtrace"]))?;
    let binary = repository.memtrace();
    eprintln!("Built {}.", binary.display());
    Ok(binary)
}
