//! A JDK's files, found from a process: its zlib library may be mapped only when it is first used.

use std::{
    ffi::OsStr,
    fs,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use super::{
    maps::{self, Mapping},
    proc,
    root::{Library, Root},
};

const MAX_RELEASE_BYTES: u64 = 64 << 10;

/// Where the JDK of a process is.
#[derive(Debug)]
pub struct JavaHome {
    /// Where its path begins.
    root: Root,
    /// The folder.
    path: PathBuf,
}

impl JavaHome {
    /// The JDK whose virtual machine process `pid` has mapped.
    pub fn of_process(pid: u32) -> Option<Self> {
        let mappings = maps::read(pid).ok()?;
        let library = mappings.iter().find(|mapping| is_libjvm(mapping))?;
        let library = Path::new(OsStr::from_bytes(&library.path));
        // HOME/lib/server/libjvm.so; HOME/jre/lib/amd64/server/libjvm.so on JDK 8.
        let home = library.ancestors().nth(3)?;
        let path = if home.ends_with("lib") { home.parent()? } else { home };
        Some(Self { root: root_of(pid, library)?, path: path.to_path_buf() })
    }

    /// The JDK of the launcher that process `pid` runs.
    fn of_executable(pid: u32) -> Option<Self> {
        let launcher = fs::read_link(proc::folder(pid).join("exe")).ok()?;
        Self::of_real_launcher(&launcher, root_of(pid, &launcher)?)
    }

    /// The JDK of the launcher at `path` (`HOME/bin/java`) of memtrace's own.
    pub fn of_launcher(path: &Path) -> Option<Self> {
        Self::of_real_launcher(&fs::canonicalize(path).ok()?, Root::own().ok()?)
    }

    fn of_real_launcher(path: &Path, root: Root) -> Option<Self> {
        let home = path.parent()?.parent()?.to_path_buf();
        let is_launcher = path.file_name() == Some(OsStr::new("java"));
        is_launcher.then_some(Self { root, path: home })
    }

    /// Its version (such as `17.0.15+6`), from the file `release` that every JDK has.
    pub fn version(&self) -> Option<String> {
        let text = [self.path.clone(), self.path.join("..")]
            .iter()
            .find_map(|folder| read_small(self.root.open(&folder.join("release")).ok()?))?;
        release_field(&text, "JAVA_RUNTIME_VERSION")
            .or_else(|| release_field(&text, "JAVA_VERSION"))
    }

    /// Its zlib library: where it may be, those that are there.
    fn libzips(&self) -> impl Iterator<Item = Library> {
        ["lib/libzip.so", "lib/amd64/libzip.so", "jre/lib/amd64/libzip.so"]
            .iter()
            .filter_map(|path| Library::below(&self.root, &self.path.join(path)).ok())
    }
}

/// The feature release in a version: 17 in `17.0.15+6`, 8 in `1.8.0_504`.
pub fn feature_release(version: &str) -> Option<u32> {
    let version = version.strip_prefix("1.").unwrap_or(version);
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version[..digits].parse().ok()
}

/// Libraries of process `pid` with zlib functions to probe: its JDK's libzip, mapped or not, and with `own` zlib itself.
/// One that is mapped and can't be opened is an error in the list.
pub fn zlib_libraries(pid: u32, own: bool) -> Vec<io::Result<Library>> {
    let mappings = maps::read(pid).unwrap_or_default();
    let mapped = mappings.iter().filter(|mapping| mapping.exec).filter(|mapping| {
        let name = mapping.file_name();
        name.starts_with("libzip.so") || (own && has_zlib(&name))
    });
    let mapped = mapped.map(|mapping| Library::mapped(pid, mapping));
    let homes = [JavaHome::of_process(pid), JavaHome::of_executable(pid)];
    let of_jdk = homes.iter().flatten().flat_map(JavaHome::libzips).map(Ok);
    let mut libraries: Vec<io::Result<Library>> = Vec::new();
    for library in mapped.chain(of_jdk) {
        // One is found both where it is mapped and in its JDK.
        let is_same = |known: &Library| library.as_ref().is_ok_and(|library| library == known);
        if !libraries.iter().flatten().any(is_same) {
            libraries.push(library);
        }
    }
    libraries
}

/// The libzip of the JDK whose launcher is at `path`; none where it is no launcher.
pub fn launcher_zlib_libraries(path: &Path) -> Vec<Library> {
    JavaHome::of_launcher(path).iter().flat_map(JavaHome::libzips).collect()
}

/// Reads a small file that the target may have put there: a large one must not fill memtrace.
fn read_small(file: fs::File) -> Option<String> {
    let mut text = String::new();
    file.take(MAX_RELEASE_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

fn has_zlib(name: &str) -> bool {
    name.starts_with("libz.so") || name.starts_with("libz-ng.so")
}

fn is_libjvm(mapping: &Mapping) -> bool {
    mapping.file_name().starts_with("libjvm.so")
}

/// The root below which a path of the process lies.
fn root_of(pid: u32, path: &Path) -> Option<Root> {
    let root = Root::of_process(pid).ok()?;
    // A chrooted process in memtrace's own mount namespace: its maps have the paths that memtrace sees.
    if root.open(path).is_ok() { Some(root) } else { Root::own().ok() }
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
