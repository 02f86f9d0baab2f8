//! Packages of other Debian suites than the machine's, fetched by apt and unpacked, never installed.
//!
//! In: names of suites and packages. Out: the packages' files in folders. apt keeps its state in a folder of its own and
//! checks signatures as always; nothing of the machine's changes, and no script of a package is run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;

use crate::run;

/// Debian's archives, as they call themselves, and where each is if apt does not say.
const DEBIAN: (&str, &str) = ("Debian Debian", "http://deb.debian.org/debian");
const SECURITY: (&str, &str) = ("Debian Debian-Security", "http://deb.debian.org/debian-security");

/// Makes `folder` unless it is there; one that was made in part only is not.
pub(crate) fn once(
    folder: &Path,
    make: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if folder.exists() {
        return Ok(());
    }
    let part = beside(folder, ".part");
    if part.exists() {
        fs::remove_dir_all(&part)?;
    }
    fs::create_dir_all(&part)?;
    make(&part)?;
    fs::rename(&part, folder).with_context(|| format!("failed to create {}", folder.display()))
}

/// The path with `end` at its end.
pub(crate) fn beside(path: &Path, end: &str) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(end);
    beside.into()
}

/// apt with a state of its own.
pub(crate) struct Apt(PathBuf);

impl Apt {
    /// One that knows the packages of `suites` and keeps its state in `folder`.
    pub(crate) fn new(folder: PathBuf, suites: &[&str]) -> anyhow::Result<Self> {
        for state in ["state/lists/partial", "cache/archives/partial", "none"] {
            fs::create_dir_all(folder.join(state))?;
        }
        fs::write(folder.join("status"), "")?;
        let key = "/usr/share/keyrings/debian-archive-keyring.gpg";
        let source = |suite: &&str| {
            let archive = if suite.ends_with("-security") { SECURITY } else { DEBIAN };
            format!("deb [signed-by={key}] {} {suite} main\n", mirror(archive))
        };
        fs::write(folder.join("sources.list"), suites.iter().map(source).collect::<String>())?;
        let apt = Self(folder);
        run::run(apt.get().arg("update"))?;
        Ok(apt)
    }

    /// apt-get, which knows of no installed package.
    pub(crate) fn get(&self) -> Command {
        apt("apt-get", &self.0)
    }

    /// The names of the packages that begin with `begin`.
    pub(crate) fn names(&self, begin: &str) -> anyhow::Result<Vec<String>> {
        let names = run::output(apt("apt-cache", &self.0).args(["pkgnames", begin]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// What was downloaded.
    pub(crate) fn packages(&self) -> anyhow::Result<Vec<PathBuf>> {
        let mut packages = Vec::new();
        for entry in fs::read_dir(self.0.join("cache/archives"))? {
            let path = entry?.path();
            packages
                .extend(Some(path).filter(|path| path.extension().is_some_and(|end| end == "deb")));
        }
        Ok(packages)
    }

    /// Forgets everything.
    pub(crate) fn remove(self) -> anyhow::Result<()> {
        fs::remove_dir_all(&self.0).context("failed to remove the downloaded packages")
    }
}

/// A `program` of apt's with its state in `apt`: it knows of no installed package, and changes nothing of the machine's.
fn apt(program: &str, apt: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("DEBIAN_FRONTEND", "noninteractive").arg("-q");
    for (option, path) in [
        ("Dir::Etc::SourceList", "sources.list"),
        ("Dir::Etc::SourceParts", "none"),
        ("Dir::Etc::Preferences", "none"),
        ("Dir::Etc::PreferencesParts", "none"),
        ("Dir::State", "state"),
        ("Dir::State::status", "status"),
        ("Dir::Cache", "cache"),
    ] {
        command.arg("-o").arg(format!("{option}={}", apt.join(path).display()));
    }
    // A mirror that was frozen is good enough: what it has is signed all the same.
    for option in ["Acquire::Check-Valid-Until=false", "APT::Sandbox::User=", "Debug::NoLocking=1"]
    {
        command.args(["-o", option]);
    }
    command
}

/// Where this machine gets an archive from.
fn mirror((name, known): (&str, &str)) -> String {
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--format", "$(ORIGIN) $(LABEL) $(REPO_URI)"]);
    let targets = run::output(&mut command).unwrap_or_default();
    let mirror = targets.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    mirror.unwrap_or(known).to_owned()
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    /// What failed half-way is made anew; what is there is not made again.
    #[test]
    fn folders_are_made_once() {
        let folder = std::env::temp_dir().join(format!("memtrace-debian-{}", std::process::id()));
        let failed = once(&folder, |part| {
            fs::write(part.join("half"), "")?;
            bail!("no network")
        });
        assert!(failed.is_err() && !folder.exists());
        once(&folder, |part| Ok(fs::write(part.join("whole"), "")?)).unwrap();
        assert!(folder.join("whole").exists() && !folder.join("half").exists());
        once(&folder, |_| bail!("not needed")).unwrap();
        fs::remove_dir_all(&folder).unwrap();
    }

    /// apt is told of no file outside of its own folder.
    #[test]
    fn apt_keeps_to_itself() {
        let command = apt("apt-get", Path::new("/somewhere/apt"));
        let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
        let dirs: Vec<_> = args.iter().filter(|arg| arg.starts_with("Dir::")).collect();
        assert!(dirs.len() >= 7, "{args:?}");
        assert!(dirs.iter().all(|dir| dir.contains("=/somewhere/apt/")), "{dirs:?}");
    }
}
