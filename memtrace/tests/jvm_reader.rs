//! What is read of real JVMs from outside, compared with what they say themselves.

#![expect(dead_code, reason = "the shared module also has what other tests need")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    io::Write,
    path::{Path, PathBuf},
    rc::Rc,
};

use memtrace::{
    jvm::{
        Certainty, Execution, FrameKey, JavaCode, JavaFrame, JvmThread, LiveMemory, Memory, Vm,
        libjvm,
    },
    target::{self, maps},
};

mod dump;
mod jvm;

use dump::{comparable, dump};
use jvm::{Jvm, jdks};

/// A frame as a thread dump shows it.
fn shown(frame: &JavaFrame) -> String {
    let place = match (&frame.file, frame.line, frame.execution) {
        (.., Execution::Native) => "Native Method".to_owned(),
        (Some(file), Some(line), _) => format!("{file}:{line}"),
        (Some(file), None, _) => file.to_string(),
        (None, ..) => "Unknown Source".to_owned(),
    };
    comparable(&format!("{}.{}({place})", frame.class, frame.method))
}

/// A JVM and what reads it.
struct Reader {
    pid: u32,
    memory: Rc<LiveMemory>,
    vm: Vm,
    code: JavaCode,
}

impl Reader {
    fn new(pid: u32) -> Self {
        let memory = Rc::new(LiveMemory::new(pid));
        let vm = Vm::open(memory.clone(), libjvm(&maps::read(pid).unwrap()).unwrap()).unwrap();
        let mut code = JavaCode::new(&vm).unwrap();
        code.observe(1).unwrap();
        Self { pid, memory, vm, code }
    }

    /// All threads that have a name of the VM's.
    fn threads(&mut self) -> Vec<JvmThread> {
        let mut threads = self.vm.java_threads().unwrap();
        let is_java = |nid: u32| threads.iter().any(|thread| thread.nid == nid);
        let unnamed = target::threads(self.pid)
            .into_iter()
            .filter_map(|tid| {
                let nid = target::namespace_tid(self.pid, tid)?;
                Some((nid, target::comm(self.pid, tid)?)).filter(|_| !is_java(nid))
            })
            .collect();
        threads.extend(self.vm.vm_threads(&unnamed));
        threads
    }

    /// The Java frames of a parked thread, past native code from one call stub to the next.
    fn frames(&mut self, thread: &JvmThread) -> Vec<String> {
        self.memory.forget();
        let memory = self.memory.clone();
        let stack = |address: u64| memory.u64(address).ok();
        let mut next = self.code.last_java_frame(&self.vm, thread);
        let mut frames = Vec::new();
        while let Some(at) = next {
            let step = self.code.step(at, 1, &stack).unwrap_or_else(|error| {
                panic!("{error:?} at {at:x?} of {:?} after {frames:#?}", thread.name)
            });
            assert_eq!(step.certainty, Certainty::Exact, "{step:?} of {:?}", thread.name);
            frames.extend(self.code.frames(step.frame).iter().map(shown));
            let is_entry = step.frame == FrameKey::Entry;
            next = if is_entry { self.code.before_entry(at.fp, &stack) } else { Some(step.caller) };
        }
        frames
    }
}

/// Names, ids and frames of all threads of a JVM are what it says itself.
fn assert_same_as_dump(jdk: &Path, options: &[&str]) {
    let jvm = Jvm::start_program(jdk, options, "JvmShapes");
    // The first dump starts a thread that answers, and compiles.
    dump(jvm.pid);
    std::thread::sleep(std::time::Duration::from_millis(300));
    let expected = dump(jvm.pid);
    let mut reader = Reader::new(jvm.pid);
    let threads = reader.threads();
    let what = format!("{} {options:?}", jdk.display());
    let mut n_frames = 0;
    for (nid, (name, frames)) in &expected {
        // Compilers and collectors come and go.
        let Some(thread) = threads.iter().find(|thread| thread.nid == *nid) else {
            let comm = target::comm(jvm.pid, *nid);
            // JDK 8 keeps its collectors' threads where nothing leads to them; the kernel has the beginning.
            let is_known_by_kernel = |comm: Vec<u8>| {
                feature(jdk) == 8 && frames.is_empty() && name.as_bytes().starts_with(&comm)
            };
            assert!(comm.is_none_or(is_known_by_kernel), "{name:?} is missing: {what}");
            continue;
        };
        assert_eq!(thread.name, *name, "{what}");
        // The thread that answers has other frames by now.
        if !name.starts_with("Attach Listener") {
            assert_eq!(reader.frames(thread), *frames, "{name:?}: {what}");
            n_frames += frames.len();
        }
    }
    assert!(n_frames > 60, "only {n_frames} frames were compared: {what}");
    let more = threads.iter().filter(|thread| !expected.contains_key(&thread.nid));
    let more: Vec<&str> = more.map(|thread| &*thread.name).collect();
    assert_eq!(more, [""; 0], "{what}");
}

/// The feature release of a JDK.
fn feature(jdk: &Path) -> u32 {
    let home = target::JavaHome::of_launcher(&jdk.join("bin/java")).unwrap();
    target::feature_release(&home.version().unwrap()).unwrap()
}

fn for_each_jdk(options: &[&str], is_known: impl Fn(u32) -> bool) {
    let jdks: Vec<PathBuf> = jdks().into_iter().filter(|jdk| is_known(feature(jdk))).collect();
    if jdks.is_empty() {
        // Not `eprintln!`, whose output the test harness keeps to itself when the test passes.
        let _ = writeln!(std::io::stderr(), "skipped: {options:?}: no JDK here has this");
    }
    for jdk in &jdks {
        assert_same_as_dump(jdk, options);
    }
}

#[test]
fn default_options() {
    for_each_jdk(&[], |_| true);
}

#[test]
fn interpreter_only() {
    for_each_jdk(&["-Xint"], |_| true);
}

#[test]
fn first_compiler_only() {
    for_each_jdk(&["-XX:TieredStopAtLevel=1"], |_| true);
}

#[test]
fn second_compiler_only() {
    for_each_jdk(&["-XX:-TieredCompilation"], |_| true);
}

#[test]
fn all_compiled() {
    for_each_jdk(&["-Xcomp"], |_| true);
}

#[test]
fn one_heap_of_code() {
    for_each_jdk(&["-XX:-SegmentedCodeCache", "-XX:+UseSerialGC"], |feature| feature >= 9);
}

#[test]
fn uncompressed_references() {
    for_each_jdk(&["-XX:-UseCompressedOops", "-XX:+UseParallelGC"], |_| true);
}

#[test]
fn uncompressed_class_pointers() {
    let options = ["-XX:-UseCompressedOops", "-XX:-UseCompressedClassPointers"];
    for_each_jdk(&options, |feature| feature < 27);
}

#[test]
fn compact_headers() {
    for_each_jdk(&["-XX:+UseCompactObjectHeaders"], |feature| feature >= 25);
}

#[test]
fn z_collector() {
    for_each_jdk(&["-XX:+UseZGC"], |feature| feature >= 15);
}

#[test]
fn generational_z_collector() {
    for_each_jdk(&["-XX:+UseZGC", "-XX:+ZGenerational"], |feature| (21..24).contains(&feature));
}

#[test]
fn shenandoah_collector() {
    for_each_jdk(&["-XX:+UseShenandoahGC"], |feature| feature >= 17);
}
