//! A second opinion: bpftrace, which only counts, beside memtrace on the same process.
//!
//! It needs tracefs, which it is given in a mount namespace of its own: the machine stays as it is.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use crate::{fixtures::target_dir, own_mounts::own_mounts, subject::send, turn::Lock};

/// The system calls that are counted.
pub const SYSCALLS: [&str; 10] = [
    "mmap",
    "munmap",
    "mremap",
    "mprotect",
    "pkey_mprotect",
    "brk",
    "madvise",
    "process_madvise",
    "shmat",
    "shmdt",
];

/// Functions of libzip that are counted, by the name that reports use.
const STREAMS: [(&str, &str); 4] = [
    ("inflater_init", "Java_java_util_zip_Inflater_init"),
    ("inflater_end", "Java_java_util_zip_Inflater_end"),
    ("deflater_init", "Java_java_util_zip_Deflater_init"),
    ("deflater_end", "Java_java_util_zip_Deflater_end"),
];

/// How it says that it counts.
const BEGIN: &str = "BEGIN { printf(\"\\ncounting\\n\"); }\n";

/// More than bpftrace takes to print its counts.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// A bpftrace that counts.
#[derive(Debug)]
pub struct Counting {
    /// When two begin at once, one may never run its `BEGIN`.
    _one_at_a_time: Lock,
    child: Child,
    stdout: BufReader<ChildStdout>,
}

/// Starts counting what process `pid` does, and of `libzip` too if it is named.
pub fn count(pid: u32, libzip: Option<&Path>) -> Counting {
    run(&script(pid, libzip))
}

/// Starts counting the calls of functions of `library` that process `pid` makes.
pub fn count_functions(pid: u32, library: &Path, functions: &[&str]) -> Counting {
    let mut script = String::from(BEGIN);
    for function in functions {
        script += &count_function(pid, library, function, function);
    }
    run(&script)
}

fn run(script: &str) -> Counting {
    let one_at_a_time = Lock::exclusive(&target_dir().join("bpftrace.lock"));
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg("mount -t tracefs tracefs /sys/kernel/tracing && exec bpftrace -e \"$1\"")
        .args(["sh", script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = own_mounts(&mut shell).spawn().expect("root may have mounts of its own");
    let stdout = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
    let mut counting = Counting { _one_at_a_time: one_at_a_time, child, stdout };
    counting.await_start();
    counting
}

impl Counting {
    /// Ends it; returns how many calls succeeded, by name.
    pub fn stop(mut self) -> BTreeMap<String, u64> {
        // Where tests run in the background of a shell, SIGINT is ignored, and bpftrace inherits that.
        // It misses a signal that comes while it does not wait for events, so it is asked until it ends.
        while self.child.try_wait().expect("it is our child").is_none() {
            send(self.child.id(), libc::SIGTERM);
            sleep(ASK_EVERY);
        }
        let mut printed = String::new();
        self.stdout.read_to_string(&mut printed).expect("bpftrace prints text");
        self.child.wait().expect("it is our child");
        let count = |line: &str| {
            let (name, n) = line.strip_prefix("@n[")?.split_once("]: ")?;
            Some((name.to_owned(), n.parse().ok()?))
        };
        printed.lines().filter_map(count).collect()
    }

    fn await_start(&mut self) {
        let mut heard = String::new();
        while !heard.contains("\ncounting\n") {
            let length = self.stdout.read_line(&mut heard).expect("bpftrace prints text");
            if length == 0 {
                self.fail(&heard);
            }
        }
    }

    fn fail(&mut self, heard: &str) -> ! {
        let mut errors = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut errors).expect("bpftrace prints text");
        }
        panic!("bpftrace ended: {heard}{errors}");
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        // It has usually ended and been waited for.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn script(pid: u32, libzip: Option<&Path>) -> String {
    let mut script = String::from(BEGIN);
    for call in SYSCALLS {
        // A failing call returns -4095 to -1.
        writeln!(
            script,
            "tracepoint:syscalls:sys_exit_{call} \
             /pid == {pid} && (args->ret >= 0 || args->ret < -4095)/ \
             {{ @n[\"{call}\"] = count(); }}"
        )
        .expect("a string takes everything");
    }
    for (name, function) in STREAMS {
        if let Some(libzip) = libzip {
            script += &count_function(pid, libzip, function, name);
        }
    }
    script
}

fn count_function(pid: u32, library: &Path, function: &str, name: &str) -> String {
    let library = library.display();
    format!("uprobe:{library}:{function} /pid == {pid}/ {{ @n[\"{name}\"] = count(); }}\n")
}
