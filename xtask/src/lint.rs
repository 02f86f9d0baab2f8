//! `cargo xtask lint`: formatting and lints of both sides.
//!
//! In: the sources. Out: nothing, or the warnings as errors.

use crate::{
    bpf_toolchain::BpfToolchain,
    needs::Part,
    repository::Repository,
    run,
    setup::{self, Policy},
};

/// Checks both workspaces; a warning is an error.
pub(crate) fn run(repository: &Repository, policy: Policy) -> anyhow::Result<()> {
    setup::ensure(policy, &[Part::Build, Part::Lint])?;
    for manifest in ["Cargo.toml", "memtrace-ebpf/Cargo.toml"] {
        let args = ["fmt", "--all", "--check", "--manifest-path", manifest];
        run::run(&mut repository.cargo(&args))?;
    }
    // The release profile shares the built kernel side and C libraries with the build.
    let args = ["clippy", "--release", "--locked", "--workspace", "--all-targets"];
    run::run(repository.cargo(&args).args(["--", "-D", "warnings"]))?;
    lint_kernel_side(repository)
}

fn lint_kernel_side(repository: &Repository) -> anyhow::Result<()> {
    let toolchain = repository.bpf_toolchain()?;
    let mut command = match &toolchain {
        BpfToolchain::Nightly { .. } => {
            let mut command = repository.bpf_cargo(&toolchain, "clippy");
            command.args(["--", "-D", "warnings"]);
            command
        }
        // Rustup's clippy cannot read Debian's prebuilt `core`; Debian's own is a wrapper of rustc.
        BpfToolchain::Debian { rustc, .. } => {
            let mut command = repository.bpf_cargo(&toolchain, "check");
            command.env("RUSTC_WORKSPACE_WRAPPER", rustc.with_file_name("clippy-driver"));
            // How `cargo clippy` hands over what follows `--`: "-D warnings".
            command.env("CLIPPY_ARGS", "-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__");
            command
        }
    };
    run::run(&mut command)
}
