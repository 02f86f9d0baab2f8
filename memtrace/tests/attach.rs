//! Attaching to real JVMs, of every JDK that the machine has.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use memtrace::attach::{self, AttachError};
use memtrace::jvm::thread_dump;
use memtrace_tests::own_mounts::own_mounts;

mod jvm;

use jvm::{Jvm, is_root_or_skipped, jdks};

/// The user and group of a JVM that is not ours.
const OTHER: (u32, u32) = (65534, 65533);

fn ask(pid: u32, command: &str, args: &[&str]) -> Result<String, AttachError> {
    attach::command(pid, command, args, Duration::from_secs(30))
}

/// Names that `NamedThreads` gives, with what the dump makes of them.
const NAMES: [&str; 7] = [
    "plain",
    "",
    "with \"quotes\" inside",
    "\"fake\" #9 prio=5 tid=0x1 nid=0x99 x",
    "back\\slash; tab\t, escape \u{1b}[31m",
    "two\nlines",
    "gr\u{fc}n \u{65e5}\u{672c}",
];

/// Asserts that a thread dump names the JVM's threads as the kernel does, which cuts names off
/// after 15 bytes.
fn assert_names_threads(pid: u32) {
    let dump = ask(pid, "threaddump", &[]).unwrap();
    let threads = thread_dump::parse(&dump);
    for name in NAMES {
        let n = threads.iter().filter(|thread| thread.name == name).count();
        assert_eq!(n, 1, "{name:?} in {dump}");
    }
    let tids = tids(pid);
    let mut n_compared = 0;
    for thread in &threads {
        let tid = tids.iter().find(|(_, ns_tid)| *ns_tid == thread.nid).map(|(tid, _)| tid);
        let tid = tid.unwrap_or_else(|| panic!("{thread:?} does not exist: {dump}"));
        let comm = fs::read(format!("/proc/{pid}/task/{tid}/comm")).unwrap();
        let comm = &comm[..comm.len() - 1];
        // The first thread keeps the command's name, an empty name is not set.
        if thread.name == "main" || thread.name.is_empty() {
            continue;
        }
        let expected = &thread.name.as_bytes()[..thread.name.len().min(15)];
        let is_same = comm == expected || comm.len() == 15 && comm.contains(&b'.');
        assert!(is_same, "{thread:?}: {}", comm.escape_ascii());
        n_compared += 1;
    }
    assert!(n_compared > NAMES.len(), "{dump}");
}

/// The threads of a process: their ids here, and in its own pid namespace.
fn tids(pid: u32) -> Vec<(u32, u32)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let statuses = tasks.filter_map(|task| fs::read(task.unwrap().path().join("status")).ok());
    statuses
        .map(|status| {
            let status = String::from_utf8_lossy(&status).into_owned();
            let line = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap();
            let ids: Vec<u32> =
                line.split_ascii_whitespace().map(|id| id.parse().unwrap()).collect();
            (ids[0], *ids.last().unwrap())
        })
        .collect()
}

/// The first question makes the JVM open its socket, the second finds it there.
#[test]
fn names_threads() {
    for jdk in jdks() {
        let mut jvm = Jvm::start(&jdk, &["-Dfile.encoding=UTF-8"]);
        assert_names_threads(jvm.pid);
        jvm.assert_undisturbed();
        assert_names_threads(jvm.pid);
        jvm.assert_undisturbed();
    }
}

/// `jcmd` takes a whole line, and what the JVM does not know is an error that says so.
#[test]
fn commands() {
    for jdk in jdks() {
        let jvm = Jvm::start(&jdk, &[]);
        let version = ask(jvm.pid, "jcmd", &["VM.version"]).unwrap();
        assert!(version.contains("64-Bit Server VM"), "{version}");
        let error = ask(jvm.pid, "no-such-command", &[]).unwrap_err();
        assert!(matches!(error, AttachError::CommandFailed { .. }), "{error:?}");
        let error = ask(jvm.pid, "jcmd", &["No.such"]).unwrap_err();
        let text = error.to_string();
        assert!(text.ends_with("Unknown diagnostic command"), "{text}");
    }
}

/// Another user's JVM answers root.
#[test]
fn other_user() {
    if !is_root_or_skipped("other_user") {
        return;
    }
    for jdk in jdks() {
        let mut jvm = Jvm::start_as(OTHER, &jdk, &["-Dfile.encoding=UTF-8"]);
        assert_names_threads(jvm.pid);
        jvm.assert_undisturbed();
    }
}

/// Starts a JVM in namespaces of its own after `setup`, a line of shell.
fn start_in_namespaces(jdk: &Path, setup: &str) -> Jvm {
    let mut unshare = Command::new("unshare");
    own_mounts(&mut unshare).args(["--pid", "--fork", "--kill-child", "sh", "-c"]);
    unshare.arg(format!("mount -t proc proc /proc && {setup} && exec \"$@\""));
    unshare.arg("sh").arg(jdk.join("bin/java"));
    Jvm::start_with(unshare, &["-Dfile.encoding=UTF-8", "-Xbootclasspath/a:/mnt"])
}

/// A JVM in a container-like place, with another pid and another /tmp, answers too.
#[test]
fn own_namespaces() {
    if !is_root_or_skipped("own_namespaces") {
        return;
    }
    let setup = "mount --bind . /mnt && mount -t tmpfs tmpfs /tmp";
    for jdk in jdks() {
        let mut jvm = start_in_namespaces(&jdk, setup);
        assert_names_threads(jvm.pid);
        jvm.assert_undisturbed();
        let private_tmp = fs::read_dir(format!("/proc/{}/root/tmp", jvm.pid)).unwrap();
        let names: Vec<_> = private_tmp.map(|entry| entry.unwrap().file_name()).collect();
        assert!(!names.iter().any(|name| name.to_string_lossy().starts_with(".attach_pid")));
        assert!(names.contains(&".java_pid1".into()), "{names:?}");
    }
}

/// Where the JVM cannot make its socket it is not even asked to.
#[test]
fn read_only_tmp() {
    if !is_root_or_skipped("read_only_tmp") {
        return;
    }
    let setup = "mount --bind . /mnt && mount -t tmpfs tmpfs /tmp && mount -o remount,ro /tmp";
    for jdk in jdks() {
        let mut jvm = start_in_namespaces(&jdk, setup);
        let error = ask(jvm.pid, "threaddump", &[]).unwrap_err();
        assert!(matches!(error, AttachError::TmpNotWritable { .. }), "{error:?}");
        jvm.assert_undisturbed();
    }
}

/// A SIGQUIT that would do harm is not sent.
#[test]
fn unwilling() {
    for jdk in jdks() {
        let mut jvm = Jvm::start(&jdk, &["-Xrs"]);
        let error = ask(jvm.pid, "threaddump", &[]).unwrap_err();
        assert!(matches!(error, AttachError::SigquitNotHandled { .. }), "{error:?}");
        jvm.assert_undisturbed();

        let mut jvm = Jvm::start(&jdk, &["-XX:+DisableAttachMechanism"]);
        let error = ask(jvm.pid, "threaddump", &[]).unwrap_err();
        assert!(matches!(error, AttachError::Disabled { .. }), "{error:?}");
        jvm.assert_undisturbed();
    }
}

/// A stopped JVM is named as such at once, and answers when it runs again.
#[test]
fn stopped() {
    for jdk in jdks() {
        let mut jvm = Jvm::start(&jdk, &[]);
        jvm.stop();
        let error = ask(jvm.pid, "threaddump", &[]).unwrap_err();
        assert!(matches!(error, AttachError::NotRunning { state: "stopped", .. }), "{error:?}");
        jvm.signal(libc::SIGCONT);
        ask(jvm.pid, "threaddump", &[]).unwrap();
        jvm.assert_undisturbed();
    }
}

/// What is no JVM lives on, and what is gone is told apart.
#[test]
fn not_a_jvm() {
    let mut child = Command::new("sleep").arg("600").spawn().unwrap();
    let error = ask(child.id(), "threaddump", &[]).unwrap_err();
    assert!(matches!(error, AttachError::NotHotSpot { .. }), "{error:?}");
    assert_eq!(child.try_wait().unwrap(), None);
    child.kill().unwrap();
    let zombie = ask(child.id(), "threaddump", &[]).unwrap_err();
    child.wait().unwrap();
    let gone = ask(child.id(), "threaddump", &[]).unwrap_err();
    assert!(matches!(gone, AttachError::NoSuchProcess { .. }), "{gone:?}");
    assert!(!zombie.to_string().contains('\n'));
}

/// A file of another user with the name of the trigger or of the socket is neither.
#[test]
fn foreign_files() {
    if !is_root_or_skipped("foreign_files") {
        return;
    }
    for jdk in jdks() {
        let mut jvm = Jvm::start_as(OTHER, &jdk, &[]);

        let trigger = jvm.dir.path().join(format!(".attach_pid{}", jvm.pid));
        fs::write(&trigger, "").unwrap();
        let error = ask(jvm.pid, "threaddump", &[]).unwrap_err();
        assert!(matches!(error, AttachError::Trigger { .. }), "{error:?}");
        fs::remove_file(trigger).unwrap();

        let socket = format!("/tmp/.java_pid{}", jvm.pid);
        let _listener = UnixListener::bind(&socket).unwrap();
        let error = ask(jvm.pid, "threaddump", &[]).unwrap_err();
        assert!(matches!(error, AttachError::ForeignSocket { uid: 0, .. }), "{error:?}");
        fs::remove_file(socket).unwrap();
        jvm.assert_undisturbed();
    }
}

/// Beside another tool that is attaching no second signal is sent: a JVM with its socket open would print its threads. A
/// trigger file that was left behind keeps nobody from attaching.
#[test]
fn another_tool_attaches() {
    for jdk in jdks() {
        let mut jvm = Jvm::start(&jdk, &[]);
        let trigger = jvm.dir.path().join(format!(".attach_pid{}", jvm.pid));
        fs::write(&trigger, "").unwrap();
        let began = Instant::now();
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| ask(jvm.pid, "threaddump", &[]).unwrap());
            std::thread::sleep(Duration::from_millis(500));
            assert!(
                !Path::new(&format!("/tmp/.java_pid{}", jvm.pid)).exists(),
                "a signal was sent"
            );
            jvm.signal(libc::SIGQUIT);
            asked.join().unwrap();
        });
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        fs::remove_file(&trigger).unwrap();
        jvm.assert_undisturbed();

        let mut jvm = Jvm::start(&jdk, &[]);
        let trigger = jvm.dir.path().join(format!(".attach_pid{}", jvm.pid));
        fs::write(&trigger, "").unwrap();
        attach::command(jvm.pid, "threaddump", &[], Duration::from_secs(4)).unwrap();
        fs::remove_file(&trigger).unwrap();
        jvm.assert_undisturbed();
    }
}

/// A socket that nobody listens on is refused; one that was deleted is made again.
#[test]
fn dead_and_deleted_sockets() {
    for jdk in jdks() {
        let mut jvm = Jvm::start(&jdk, &[]);
        let socket = format!("/tmp/.java_pid{}", jvm.pid);
        drop(UnixListener::bind(&socket).unwrap());
        let error = ask(jvm.pid, "threaddump", &[]).unwrap_err();
        assert!(matches!(error, AttachError::SocketRefused { .. }), "{error:?}");
        fs::remove_file(&socket).unwrap();

        ask(jvm.pid, "threaddump", &[]).unwrap();
        fs::remove_file(&socket).unwrap();
        ask(jvm.pid, "threaddump", &[]).unwrap();
        jvm.assert_undisturbed();
    }
}
