//! The glibc of other Debian suites, for the tests of what is read of its heap.
//!
//! In: names of suites. Out: folders in `target/glibcs/`, named by version, with the files of `libc6` and `libc6-dev`,
//! fetched once. Programs are linked with them and run through their own loader. What can't be fetched is said, and the
//! tests go on without it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;

use crate::{
    debian::{Apt, beside, once},
    repository::Repository,
    run as runner,
};

/// Suites, and the glibc that each has had since it was released; unstable's changes.
const SUITES: [(&str, Option<&str>); 3] =
    [("bullseye", Some("2.31")), ("trixie", Some("2.41")), ("unstable", None)];
const PACKAGES: [&str; 2] = ["libc6", "libc6-dev"];

/// What was fetched, and what could not be.
#[derive(Debug, Default)]
pub(crate) struct Glibcs {
    /// Folders named by version.
    pub(crate) folders: Vec<PathBuf>,
    /// What is missing, and why.
    pub(crate) missing: Vec<(String, String)>,
}

/// Fetches all and prints the folders.
#[expect(clippy::print_stdout, reason = "the result of the task")]
pub(crate) fn run(repository: &Repository) -> anyhow::Result<()> {
    let glibcs = fetch(repository)?;
    glibcs.folders.iter().for_each(|folder| println!("{}", folder.display()));
    let missing: Vec<&str> = glibcs.missing.iter().map(|(name, _)| name.as_str()).collect();
    anyhow::ensure!(missing.is_empty(), "failed to fetch {}", missing.join(", "));
    Ok(())
}

/// Fetches what is not there yet.
pub(crate) fn fetch(repository: &Repository) -> anyhow::Result<Glibcs> {
    let folder = repository.target.join("glibcs");
    fs::create_dir_all(&folder)
        .with_context(|| format!("failed to create {}", folder.display()))?;
    let mut glibcs = Glibcs::default();
    for (suite, version) in SUITES {
        let of_suite = folder.join(suite);
        let fetched = once(&of_suite, |to| unpack(suite, to)).and_then(|()| {
            let root = fs::read_dir(&of_suite)?.next().context("nothing was unpacked")??.path();
            let name = root.file_name().unwrap_or_default().to_string_lossy();
            anyhow::ensure!(version.is_none_or(|version| name == version), "it has glibc {name}");
            Ok(root)
        });
        match fetched {
            Ok(root) => glibcs.folders.push(root),
            Err(error) => {
                eprintln!("failed to fetch the glibc of Debian {suite}: {error:#}");
                glibcs.missing.push((format!("Debian {suite}'s glibc"), format!("{error:#}")));
            }
        }
    }
    Ok(glibcs)
}

/// Unpacks the newest packages of `suite` into a folder in `to` that is named by their version.
fn unpack(suite: &str, to: &Path) -> anyhow::Result<()> {
    let apt = Apt::new(beside(to, ".apt"), &[suite])?;
    let mut install = apt.get();
    install.args(["install", "-y", "--no-install-recommends", "--download-only"]).args(PACKAGES);
    runner::run(&mut install)?;
    let packages = apt.packages()?;
    let named = |package: &PathBuf| {
        let name = package.file_name()?.to_str()?;
        let (name, version) = name.split_once('_')?;
        PACKAGES.contains(&name).then(|| version_in(version).to_owned())
    };
    let version = packages.iter().find_map(named).context("apt downloaded no libc6")?;
    let root = to.join(version);
    for package in packages.iter().filter(|package| named(package).is_some()) {
        runner::run(Command::new("dpkg-deb").arg("-x").arg(package).arg(&root))?;
    }
    apt.remove()
}

/// `2.31` of `2.31-13+deb11u11_amd64.deb`.
fn version_in(name: &str) -> &str {
    name.split(|c: char| !c.is_ascii_digit() && c != '.').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (name, want) in
            [("2.31-13+deb11u11_amd64.deb", "2.31"), ("2.43-7_amd64.deb", "2.43"), ("x", "")]
        {
            assert_eq!(version_in(name), want, "{name}");
        }
    }
}
