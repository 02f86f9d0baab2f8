//! `memtrace stacks` on real JVMs, compared with what they say themselves.

#![expect(dead_code, reason = "the shared module also has what other tests need")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{collections::BTreeMap, path::Path, process::Command, time::Duration};

use serde_json::Value;

mod dump;
mod jvm;

use dump::{comparable, dump};
use jvm::{Jvm, is_root_or_skipped, jdks};

/// What is said of one thread.
struct Thread {
    name: String,
    name_from: String,
    consistent: bool,
    quality: String,
    /// Java's, innermost first, as a thread dump shows them.
    frames: Vec<String>,
    outermost: String,
}

fn stacks(pid: u32, options: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_memtrace"));
    let output = command.args(["stacks", "--json"]).args(options).arg(pid.to_string()).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The threads of process `pid` by id.
fn threads(pid: u32, options: &[&str]) -> BTreeMap<u32, Thread> {
    let document = stacks(pid, options);
    assert_eq!(document["notes"].as_array().unwrap().len(), 0, "{}", document["notes"]);
    let rows = document["threads"].as_array().unwrap();
    rows.iter().map(|row| (row["nid"].as_u64().unwrap() as u32, thread(row))).collect()
}

fn thread(row: &Value) -> Thread {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let frames = row["frames"].as_array().unwrap();
    Thread {
        name: text(&row["name"]),
        name_from: text(&row["name_from"]),
        consistent: row["consistent"].as_bool().unwrap(),
        quality: text(&row["quality"]),
        frames: frames.iter().rev().filter_map(shown).collect(),
        // A thread that was stopped in code that nobody knows has none.
        outermost: frames.first().map(|frame| text(&frame["module"])).unwrap_or_default(),
    }
}

/// A frame of Java's as a thread dump shows it.
fn shown(frame: &Value) -> Option<String> {
    let place = match (frame["kind"].as_str()?, frame["file"].as_str(), frame["line"].as_u64()) {
        ("native" | "java" | "stub", ..) => return None,
        ("java_native", ..) => "Native Method".into(),
        (_, Some(file), Some(line)) => format!("{file}:{line}"),
        (_, Some(file), None) => file.to_owned(),
        (_, None, _) => "Unknown Source".into(),
    };
    Some(comparable(&format!("{}({place})", frame["name"].as_str()?)))
}

/// Every parked thread has its name and its frames, in a stack that goes to the thread's first frame and is consistent.
fn assert_same_as_dump(jdk: &Path, java: Command, options: &[&str], of_memtrace: &[&str]) {
    let jvm = Jvm::run(java, options, "JvmShapes");
    // The first dump starts a thread that answers, and compiles.
    dump(jvm.pid);
    std::thread::sleep(Duration::from_millis(500));
    let expected = dump(jvm.pid);
    let threads = threads(jvm.pid, of_memtrace);
    let what = format!("{} {options:?} {of_memtrace:?}", jdk.display());
    let mut n_frames = 0;
    // The thread that answers has other frames by now; the VM's own have none in the dump.
    let is_comparable =
        |name: &str, frames: &[String]| !name.starts_with("Attach Listener") && !frames.is_empty();
    for (nid, (name, frames)) in &expected {
        if !is_comparable(name, frames) {
            continue;
        }
        let thread = threads.get(nid).unwrap_or_else(|| panic!("{name:?} is missing: {what}"));
        assert_eq!((&thread.name, &*thread.name_from), (name, "vm"), "{what}");
        assert_eq!(thread.frames, *frames, "{name:?}: {what}");
        assert!(thread.consistent, "{name:?}: {what}");
        assert_eq!(thread.quality, "complete", "{name:?}: {what}");
        assert!(thread.outermost.starts_with("libc"), "{name:?}: {what}");
        n_frames += frames.len();
    }
    assert!(n_frames > 60, "only {n_frames} frames were compared: {what}");
}

#[test]
fn equal_to_a_thread_dump() {
    if !is_root_or_skipped("equal_to_a_thread_dump") {
        return;
    }
    for jdk in jdks() {
        let java = || Command::new(jdk.join("bin/java"));
        assert_same_as_dump(&jdk, java(), &[], &[]);
        assert_same_as_dump(&jdk, java(), &[], &["--freeze"]);
        assert_same_as_dump(&jdk, java(), &["-Xcomp"], &[]);
    }
}

/// In a pid namespace of its own the JVM's ids are others than here.
#[test]
fn in_another_namespace() {
    if !is_root_or_skipped("in_another_namespace") {
        return;
    }
    let jdk = jdks().remove(0);
    let mut java = Command::new("unshare");
    java.args(["--pid", "--fork", "--kill-child"]).arg(jdk.join("bin/java"));
    assert_same_as_dump(&jdk, java, &[], &[]);
}

/// A JVM that computes is stopped anywhere: its worker's frames are Java's up to the thread's start.
#[test]
fn stopped_while_it_computes() {
    if !is_root_or_skipped("stopped_while_it_computes") {
        return;
    }
    for jdk in jdks() {
        let mut jvm = Jvm::start_program(&jdk, &[], "JvmCallTree");
        let (mut n_complete, mut n_work) = (0, 0);
        for _ in 0..20 {
            let threads = threads(jvm.pid, &["--freeze"]);
            let worker = threads.values().find(|thread| thread.name == "worker").unwrap();
            assert!(worker.consistent);
            let is_whole = worker.quality == "complete" || worker.quality == "approximate";
            n_complete += usize::from(is_whole);
            let is_work = worker.frames.iter().any(|frame| frame.contains(".work("));
            n_work += usize::from(is_whole && is_work);
        }
        assert!(n_complete >= 18, "{}: {n_complete} of 20", jdk.display());
        assert!(n_work >= 18, "{}: {n_work} of 20 have the worker's method", jdk.display());
        assert!(jvm.is_running(), "{}", jvm.output());
    }
}

/// From its first moment on a JVM can be looked at: what can't be read yet is missing, or said, and nothing is wrong.
#[test]
fn while_it_starts() {
    if !is_root_or_skipped("while_it_starts") {
        return;
    }
    for jdk in jdks() {
        let (mut n_stacks, mut n_whole) = (0, 0);
        for ms in 0..40 {
            let jvm = Jvm::begin(Command::new(jdk.join("bin/java")), &[], "JvmShapes");
            std::thread::sleep(Duration::from_millis(4 * ms));
            for row in stacks(jvm.pid, &[])["threads"].as_array().unwrap() {
                let is_whole =
                    ["complete", "approximate"].contains(&row["quality"].as_str().unwrap());
                n_stacks += usize::from(row["consistent"] == true);
                n_whole += usize::from(row["consistent"] == true && is_whole);
            }
        }
        let what = format!("{}: {n_whole} of {n_stacks}", jdk.display());
        assert!(n_stacks > 200 && n_whole * 100 >= n_stacks * 95, "{what}");
    }
}
