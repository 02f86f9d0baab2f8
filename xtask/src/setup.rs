//! Installs what is missing, or says how.
//!
//! In: the parts of the work that are about to be done. Out: a machine that can do them.
//! What is missing and why is said first; what is printed is exactly what is run. Nothing is
//! fetched, updated or asked of a package manager when nothing is missing.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, bail};

use crate::{
    needs::{self, Machine, Need, Part, Source},
    repository::Repository,
    run,
};

/// What to do about missing things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Install them.
    Install,
    /// Print the commands and stop.
    Print,
}

const BPF_LINKER: &str = "LLVM_PREFIX=$(llvm-config-22 --prefix) cargo install bpf-linker \
    --version 0.13.0 --locked --no-default-features --features llvm-22";

const CARGO_FUZZ: &str = "cargo install cargo-fuzz --version 0.13.2 --locked";

/// Installs what any task needs, but for the fuzz targets.
pub(crate) fn everything(repository: &Repository, policy: Policy) -> anyhow::Result<()> {
    ensure(policy, &[Part::Build, Part::Lint, Part::Tests, Part::Demo, Part::Bench])?;
    eprintln!(
        "Everything is installed; the kernel side builds with {}.",
        repository.bpf_toolchain()?
    );
    Ok(())
}

/// Installs what `parts` need and this machine lacks.
pub(crate) fn ensure(policy: Policy, parts: &[Part]) -> anyhow::Result<()> {
    let unmet = needs::unmet(&Machine::this(), parts);
    if unmet.is_empty() {
        return Ok(());
    }
    eprint!("{}", explanation(&unmet));
    let commands = commands(&unmet, run::is_root());
    let heading = if policy == Policy::Print { "To install it:" } else { "Installing it:" };
    eprintln!("{heading}");
    for command in &commands {
        eprintln!("  {command}");
    }
    if policy == Policy::Print {
        bail!("nothing was installed and nothing was done, as --no-install asks");
    }
    for command in &commands {
        run::run(Command::new("sh").args(["-ec", command])).context("failed to install")?;
    }
    let left = needs::unmet(&Machine::this(), parts);
    if !left.is_empty() {
        bail!("still missing after installing:\n{}", explanation(&left));
    }
    Ok(())
}

/// What is missing and why, one line each, with what is known to go wrong.
fn explanation(unmet: &[&Need]) -> String {
    let mut text = String::from("Missing on this machine:\n");
    for need in unmet {
        let what = match need.source {
            Source::Debian(packages) => packages.join(" "),
            Source::BpfLinker => "bpf-linker".to_owned(),
            Source::CargoFuzz => "cargo-fuzz".to_owned(),
            Source::Toolchain(name) => format!("rustup's toolchain {name}"),
            Source::Component(name) => format!("rustup's {name}"),
        };
        text.push_str(&format!("  {what}: {}\n", need.reason));
    }
    if packages(unmet).contains(&"rustc-web") && !names_security_archive(Path::new("/etc/apt")) {
        text.push_str(
            "No file in /etc/apt names Debian's security archive, where rustc-web 1.96 comes from; \
             a line for /etc/apt/sources.list:\n  \
             deb http://deb.debian.org/debian-security bookworm-security main\n",
        );
    }
    text
}

/// The shell commands that meet the needs.
fn commands(unmet: &[&Need], is_root: bool) -> Vec<String> {
    let mut commands = Vec::new();
    let packages = packages(unmet);
    if !packages.is_empty() {
        let sudo = if is_root { "" } else { "sudo " };
        commands.push(format!("{sudo}apt-get update -q"));
        // Never takes away what the user has: rustc-web replaces Debian's own older rustc.
        commands.push(format!(
            "{sudo}env DEBIAN_FRONTEND=noninteractive \
             apt-get install -q -y --no-remove --no-install-recommends {}",
            packages.join(" ")
        ));
    }
    for need in unmet {
        match need.source {
            Source::Debian(_) => {}
            Source::BpfLinker => commands.push(BPF_LINKER.to_owned()),
            Source::CargoFuzz => commands.push(CARGO_FUZZ.to_owned()),
            Source::Toolchain(name) => {
                commands.push(format!("rustup toolchain install {name} --profile minimal"));
            }
            Source::Component(name) => commands.push(format!("rustup component add {name}")),
        }
    }
    commands
}

/// The Debian packages of all needs, each once.
fn packages(unmet: &[&Need]) -> Vec<&'static str> {
    let mut all = Vec::new();
    for need in unmet {
        let Source::Debian(packages) = need.source else { continue };
        for package in packages {
            if !all.contains(package) {
                all.push(*package);
            }
        }
    }
    all
}

/// Whether a source of apt, in either of its formats, names a security suite.
fn names_security_archive(apt: &Path) -> bool {
    let mut files = vec![apt.join("sources.list")];
    let listed = fs::read_dir(apt.join("sources.list.d")).into_iter().flatten().flatten();
    files.extend(listed.map(|entry| entry.path()));
    files.iter().filter_map(|file| fs::read_to_string(file).ok()).any(|text| {
        text.lines().any(|line| !line.trim_start().starts_with('#') && line.contains("-security"))
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use crate::bpf_toolchain::Places;

    use super::*;

    fn bare() -> Machine {
        let nowhere = PathBuf::from("/no-such-root");
        let places =
            Places { path: Vec::new(), toolchains: nowhere.clone(), root: nowhere.clone() };
        Machine { places, toolchain_bin: nowhere }
    }

    /// One update and one install with each package once, then what is built on them.
    #[test]
    fn commands_of_a_bare_machine() {
        let unmet = needs::unmet(&bare(), &[Part::Build, Part::Tests]);
        let as_user = commands(&unmet, false);
        assert_eq!(as_user.len(), 3, "{as_user:#?}");
        assert_eq!(as_user[0], "sudo apt-get update -q");
        assert!(as_user[1].starts_with("sudo env DEBIAN_FRONTEND=noninteractive apt-get install"));
        assert_eq!(as_user[1].matches("zlib1g-dev").count(), 1, "{}", as_user[1]);
        assert_eq!(as_user[2], BPF_LINKER);
        let as_root = commands(&unmet, true);
        assert!(as_root.iter().all(|command| !command.contains("sudo")), "{as_root:#?}");
    }

    /// Nothing from Debian is needed, so apt-get is not even updated.
    #[test]
    fn components_need_no_apt() {
        let unmet: Vec<_> = needs::unmet(&bare(), &[Part::Lint])
            .into_iter()
            .filter(|need| matches!(need.source, Source::Component(_)))
            .collect();
        let want = ["rustup component add rustfmt", "rustup component add clippy"];
        assert_eq!(commands(&unmet, false), want);
    }

    /// Every missing thing is explained by a line of its own.
    #[test]
    fn explains_each_need() {
        let unmet = needs::unmet(&bare(), &[Part::Build, Part::Lint, Part::Tests]);
        let text = explanation(&unmet);
        for need in unmet {
            assert!(text.contains(&format!(": {}\n", need.reason)), "{text}");
        }
    }

    /// Both formats of apt's sources are read; comments do not count.
    #[test]
    fn finds_the_security_archive() {
        let deb822 =
            "Types: deb\nURIs: http://deb.debian.org/debian-security\nSuites: bookworm-security\n";
        // (file, its text, whether it names the archive)
        let cases = [
            ("sources.list", "deb http://deb.debian.org/debian bookworm main\n", false),
            ("sources.list", "deb http://mirror/debian-security bookworm-security main\n", true),
            ("sources.list", "# deb http://mirror/debian-security bookworm-security main\n", false),
            ("sources.list.d/debian.sources", deb822, true),
        ];
        for (i, (file, text, named)) in cases.into_iter().enumerate() {
            let apt = std::env::temp_dir().join(format!("memtrace-apt-{}-{i}", std::process::id()));
            fs::create_dir_all(apt.join("sources.list.d")).unwrap();
            fs::write(apt.join(file), text).unwrap();
            assert_eq!(names_security_archive(&apt), named, "{text}");
            fs::remove_dir_all(&apt).unwrap();
        }
    }
}
