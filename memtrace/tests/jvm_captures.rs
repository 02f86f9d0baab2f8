//! Recorded JVMs: what was read of them once is read again without a JVM.
//!
//! Each capture holds the memory that reading tables, threads, code and the stacks of `JvmShapes` touched; the text
//! beside it holds names and frames, which were compared with the JVM's own thread dump when it was written.

#![expect(dead_code, reason = "the shared module also has what other tests need")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    cell::Cell,
    fmt::Write as _,
    fs,
    ops::Range,
    path::{Path, PathBuf},
    rc::Rc,
};

use memtrace::{
    jvm::{
        Capture, Certainty, FrameKey, JavaCode, JvmThread, LiveMemory, Memory, NoStep, Recorder,
        TablesError, Unreadable, Vm, libjvm,
    },
    target::maps,
};

mod jvm;

use jvm::{Jvm, jdks};

/// Frames of one stack; the deepest of `JvmShapes` has about 40.
const MAX_FRAMES: usize = 1024;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/jvm_captures")
}

/// Everything that is read of a JVM, as text.
fn read_all(memory: Rc<dyn Memory>, libjvm: u64) -> Result<String, TablesError> {
    let mut text = format!("libjvm {libjvm:#x}\n");
    let mut vm = Vm::open(memory.clone(), libjvm)?;
    writeln!(text, "{:?} {}", vm.release().feature, vm.release().vm).unwrap();
    let mut code = JavaCode::new(&vm)?;
    code.observe(1)?;
    for thread in vm.java_threads()? {
        writeln!(text, "{:?} {}", thread.name, thread.nid).unwrap();
        stack(&vm, &mut code, &*memory, &thread, &mut text);
    }
    Ok(text)
}

fn stack(vm: &Vm, code: &mut JavaCode, memory: &dyn Memory, thread: &JvmThread, text: &mut String) {
    let words = |address: u64| memory.u64(address).ok();
    let mut next = code.last_java_frame(vm, thread);
    for _ in 0..MAX_FRAMES {
        let Some(at) = next else { return };
        let step = match code.step(at, 1, &words) {
            Ok(step) => step,
            Err(error @ (NoStep::Unknown | NoStep::Uncopied(_) | NoStep::Implausible)) => {
                return writeln!(text, "    {error:?}").unwrap();
            }
        };
        for frame in code.frames(step.frame) {
            let (file, line) = (frame.file.as_deref().unwrap_or("?"), frame.line.unwrap_or(0));
            let sure = if step.certainty == Certainty::Exact { "" } else { " ~" };
            let name = format!("{}.{}", frame.class, frame.method);
            writeln!(text, "    {name} {file}:{line} {:?}{sure}", frame.execution).unwrap();
        }
        if let Some(label) = code.label(step.frame) {
            writeln!(text, "    {label}").unwrap();
        }
        let is_entry = step.frame == FrameKey::Entry;
        next = if is_entry { code.before_entry(at.fp, &words) } else { Some(step.caller) };
    }
}

/// Writes the captures anew, one for each JDK of the machine.
#[test]
#[ignore = "writes the files that the other tests read; `jvm_reader` must pass on the same JDKs"]
fn write_captures() {
    fs::create_dir_all(folder()).unwrap();
    for jdk in jdks() {
        let jvm = Jvm::start_program(&jdk, &["-XX:+UseSerialGC"], "JvmShapes");
        jvm.stop();
        let recorder = Rc::new(Recorder::new(LiveMemory::new(jvm.pid)));
        let start = libjvm(&maps::read(jvm.pid).unwrap()).unwrap();
        let text = read_all(recorder.clone(), start).unwrap();
        let version = text.lines().nth(1).unwrap().split(' ').nth(1).unwrap();
        fs::write(folder().join(version), recorder.capture().pack().unwrap()).unwrap();
        fs::write(folder().join(format!("{version}.txt")), text).unwrap();
    }
}

/// The captures: memory, where the library begins, and what is to be read.
fn captures() -> Vec<(Capture, u64, String)> {
    let files = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut captures = Vec::new();
    for path in files.filter(|path| path.extension().is_none_or(|end| end != "txt")) {
        let mut text = path.clone().into_os_string();
        text.push(".txt");
        let text = fs::read_to_string(text).unwrap();
        let start = text.lines().next().unwrap().strip_prefix("libjvm 0x").unwrap();
        let start = u64::from_str_radix(start, 16).unwrap();
        captures.push((Capture::unpack(&fs::read(path).unwrap()).unwrap(), start, text));
    }
    assert!(captures.len() >= 4, "only {} captures", captures.len());
    captures
}

/// What was read of a JVM is read again from its capture.
#[test]
fn replay() {
    for (capture, start, text) in captures() {
        assert_eq!(read_all(Rc::new(capture), start).unwrap(), text);
        // Names, frames of each kind, lines.
        for part in [
            "\"gr\u{fc}n \u{65e5}\u{672c} lambda\"",
            "JvmShapes.recurse JvmShapes.java:63 ",
            " Interpreted",
            "JvmShapes.inner JvmShapes.java:",
            " Inlined",
            " Compiled",
            " Native",
            "JvmShapes$Initialized.<clinit>",
            "[call_stub]",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }
}

/// A recorded JVM whose code cache looks empty until it is shown, with a count of the reads.
#[derive(Debug)]
struct Hidden {
    capture: Capture,
    /// Where its segment maps are.
    maps: Vec<Range<u64>>,
    is_shown: Cell<bool>,
    n_reads: Cell<usize>,
}

impl Memory for Hidden {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        self.n_reads.set(self.n_reads.get() + 1);
        self.capture.read(address, bytes)?;
        if !self.is_shown.get() && self.maps.iter().any(|map| map.contains(&address)) {
            bytes.fill(0xff);
        }
        Ok(())
    }
}

/// Where the segment maps of the code cache's heaps are.
fn segment_maps(vm: &Vm, memory: &dyn Memory) -> Vec<Range<u64>> {
    let structs = vm.structs();
    let offset = |name: &str| structs.offset(name).unwrap();
    let array = memory.u64(structs.address("CodeCache::_heaps").unwrap()).unwrap();
    let len = offset(match structs.offset("GrowableArrayBase::_len") {
        Some(_) => "GrowableArrayBase::_len",
        None => "GenericGrowableArray::_len",
    });
    let len = u64::from(memory.u32(array + len).unwrap());
    let data = memory.u64(array + offset("GrowableArray<int>::_data")).unwrap();
    let map = |n| {
        let space = memory.u64(data + 8 * n).unwrap() + offset("CodeHeap::_segmap");
        let word = |name| memory.u64(space + offset(name)).unwrap();
        word("VirtualSpace::_low")..word("VirtualSpace::_high")
    };
    (0..len).map(map).collect()
}

/// Where no code was found is not looked again for events of before; for later ones it is, and code that has come is
/// found.
#[test]
fn absent_code() {
    for (capture, start, _) in captures() {
        let memory = Rc::new(Hidden {
            capture,
            maps: Vec::new(),
            is_shown: Cell::new(true),
            n_reads: Cell::new(0),
        });
        let vm = Vm::open(memory.clone(), start).unwrap();
        let maps = segment_maps(&vm, &*memory);
        let capture = memory.capture.clone();
        let (is_shown, n_reads) = (Cell::new(false), Cell::new(0));
        let memory = Rc::new(Hidden { capture, maps, is_shown, n_reads });
        let mut vm = Vm::open(memory.clone(), start).unwrap();
        let mut code = JavaCode::new(&vm).unwrap();
        code.observe(1).unwrap();
        let threads = vm.java_threads().unwrap();
        let words = |address: u64| memory.capture.u64(address).ok();
        let at = threads.iter().find_map(|thread| {
            let at = code.last_java_frame(&vm, thread)?;
            // The interpreter is one block, which the capture may hold no segment of.
            Some(at).filter(|at| code.contains(at.pc))
        });
        let at = at.unwrap();
        let mut reads = |time_ns| {
            let before = memory.n_reads.get();
            let step = code.step(at, time_ns, &words);
            (step.is_ok(), memory.n_reads.get() - before)
        };
        let (is_known, n_first) = reads(10);
        assert!(!is_known && n_first > 5, "{n_first}");
        assert_eq!(reads(10), (false, 0));
        assert!(reads(11).1 > 5, "an event after the look");
        assert_eq!(reads(10), (false, 0));
        memory.is_shown.set(true);
        assert_eq!(reads(11), (false, 0), "it came after this event");
        assert!(reads(12).0, "it was there when this one happened");
    }
}
