//! Builds the kernel side, so that the `memtrace` binary can carry it.
//!
//! In: the sources of `memtrace-ebpf` and `memtrace-common`. Out: the object `memtrace.bpf.o` in
//! `OUT_DIR`, and the variable `MEMTRACE_BPF_TOOLCHAIN` with the name of what built it.
//! Never downloads a compiler: what is missing is an error that names the command that helps.

use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use bpf_toolchain::{BPF_TARGET, BpfToolchain, Places};

#[path = "../xtask/src/bpf_toolchain.rs"]
mod bpf_toolchain;

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("\nfailed to build memtrace's kernel side: {message}\n");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let workspace = folder("CARGO_MANIFEST_DIR")?.join("..");
    let ebpf_crate = workspace.join("memtrace-ebpf");
    rerun_when_changed(&workspace)?;

    let toolchain =
        BpfToolchain::find(&Places::of_this_machine()).map_err(|missing| missing.to_string())?;
    let out = folder("OUT_DIR")?;
    let target_dir = out.join("ebpf");
    let status = toolchain
        .cargo(&folder("CARGO")?, "build", &ebpf_crate, &target_dir)
        .status()
        .map_err(|error| format!("failed to start cargo: {error}"))?;
    if !status.success() {
        return Err(format!("cargo ended with {status}, using {toolchain}"));
    }
    let built = target_dir.join(BPF_TARGET).join("release/memtrace-ebpf");
    let object = out.join("memtrace.bpf.o");
    fs::copy(&built, &object)
        .map_err(|error| format!("failed to copy {}: {error}", built.display()))?;
    tell_cargo(&format!("rustc-env=MEMTRACE_BPF_TOOLCHAIN={toolchain}"))
}

/// Names everything that the object depends on; cargo does not look into the inner build.
fn rerun_when_changed(workspace: &Path) -> Result<(), String> {
    let inputs = [
        "memtrace-ebpf/src",
        "memtrace-ebpf/Cargo.toml",
        "memtrace-ebpf/Cargo.lock",
        "memtrace-common/src",
        "memtrace-common/Cargo.toml",
        "memtrace/build.rs",
        "xtask/src/bpf_toolchain.rs",
    ];
    for input in inputs {
        tell_cargo(&format!("rerun-if-changed={}", workspace.join(input).display()))?;
    }
    Ok(())
}

fn tell_cargo(instruction: &str) -> Result<(), String> {
    writeln!(std::io::stdout().lock(), "cargo:{instruction}")
        .map_err(|error| format!("failed to write to cargo: {error}"))
}

fn folder(variable: &str) -> Result<PathBuf, String> {
    env::var_os(variable).map(PathBuf::from).ok_or_else(|| format!("cargo did not set {variable}"))
}
