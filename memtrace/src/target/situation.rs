//! What of a process matters to whoever is about to trace it.
//!
//! In: a pid. Out: facts; what can't be read is `None`. Nothing is judged here and nothing is done to the process.

use std::path::{Path, PathBuf};

use super::{
    JavaHome, Library, allocator, command_line, is_frozen,
    proc::{self, status_field, status_number},
    threads, zlib_libraries,
};

/// The namespaces that are compared.
const NAMESPACES: [&str; 5] = ["pid", "mnt", "user", "net", "cgroup"];

/// A process, looked at from where memtrace is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Situation {
    /// Its id.
    pub pid: u32,
    /// Its command line.
    pub command: Vec<String>,
    /// How many threads it has.
    pub n_threads: usize,
    /// The user it runs as.
    pub uid: Option<u64>,
    /// Whether it runs.
    pub activity: Activity,
    /// Its Java virtual machine.
    pub jvm: Option<Jvm>,
    /// Its allocator, such as `glibc 2.36`.
    pub allocator: Option<String>,
    /// Its zlib libraries for Java, mapped or not, each once.
    pub libzips: Vec<Library>,
    /// The namespaces it has that are not memtrace's; `None` where they can't be compared.
    pub other_namespaces: Option<Vec<&'static str>>,
    /// Whether its root folder is memtrace's.
    pub same_root: Option<bool>,
}

/// Whether a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// It runs, or waits for something.
    Running,
    /// A signal stopped it.
    Stopped,
    /// A debugger stopped it.
    HeldBy(u32),
    /// Its control group is frozen.
    Frozen,
}

/// A Java virtual machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jvm {
    /// Its version, where its folder says it.
    pub version: Option<String>,
}

impl Situation {
    /// Looks at process `pid`.
    pub fn of(pid: u32) -> Self {
        let status = proc::text(pid, "status");
        let jvm = JavaHome::of_process(pid).map(|home| Jvm { version: home.version() });
        Self {
            pid,
            command: command_line(pid),
            n_threads: threads(pid).len(),
            uid: status_number(&status, "Uid:"),
            activity: activity(&status, is_frozen(pid)),
            libzips: if jvm.is_some() {
                zlib_libraries(pid, false).into_iter().flatten().collect()
            } else {
                Vec::new()
            },
            jvm,
            allocator: allocator(pid),
            other_namespaces: other_namespaces(pid),
            same_root: same_root(pid),
        }
    }
}

fn activity(status: &str, is_frozen: bool) -> Activity {
    let state = status_field(status, "State:").and_then(|state| state.chars().next());
    let tracer = status_number(status, "TracerPid:").and_then(|pid| u32::try_from(pid).ok());
    match (state, tracer) {
        (Some('t'), Some(tracer)) if tracer != 0 => Activity::HeldBy(tracer),
        (Some('T' | 't'), _) => Activity::Stopped,
        _ if is_frozen => Activity::Frozen,
        _ => Activity::Running,
    }
}

fn other_namespaces(pid: u32) -> Option<Vec<&'static str>> {
    let mut others = Vec::new();
    for namespace in NAMESPACES {
        let [ours, its] = [PathBuf::from("/proc/self"), proc::folder(pid)]
            .map(|folder| folder.join("ns").join(namespace));
        if !is_same_file(&ours, &its)? {
            others.push(namespace);
        }
    }
    Some(others)
}

fn same_root(pid: u32) -> Option<bool> {
    is_same_file(Path::new("/"), &proc::folder(pid).join("root"))
}

fn is_same_file(one: &Path, other: &Path) -> Option<bool> {
    use std::os::unix::fs::MetadataExt;
    let [one, other] = [one.metadata().ok()?, other.metadata().ok()?];
    Some((one.dev(), one.ino()) == (other.dev(), other.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activities() {
        // (status, whether its group is frozen, what it does)
        let cases = [
            ("State:\tS (sleeping)\nTracerPid:\t0\n", false, Activity::Running),
            ("State:\tR (running)\nTracerPid:\t77\n", false, Activity::Running),
            ("State:\tT (stopped)\nTracerPid:\t0\n", false, Activity::Stopped),
            ("State:\tt (tracing stop)\nTracerPid:\t77\n", false, Activity::HeldBy(77)),
            ("State:\tS (sleeping)\nTracerPid:\t0\n", true, Activity::Frozen),
            ("", false, Activity::Running),
        ];
        for (status, is_frozen, want) in cases {
            assert_eq!(activity(status, is_frozen), want, "{status:?}");
        }
    }

    /// The test itself is no JVM, runs, and is where it is.
    #[test]
    fn this_process() {
        let situation = Situation::of(std::process::id());
        assert_eq!(situation.activity, Activity::Running);
        assert_eq!((situation.jvm, situation.libzips), (None, Vec::new()));
        assert_eq!(situation.other_namespaces, Some(Vec::new()));
        assert_eq!(situation.same_root, Some(true));
        assert!(situation.n_threads > 0 && situation.uid.is_some());
    }

    /// Of a process that does not exist nothing is known.
    #[test]
    fn no_process() {
        let situation = Situation::of(u32::MAX - 1);
        assert_eq!((situation.n_threads, situation.uid), (0, None));
        assert_eq!((situation.other_namespaces, situation.same_root), (None, None));
    }
}
