//! Running JVMs for the tests: every JDK of the machine, the programs of `tests/java`.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a JVM may take to start on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);

/// The folder of the compiled test programs.
static CLASSES: LazyLock<PathBuf> = LazyLock::new(|| {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/java");
    let dir =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("classes-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let javac = jdks().into_iter().map(|jdk| jdk.join("bin/javac")).find(|javac| javac.exists());
    let javac = javac.expect("no javac below /usr/lib/jvm: install openjdk-17-jdk");
    let mut command = Command::new(javac);
    command.args(["-nowarn", "-encoding", "UTF-8", "--release", "8", "-d"]).arg(&dir);
    for source in fs::read_dir(sources).unwrap() {
        command.arg(source.unwrap().path());
    }
    assert!(command.stderr(Stdio::null()).status().unwrap().success(), "javac failed");
    dir
});

/// The JDKs of this machine: below `/usr/lib/jvm` and in `MEMTRACE_TEST_JDKS`, separated by colons.
pub(crate) fn jdks() -> Vec<PathBuf> {
    let more = std::env::var("MEMTRACE_TEST_JDKS").unwrap_or_default();
    let mut jdks: Vec<PathBuf> = fs::read_dir("/usr/lib/jvm")
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .chain(more.split(':').map(PathBuf::from))
        .filter(|jdk| jdk.join("bin/java").exists())
        .map(|jdk| jdk.canonicalize().unwrap())
        .collect();
    jdks.sort();
    jdks.dedup();
    assert!(!jdks.is_empty(), "no JDK below /usr/lib/jvm: install openjdk-17-jdk");
    jdks
}

/// Whether the test may go on; tells on stderr if it is skipped for want of root.
pub(crate) fn is_root_or_skipped(test: &str) -> bool {
    // SAFETY: takes no argument and cannot fail.
    let is_root = unsafe { libc::geteuid() } == 0;
    if !is_root {
        // Not `eprintln!`, whose output the test harness keeps to itself when the test passes.
        let _ = writeln!(std::io::stderr(), "skipped: {test}: needs root");
    }
    is_root
}

/// A directory that every user may enter, read and write.
fn shared_dir() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    dir
}

/// A JVM that runs a test program; killed when dropped.
pub(crate) struct Jvm {
    child: Child,
    /// The JVM's own pid, which differs from the child's if that is a wrapper.
    pub(crate) pid: u32,
    /// Its working directory, which also holds its output.
    pub(crate) dir: TempDir,
}

impl Jvm {
    /// Starts `jdk`'s JVM with `options`.
    pub(crate) fn start(jdk: &Path, options: &[&str]) -> Self {
        Self::start_with(Command::new(jdk.join("bin/java")), options)
    }

    /// Starts `jdk`'s JVM as another user and group.
    #[allow(dead_code, reason = "not every test that shares this module needs it")]
    pub(crate) fn start_as((uid, gid): (u32, u32), jdk: &Path, options: &[&str]) -> Self {
        let mut java = Command::new(jdk.join("bin/java"));
        if jdk.join("root").exists() {
            // Only root may enter the root that this JVM lies in.
            java.env("MEMTRACE_TEST_USER", format!("{uid}:{gid}"));
        } else {
            java.uid(uid).gid(gid);
        }
        Self::start_with(java, options)
    }

    /// Starts `program` in `jdk`'s JVM with `options`.
    #[allow(dead_code, reason = "not every test that shares this module needs it")]
    pub(crate) fn start_program(jdk: &Path, options: &[&str], program: &str) -> Self {
        Self::run(Command::new(jdk.join("bin/java")), options, program)
    }

    /// Starts `java`, which may be a wrapper's command line, with `options`.
    pub(crate) fn start_with(java: Command, options: &[&str]) -> Self {
        Self::run(java, options, "NamedThreads")
    }

    /// Starts `program` by `java`, which may be a wrapper's command line, with `options`.
    pub(crate) fn run(java: Command, options: &[&str], program: &str) -> Self {
        let mut jvm = Self::begin(java, options, program);
        let start = Instant::now();
        while !jvm.output().contains("ready\n") {
            let is_late = start.elapsed() > START_LIMIT;
            assert!(!is_late && jvm.is_running(), "the JVM did not start: {}", jvm.output());
            thread::sleep(Duration::from_millis(20));
        }
        jvm.pid = innermost_child(jvm.pid);
        jvm
    }

    /// The same, without waiting for anything.
    pub(crate) fn begin(mut java: Command, options: &[&str], program: &str) -> Self {
        let dir = shared_dir();
        let output = File::create(dir.path().join("output")).unwrap();
        // A copy each, because another user's JVM may not enter the build's directory.
        for class in fs::read_dir(&*CLASSES).unwrap() {
            let class = class.unwrap();
            fs::copy(class.path(), dir.path().join(class.file_name())).unwrap();
        }
        java.args(options).args(["-Xmx64m", "-cp", ".", program]);
        java.current_dir(dir.path()).stderr(output.try_clone().unwrap()).stdout(output);
        let child = java.spawn().unwrap();
        Self { pid: child.id(), child, dir }
    }

    /// What it printed so far.
    pub(crate) fn output(&self) -> String {
        fs::read_to_string(self.dir.path().join("output")).unwrap()
    }

    /// Whether it lives.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends it `signal`.
    pub(crate) fn signal(&self, signal: libc::c_int) {
        // SAFETY: takes two numbers; the process is our child and not yet waited for.
        assert_eq!(unsafe { libc::kill(self.pid as i32, signal) }, 0);
    }

    /// Stops it, and waits until it is.
    pub(crate) fn stop(&self) {
        self.signal(libc::SIGSTOP);
        let status = || fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        while !status().contains("\nState:\tT") {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asserts that the JVM has seen no SIGQUIT but one that opened its socket, and that no trigger
    /// file stayed behind.
    pub(crate) fn assert_undisturbed(&mut self) {
        assert!(self.is_running(), "the JVM ended: {}", self.output());
        assert!(!self.output().contains("Full thread dump"), "{}", self.output());
        let left: Vec<_> = [self.dir.path(), Path::new("/tmp")]
            .into_iter()
            .map(|dir| dir.join(format!(".attach_pid{}", self.pid)))
            .filter(|path| path.exists())
            .collect();
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

impl Drop for Jvm {
    fn drop(&mut self) {
        // It may have ended by itself, which the test then says.
        if self.is_running() {
            self.signal(libc::SIGKILL);
        }
        let _ = self.child.wait();
        let _ = fs::remove_file(format!("/tmp/.java_pid{}", self.pid));
    }
}

/// Follows only children from `pid` on: the program that a chain of wrappers runs.
fn innermost_child(pid: u32) -> u32 {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.split_ascii_whitespace().next().map_or(pid, |child| {
        innermost_child(child.parse().expect("the kernel writes numbers here"))
    })
}
