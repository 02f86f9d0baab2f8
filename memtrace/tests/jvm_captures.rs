//! Recorded JVMs: what was read of them once is read again without a JVM, whole and damaged.
//!
//! Each capture holds the memory that reading tables, threads, code and the stacks of `JvmShapes` touched; the text
//! beside it holds names and frames, which were compared with the JVM's own thread dump when it was written.

#![expect(dead_code, reason = "the shared module also has what other tests need")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    cell::Cell,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    rc::Rc,
    time::{Duration, Instant},
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

/// Numbers that look random, the same on every run.
#[derive(Debug)]
struct Random(Cell<u64>);

impl Random {
    fn next(&self) -> u64 {
        let mut x = self.0.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0.set(x);
        x
    }
}

/// A capture with damage, in a world where every address can be read.
#[derive(Debug)]
struct Hostile {
    capture: Capture,
    /// Whether what was not captured is noise; else it can't be read.
    is_endless: bool,
}

impl Memory for Hostile {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        let known = self.capture.read(address, bytes);
        if known.is_ok() || !self.is_endless {
            return known;
        }
        for (n, byte) in bytes.iter_mut().enumerate() {
            let at = address.wrapping_add(n as u64);
            *byte = (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
        }
        Ok(())
    }
}

/// Damaged memory makes no reader panic, loop or take more than it may.
#[test]
fn damage() {
    let captures = captures();
    let random = Random(Cell::new(88_172_645_463_325_252));
    let start = Instant::now();
    let mut n_changed = 0;
    for round in 0..400 {
        let (capture, libjvm, text) = &captures[round % captures.len()];
        let ranges: Vec<(u64, usize)> =
            capture.ranges().map(|(at, bytes)| (at, bytes.len())).collect();
        let mut damaged = capture.clone();
        for _ in 0..1 << (round % 12) {
            let (at, len) = ranges[random.next() as usize % ranges.len()];
            let place = at + random.next() % len as u64;
            // A byte, or a word that leads somewhere else.
            let word = match random.next() % 4 {
                0 => u64::MAX.to_le_bytes(),
                1 => at.to_le_bytes(),
                2 => random.next().to_le_bytes(),
                _ => [random.next() as u8; 8],
            };
            let len = (at + len as u64 - place).min(1 + 7 * (random.next() & 1));
            damaged.insert(place, &word[..len as usize]);
        }
        let hostile = Hostile { capture: damaged, is_endless: round % 2 == 1 };
        let seen = read_all(Rc::new(hostile), *libjvm);
        n_changed += usize::from(seen.ok().as_ref() != Some(text));
        assert!(start.elapsed() < Duration::from_secs(300), "round {round} takes too long");
    }
    assert!(n_changed > 100, "the damage changed only {n_changed} results");
}
