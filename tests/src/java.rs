//! The fixture programs in Java, and the JVMs they run on.
//!
//! They are compiled once, by the oldest rules that all JVMs of the tests understand.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::fixtures::{cached, run, sources};

/// A JVM to test with.
#[derive(Clone, Debug)]
pub struct Jdk {
    /// Where it is installed.
    pub home: PathBuf,
    /// Its major version, 17 for instance.
    pub major: u32,
}

impl Jdk {
    /// The `java` launcher.
    pub fn java(&self) -> PathBuf {
        self.home.join("bin/java")
    }

    /// Whether `java` is a script that enters the root of another system.
    pub fn is_in_own_root(&self) -> bool {
        self.home.join("root").exists()
    }

    /// The library with the JNI functions of Inflater and Deflater.
    pub fn libzip(&self) -> PathBuf {
        let path = self.home.join("lib/libzip.so");
        path.canonicalize().unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }
}

/// The JDK that `java` on the PATH belongs to.
pub fn system_jdk() -> Jdk {
    let settings = Command::new("java")
        .args(["-XshowSettings:properties", "-version"])
        .output()
        .expect("`java` is on the PATH");
    let settings = String::from_utf8_lossy(&settings.stderr).into_owned();
    let property = |name: &str| {
        let line = settings.lines().find_map(|line| line.trim().strip_prefix(name));
        line.and_then(|rest| rest.strip_prefix(" = ")).map(str::to_owned)
    };
    let home = property("java.home").expect("a JVM says where it is");
    let version = property("java.specification.version").expect("a JVM says what it is");
    let major = version.trim_start_matches("1.").parse().expect("a version is a number");
    Jdk { home: home.into(), major }
}

/// Every JDK installed where Debian and Temurin install them, and those of `MEMTRACE_TEST_JDKS`, separated by colons;
/// oldest first.
pub fn all_jdks() -> Vec<Jdk> {
    let more = env::var("MEMTRACE_TEST_JDKS").unwrap_or_default();
    let installed = fs::read_dir("/usr/lib/jvm").into_iter().flatten().flatten();
    let installed = installed.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let homes = installed.map(|entry| entry.path()).chain(more.split(':').map(PathBuf::from));
    let mut jdks: Vec<Jdk> = homes
        .filter(|home| home.join("bin/java").is_file())
        .filter_map(|home| Some(Jdk { major: major_of(&home)?, home }))
        .collect();
    jdks.sort_by_key(|jdk| jdk.major);
    jdks
}

/// The folder with the compiled fixtures.
pub fn classes() -> PathBuf {
    let folder = sources("java");
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .expect("the fixtures are there")
        .map(|entry| entry.expect("the folder is readable").path())
        .collect();
    files.sort();
    cached("classes", &files, &(), |output| {
        let mut javac = Command::new("javac");
        javac.args(["--release", "8", "-Xlint:-options", "-encoding", "UTF-8", "-d"]);
        run(javac.arg(output).args(&files));
    })
}

/// The major version in a JDK's `release` file.
fn major_of(home: &Path) -> Option<u32> {
    let release = fs::read_to_string(home.join("release")).ok()?;
    let version = release.lines().find_map(|line| line.strip_prefix("JAVA_VERSION=\""))?;
    version.trim_start_matches("1.").split(['.', '"', '-', '+']).next()?.parse().ok()
}
