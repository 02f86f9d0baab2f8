//! Where the sources and the built files are.
//!
//! In: what cargo tells a program that it runs. Out: paths. Nothing is created here.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;

use crate::bpf_toolchain::{BpfToolchain, Places};

/// The repository that this task works on.
#[derive(Debug)]
pub(crate) struct Repository {
    /// The folder with the workspace's `Cargo.toml`.
    pub(crate) root: PathBuf,
    /// Where cargo builds: `target`, unless the user's settings say otherwise.
    pub(crate) target: PathBuf,
    /// The cargo that runs this task.
    cargo: PathBuf,
}

impl Repository {
    /// The repository whose cargo runs this program.
    pub(crate) fn of_this_task() -> anyhow::Result<Self> {
        let manifest = env::var_os("CARGO_MANIFEST_DIR")
            .context("failed to find the repository: start the tasks with `cargo xtask`")?;
        let root = Path::new(&manifest).parent().context("failed to find the repository")?;
        let xtask = env::current_exe().context("failed to find the running program")?;
        // TARGET/debug/xtask: whatever setting moved the target directory, this is where it went.
        let target = xtask.ancestors().nth(2).context("failed to find the target directory")?;
        let cargo = env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
        Ok(Self { root: root.to_owned(), target: target.to_owned(), cargo })
    }

    /// The release binary.
    pub(crate) fn memtrace(&self) -> PathBuf {
        self.target.join("release/memtrace")
    }

    /// `cargo ARGS` in the workspace of the host crates.
    pub(crate) fn cargo(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.cargo);
        // `cargo run` puts the toolchain's libraries in front of what every child would load.
        command.current_dir(&self.root).env_remove("LD_LIBRARY_PATH").args(args);
        command
    }

    /// `cargo SUBCOMMAND` for the kernel side, with a target directory of its own.
    pub(crate) fn bpf_cargo(&self, toolchain: &BpfToolchain, subcommand: &str) -> Command {
        let target = self.target.join("ebpf-lint");
        toolchain.cargo(&self.cargo, subcommand, &self.root.join("memtrace-ebpf"), &target)
    }

    /// The toolchain that the build script of memtrace finds too.
    pub(crate) fn bpf_toolchain(&self) -> anyhow::Result<BpfToolchain> {
        BpfToolchain::find(&Places::of_this_machine()).map_err(anyhow::Error::msg)
    }
}
