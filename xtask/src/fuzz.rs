//! `cargo xtask fuzz`: what reads anyone's bytes, given bytes that a fuzzer makes up.
//!
//! In: the fuzz targets, and what their inputs begin with: libraries of C fixtures for `elf` and `allocators`, texts about recorded JVMs for
//! `text`. Out: each target run for a while at the lowest priority, or the input that broke it, in `fuzz/artifacts`.
//! What is found stays in `fuzz/corpus`, so that a later run goes on from there.

use std::{fs, path::Path, process::Command};

use anyhow::Context;

use crate::{
    needs::Part,
    repository::Repository,
    run,
    setup::{self, Policy},
};

const TARGETS: [&str; 7] = ["trace", "elf", "allocators", "jvm", "heap", "dump", "text"];
/// Sources of libraries, small and each with other sections.
const LIBRARIES: [&str; 3] = ["plt_lib", "nofp_lib", "late_lib"];

/// Sources of allocators, one of which finds another at run time.
const ALLOCATORS: [&str; 2] = ["own_malloc", "hands_on"];

/// How long, and what.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Run each target for so many seconds
    #[arg(long, value_name = "N", default_value_t = 300)]
    seconds: u32,

    /// Run only these targets
    #[arg(value_name = "TARGET", value_parser = TARGETS)]
    targets: Vec<String>,
}

/// Runs one target after the other.
pub(crate) fn run(
    repository: &Repository,
    policy: Policy,
    options: &Options,
) -> anyhow::Result<()> {
    setup::ensure(policy, &[Part::Build, Part::Fuzz])?;
    let is_wanted = |target: &&str| {
        options.targets.is_empty() || options.targets.iter().any(|wanted| wanted == target)
    };
    for target in TARGETS.iter().copied().filter(is_wanted) {
        let corpus = repository.root.join("fuzz/corpus").join(target);
        fs::create_dir_all(&corpus)
            .with_context(|| format!("failed to create {}", corpus.display()))?;
        match target {
            "elf" => seed_libraries(repository, &corpus, &LIBRARIES, "-s")?,
            "allocators" => seed_libraries(repository, &corpus, &ALLOCATORS, "-fno-builtin")?,
            "dump" => seed_dumps(repository, &corpus)?,
            "text" => seed_text(repository, &corpus)?,
            _ => {}
        }
        run::run(&mut fuzzer(repository, target, options.seconds))?;
    }
    Ok(())
}

/// `cargo fuzz run`, with the nightly toolchain that it needs.
fn fuzzer(repository: &Repository, target: &str, seconds: u32) -> Command {
    let mut command = Command::new("nice");
    // What cargo says of its own toolchain must not be said to another's.
    command.env_remove("LD_LIBRARY_PATH").env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
    command.current_dir(&repository.root).args(["-n", "19", "cargo", "+nightly", "fuzz", "run"]);
    command.arg("--target-dir").arg(repository.target.join("fuzz")).arg(target);
    command.args(["--", &format!("-max_total_time={seconds}"), "-timeout=60"]);
    command
}

fn seed_libraries(
    repository: &Repository,
    corpus: &Path,
    libraries: &[&str],
    option: &str,
) -> anyhow::Result<()> {
    for library in libraries {
        let source = repository.root.join("tests/fixtures/c").join(library).with_extension("c");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O2", option])
            .arg(source)
            .arg("-o")
            .arg(corpus.join(library));
        run::run(&mut cc)?;
    }
    Ok(())
}

/// Heap dumps of a few objects.
fn seed_dumps(repository: &Repository, corpus: &Path) -> anyhow::Result<()> {
    let build = ["build", "--release", "-p", "memtrace-tests", "--bin", "made-up-heap"];
    run::run(&mut repository.cargo(&build))?;
    for n_objects in ["20", "200"] {
        let mut make = Command::new(repository.target.join("release/made-up-heap"));
        run::output(make.arg(corpus.join(n_objects)).arg(n_objects))?;
    }
    Ok(())
}

fn seed_text(repository: &Repository, corpus: &Path) -> anyhow::Result<()> {
    let folder = repository.root.join("memtrace/tests/jvm_captures");
    let entries =
        fs::read_dir(&folder).with_context(|| format!("failed to read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "txt") {
            let name = path.file_name().context("a file has a name")?;
            fs::copy(&path, corpus.join(name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The targets are those that the fuzzer builds.
    #[test]
    fn targets() {
        let manifest =
            fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/Cargo.toml"));
        let manifest = manifest.expect("it comes with the sources");
        let names = manifest.split("[[bin]]\nname = \"").skip(1);
        let mut names: Vec<&str> = names.filter_map(|rest| rest.split('"').next()).collect();
        let mut known = TARGETS.to_vec();
        names.sort_unstable();
        known.sort_unstable();
        assert_eq!(names, known);
    }
}
