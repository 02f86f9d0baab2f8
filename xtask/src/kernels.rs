//! `cargo xtask kernels`: the kernels that memtrace is tested on beside the machine's own.
//!
//! In: Debian's kernels for virtual machines, of several suites. Out: folders in `target/kernels/`, named by version, with
//! `vmlinuz`, the modules that a virtual machine needs to see the machine's files, and the kernel's whole name, fetched
//! once. Nothing is installed. What can't be fetched is said, and the tests go on without it.
//!
//! Kernels are booted by the crate of the integration tests (`tests/src/kernel.rs`).

use std::{
    cmp::Ordering,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, bail};

use crate::{
    debian::{Apt, beside, once},
    needs::Part,
    repository::Repository,
    run as runner,
    setup::{self, Policy},
};

/// Versions, and a suite that has each: the newest of that version is taken, for names change with every update.
///
/// 5.10 is older than what memtrace asks for. 6.1, 6.12 and 6.18 have no, some and all of what makes probes cheaper.
const KERNELS: [(&str, &str); 5] = [
    ("5.10", "bullseye-security"),
    ("6.1", "bookworm-security"),
    ("6.12", "trixie-security"),
    ("6.18", "trixie-backports"),
    ("7.3", "trixie-backports"),
];
/// Packages of one kernel, what follows the version in their names: since 7.2 one has the kernel and one the modules.
const PACKAGES: [&str; 3] = ["linux-image-", "linux-binary-", "linux-modules-"];
/// Debian's kernels for virtual machines: the smallest ones.
const FLAVOUR: &str = "-cloud-amd64";
/// With which modules the machine's files are seen; they are built in since 6.12.
const MODULES: [&str; 2] = ["virtio_pci", "virtiofs"];

/// Which kernels, and what to do with them.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Versions, for instance 6.1; all of them if none is given
    #[arg(value_name = "VERSION")]
    versions: Vec<String>,

    /// A command to run on each of them
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// What was fetched, and what could not be.
#[derive(Debug, Default)]
pub(crate) struct Kernels {
    /// Folders named by version.
    pub(crate) folders: Vec<PathBuf>,
    /// What is missing, and why.
    pub(crate) missing: Vec<(String, String)>,
}

/// Fetches kernels, and prints their folders or runs a command on each; its exit code is that of the last that failed.
#[expect(clippy::print_stdout, reason = "the result of the task")]
pub(crate) fn run(
    repository: &Repository,
    policy: Policy,
    options: &Options,
) -> anyhow::Result<ExitCode> {
    let versions: Vec<&str> = options.versions.iter().map(String::as_str).collect();
    let kernels = fetch(repository, policy, &versions)?;
    let mut code = ExitCode::SUCCESS;
    for folder in &kernels.folders {
        if options.command.is_empty() {
            println!("{}", folder.display());
            continue;
        }
        let arguments = ["run", "-q", "--release", "-p", "memtrace-tests", "--bin", "in_kernel"];
        let mut command = repository.cargo(&arguments);
        let ended = command.arg("--").arg(folder).args(&options.command).status()?;
        if !ended.success() {
            let ended = ended.code().and_then(|code| u8::try_from(code).ok());
            code = ended.map_or(ExitCode::FAILURE, ExitCode::from);
        }
    }
    let missing: Vec<&str> = kernels.missing.iter().map(|(name, _)| name.as_str()).collect();
    anyhow::ensure!(missing.is_empty(), "failed to fetch {}", missing.join(", "));
    Ok(code)
}

/// Fetches what is not there yet of `versions`, which are all if there is none.
pub(crate) fn fetch(
    repository: &Repository,
    policy: Policy,
    versions: &[&str],
) -> anyhow::Result<Kernels> {
    if let Some(unknown) = versions.iter().find(|version| suite(version).is_none()) {
        let known = KERNELS.map(|(version, _)| version).join(", ");
        bail!("kernel {unknown} is not known; these are: {known}");
    }
    setup::ensure(policy, &[Part::Kernels])?;
    let all = repository.target.join("kernels");
    fs::create_dir_all(&all).with_context(|| format!("failed to create {}", all.display()))?;
    let mut kernels = Kernels::default();
    for (version, suite) in KERNELS {
        if !versions.is_empty() && !versions.contains(&version) {
            continue;
        }
        let folder = all.join(version);
        match once(&folder, |to| unpack(version, suite, to)) {
            Ok(()) => kernels.folders.push(folder),
            Err(error) => {
                eprintln!("failed to fetch kernel {version}: {error:#}");
                kernels.missing.push((format!("kernel {version}"), format!("{error:#}")));
            }
        }
    }
    Ok(kernels)
}

fn suite(version: &str) -> Option<&'static str> {
    KERNELS.iter().find(|(known, _)| *known == version).map(|(_, suite)| *suite)
}

/// Fetches the newest kernel of `version`, and leaves in `to` what is needed to boot it.
fn unpack(version: &str, suite: &str, to: &Path) -> anyhow::Result<()> {
    let apt = Apt::new(beside(to, ".apt"), &[suite])?;
    let root = to.join("root");
    for begin in PACKAGES {
        let names = apt.names(&format!("{begin}{version}."))?;
        let Some(package) = newest(&names) else { continue };
        // apt-get leaves what it downloads in the folder that it runs in.
        let debs = to.join("debs");
        fs::create_dir_all(&debs)?;
        runner::run(apt.get().args(["download", package]).current_dir(&debs))?;
        for deb in fs::read_dir(&debs)? {
            runner::run(Command::new("dpkg-deb").arg("-x").arg(deb?.path()).arg(&root))?;
        }
        fs::remove_dir_all(&debs)?;
    }
    apt.remove()?;
    keep(&root, to)?;
    fs::remove_dir_all(&root).context("failed to remove what is not needed of the kernel")
}

/// The name with the highest version, of the flavour that is wanted.
fn newest(names: &[String]) -> Option<&str> {
    let names = names.iter().filter(|name| name.ends_with(FLAVOUR));
    names.map(String::as_str).max_by(|a, b| by_numbers(a, b))
}

/// Compares the numbers in two names, one by one: `6.1.0-56` is higher than `6.1.0-9`.
fn by_numbers(a: &str, b: &str) -> Ordering {
    let numbers = |name: &str| -> Vec<u64> {
        name.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect()
    };
    numbers(a).cmp(&numbers(b))
}

/// Copies from an unpacked kernel what a virtual machine needs of it.
fn keep(root: &Path, to: &Path) -> anyhow::Result<()> {
    let lib = if root.join("lib/modules").exists() { "lib" } else { "usr/lib" };
    let releases = fs::read_dir(root.join(lib).join("modules"));
    let release = releases.into_iter().flatten().flatten().next();
    let release = release.context("the packages have no kernel")?.file_name();
    let release = release.to_string_lossy().into_owned();
    let modules = root.join(lib).join("modules").join(&release);
    // Packages with a kernel alone have it beside the modules.
    let image = root.join("boot").join(format!("vmlinuz-{release}"));
    let image = if image.exists() { image } else { modules.join("vmlinuz") };
    fs::copy(image, to.join("vmlinuz")).context("failed to copy the kernel")?;
    // depmod looks in `lib`, wherever the package has them.
    if lib != "lib" {
        std::os::unix::fs::symlink("usr/lib", root.join("lib"))?;
    }
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let mut depmod = Command::new("depmod");
    runner::run(depmod.env("PATH", path).arg("-b").arg(root).arg(&release))?;
    let needs = fs::read_to_string(modules.join("modules.dep"))?;
    fs::create_dir(to.join("modules"))?;
    for (i, module) in in_order(&needs, &MODULES).into_iter().enumerate() {
        let name = Path::new(module).file_name().unwrap_or_default().to_string_lossy();
        let copy = to.join("modules").join(format!("{i}-{name}"));
        fs::copy(modules.join(module), &copy)?;
        if name.ends_with(".xz") {
            runner::run(Command::new("xz").arg("-d").arg(&copy))?;
        }
    }
    Ok(fs::write(to.join("release"), release)?)
}

/// The modules that `wanted` are and need, in the order in which they can be loaded; one that is built in is in no list.
fn in_order<'a>(needs: &'a str, wanted: &[&str]) -> Vec<&'a str> {
    let mut order = Vec::new();
    for name in wanted {
        let is_it = |path: &str| {
            let file = path.rsplit('/').next().unwrap_or_default();
            file.split_once(".ko").is_some_and(|(stem, _)| stem == *name)
        };
        let line = needs.lines().filter_map(|line| line.split_once(':')).find(|(m, _)| is_it(m));
        let Some((module, needed)) = line else { continue };
        // kmod lists what a module needs in the order of removal.
        for path in needed.split_whitespace().rev().chain([module]) {
            if !order.contains(&path) {
                order.push(path);
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers are compared as numbers, another flavour is passed over, and a kernel's plain name is older than any.
    #[test]
    fn the_newest_kernel() {
        let cases: [(&[&str], Option<&str>); 4] = [
            (&[], None),
            (
                &["linux-image-6.1.0-9-cloud-amd64", "linux-image-6.1.0-56-cloud-amd64"],
                Some("linux-image-6.1.0-56-cloud-amd64"),
            ),
            (&["linux-image-6.1.0-57-amd64", "linux-image-6.1.0-57-cloud-amd64-dbg"], None),
            (
                &["linux-image-6.18.5+deb13-cloud-amd64", "linux-image-6.18.15+deb13-cloud-amd64"],
                Some("linux-image-6.18.15+deb13-cloud-amd64"),
            ),
        ];
        for (names, want) in cases {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            assert_eq!(newest(&names), want, "{names:?}");
        }
    }

    /// What a module needs comes before it, once.
    #[test]
    fn modules_in_order() {
        let needs = "a/virtio.ko:\na/virtio_pci.ko: a/ring.ko a/virtio.ko\n\
            b/virtiofs.ko.xz: a/fuse.ko a/virtio.ko\na/ring.ko: a/virtio.ko\n";
        let want = ["a/virtio.ko", "a/ring.ko", "a/virtio_pci.ko", "a/fuse.ko", "b/virtiofs.ko.xz"];
        assert_eq!(in_order(needs, &MODULES), want);
        assert!(in_order("", &MODULES).is_empty());
    }
}
