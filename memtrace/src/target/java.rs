//! A JDK's files, found from a process: its zlib library may be mapped only when it is first used.

use std::{
    ffi::OsStr,
    fs,
    io::Read,
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::{
    maps::{self, Mapping},
    proc,
};

const MAX_RELEASE_BYTES: u64 = 64 << 10;

/// Where the JDK of a process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JavaHome {
    /// The folder, as it can be reached from here.
    path: PathBuf,
}

impl JavaHome {
    /// The JDK whose virtual machine process `pid` has mapped.
    pub fn of_process(pid: u32) -> Option<Self> {
        let mappings = maps::read(pid).ok()?;
        let library = mappings.iter().find(|mapping| is_libjvm(mapping))?;
        // HOME/lib/server/libjvm.so; HOME/jre/lib/amd64/server/libjvm.so on JDK 8.
        let home = rooted(pid, &library.path).ancestors().nth(3)?.to_path_buf();
        Some(Self { path: if home.ends_with("lib") { home.parent()?.to_path_buf() } else { home } })
    }

    /// The JDK of the launcher at `path` (`HOME/bin/java`).
    pub fn of_launcher(path: &Path) -> Option<Self> {
        let path = fs::canonicalize(path).ok()?;
        let home = path.parent()?.parent()?;
        let is_launcher = path.file_name() == Some(OsStr::new("java"));
        is_launcher.then(|| Self { path: home.to_path_buf() })
    }

    /// Its version (such as `17.0.15+6`), from the file `release` that every JDK has.
    pub fn version(&self) -> Option<String> {
        let text = [self.path.clone(), self.path.join("..")]
            .iter()
            .find_map(|folder| read_small(&folder.join("release")))?;
        release_field(&text, "JAVA_RUNTIME_VERSION")
            .or_else(|| release_field(&text, "JAVA_VERSION"))
    }

    /// Where its zlib library may be.
    fn libzips(&self) -> impl Iterator<Item = PathBuf> {
        ["lib/libzip.so", "lib/amd64/libzip.so", "jre/lib/amd64/libzip.so"]
            .iter()
            .map(|path| self.path.join(path))
    }
}

/// The feature release in a version: 17 in `17.0.15+6`, 8 in `1.8.0_504`.
pub fn feature_release(version: &str) -> Option<u32> {
    let version = version.strip_prefix("1.").unwrap_or(version);
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version[..digits].parse().ok()
}

/// Files of process `pid` with zlib functions to probe: its JDK's libzip, mapped or not, and with `own` zlib itself.
pub fn zlib_files(pid: u32, own: bool) -> Vec<PathBuf> {
    let folder = proc::folder(pid);
    let mappings = maps::read(pid).unwrap_or_default();
    let mapped = mappings.iter().filter(|mapping| mapping.exec).filter(|mapping| {
        let name = mapping.file_name();
        name.starts_with("libzip.so") || (own && has_zlib(&name))
    });
    let mut files: Vec<PathBuf> = mapped
        .map(|Mapping { start, end, .. }| {
            folder.join("map_files").join(format!("{start:x}-{end:x}"))
        })
        .collect();
    let homes = [JavaHome::of_process(pid), JavaHome::of_launcher(&folder.join("exe"))];
    files.extend(homes.iter().flatten().flat_map(JavaHome::libzips).filter(|path| path.exists()));
    files
}

/// The libzip of the JDK whose launcher is at `path`; none where it is no launcher.
pub fn launcher_zlib_files(path: &Path) -> Vec<PathBuf> {
    let home = JavaHome::of_launcher(path);
    home.iter().flat_map(JavaHome::libzips).filter(|path| path.exists()).collect()
}

/// Reads a small file that the target may have put there: a pipe must not make memtrace wait, nor a large one fill it.
fn read_small(path: &Path) -> Option<String> {
    let file = fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
    let mut text = String::new();
    let is_file = file.metadata().ok()?.is_file();
    is_file.then(|| file.take(MAX_RELEASE_BYTES).read_to_string(&mut text).ok())??;
    Some(text)
}

fn has_zlib(name: &str) -> bool {
    name.starts_with("libz.so") || name.starts_with("libz-ng.so")
}

fn is_libjvm(mapping: &Mapping) -> bool {
    mapping.file_name().starts_with("libjvm.so")
}

/// A path of the process, reached through its own root.
fn rooted(pid: u32, path: &[u8]) -> PathBuf {
    let relative = Path::new(OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(path)));
    let through_root = proc::folder(pid).join("root").join(relative);
    // A chrooted process in memtrace's own mount namespace: its maps have the paths that memtrace sees.
    if through_root.exists() { through_root } else { Path::new("/").join(relative) }
}

fn release_field(text: &str, name: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    let value: String =
        value.trim().trim_matches('"').chars().filter(|c| !c.is_control()).take(64).collect();
    (!value.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let cases = [
            ("17.0.15+6", Some(17)),
            ("1.8.0_504", Some(8)),
            ("26", Some(26)),
            ("", None),
            ("x", None),
        ];
        for (version, want) in cases {
            assert_eq!(feature_release(version), want, "{version}");
        }
    }

    #[test]
    fn release_files() {
        let text =
            "IMPLEMENTOR=\"x\"\nJAVA_VERSION=\"17.0.15\"\nJAVA_RUNTIME_VERSION=\"17.0.15+6\"\n";
        assert_eq!(release_field(text, "JAVA_VERSION").as_deref(), Some("17.0.15"));
        assert_eq!(release_field(text, "JAVA_RUNTIME_VERSION").as_deref(), Some("17.0.15+6"));
        assert_eq!(release_field("JAVA_VERSION=\"\"", "JAVA_VERSION"), None);
    }
}
