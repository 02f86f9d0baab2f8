//! A JVM stopped anywhere: what its worker's stack is said to be must be a path of the program's call tree.

#![expect(dead_code, reason = "the shared module also has what other tests need")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    io::Write,
    path::Path,
    rc::Rc,
    time::{Duration, Instant},
};

use memtrace::{
    jvm::{
        Certainty, FrameKey, InterpreterRegisters, JavaCode, JavaFrame, JvmThread, LiveMemory,
        Memory, NoStep, Registers, Vm, libjvm,
    },
    target::maps,
};

mod jvm;

use jvm::{Jvm, jdks};

const STOPS: usize = 1500;
/// Frames of a stack; the tree has 9 levels of 2 methods each.
const MAX_FRAMES: usize = 200;

/// A thread that is stopped until this is dropped.
struct Stopped {
    tid: libc::pid_t,
    regs: libc::user_regs_struct,
}

impl Stopped {
    fn new(tid: u32) -> Self {
        let tid = tid.cast_signed();
        let request = |request, data: *mut libc::c_void| {
            // SAFETY: `data` is null or room for the registers, which is what these requests want.
            let result =
                unsafe { libc::ptrace(request, tid, std::ptr::null_mut::<libc::c_void>(), data) };
            assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        };
        request(libc::PTRACE_SEIZE, std::ptr::null_mut());
        request(libc::PTRACE_INTERRUPT, std::ptr::null_mut());
        let mut status = 0;
        // SAFETY: `status` is a number that is written to.
        assert_eq!(unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL) }, tid);
        // SAFETY: the structure consists of numbers.
        let mut regs: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        request(libc::PTRACE_GETREGS, (&raw mut regs).cast());
        Self { tid, regs }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: takes no memory.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.tid, none, none) };
    }
}

/// What came of the stops.
#[derive(Debug, Default)]
struct Seen {
    in_java: usize,
    in_native: usize,
    approximate: usize,
    /// Approximate ones that are no path of the tree; an exact one must be.
    wrong: usize,
    unsteppable: usize,
    frames: usize,
}

struct Walker {
    memory: Rc<LiveMemory>,
    vm: Vm,
    code: JavaCode,
    start: Instant,
    seen: Seen,
    /// Whether the last walk was all exact.
    is_exact: bool,
    /// The steps of the last walk.
    trace: Vec<String>,
}

impl Walker {
    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// The stack of the stopped worker, innermost first; `None` where the thread has left Java without a trace.
    fn walk(&mut self, thread: &JvmThread) -> Option<Result<Vec<JavaFrame>, NoStep>> {
        let stopped = Stopped::new(thread.nid);
        self.trace.clear();
        self.memory.forget();
        let regs = stopped.regs;
        let at = Registers { pc: regs.rip, sp: regs.rsp, fp: regs.rbp };
        let (time_ns, memory) = (self.now_ns(), self.memory.clone());
        let stack = |address: u64| memory.u64(address).ok();
        let (mut frames, mut certainty) = (Vec::new(), Certainty::Exact);
        let mut next = if self.code.contains(at.pc) {
            self.seen.in_java += 1;
            let interpreter = InterpreterRegisters { rbx: regs.rbx, r13: regs.r13 };
            match self.code.step_interrupted(at, interpreter, time_ns, &stack) {
                Ok(step) => {
                    certainty = step.certainty;
                    self.trace.push(format!("{at:x?} {step:x?} {:?}", self.code.label(step.frame)));
                    // What is inlined at an instruction between two described ones is not known exactly.
                    frames.extend(self.code.frames(step.frame).pop());
                    Some(step.caller)
                }
                Err(error) => return Some(Err(error)),
            }
        } else {
            let at = self.code.last_java_frame(&self.vm, thread)?;
            self.seen.in_native += 1;
            Some(at)
        };
        for _ in 0..MAX_FRAMES {
            let Some(at) = next else { break };
            let step = match self.code.step(at, time_ns, &stack) {
                Ok(step) => step,
                Err(error) => return Some(Err(error)),
            };
            certainty = certainty.max(step.certainty);
            self.trace.push(format!("{at:x?} {step:x?} {:?}", self.code.label(step.frame)));
            frames.extend(self.code.frames(step.frame));
            let is_entry = step.frame == FrameKey::Entry;
            next = if is_entry { self.code.before_entry(at.fp, &stack) } else { Some(step.caller) };
        }
        self.is_exact = certainty == Certainty::Exact;
        self.seen.approximate += usize::from(!self.is_exact);
        self.seen.frames += frames.len();
        Some(Ok(frames))
    }
}

/// Whether `frames` is a path of the tree: `run`, `work`, then `next` and `level` by turns, at last `leaf` and what the
/// library does.
fn is_path(frames: &[JavaFrame]) -> bool {
    let own = frames.iter().rev().filter(|frame| frame.class.starts_with("JvmCallTree"));
    let names: Vec<&str> = own.map(|frame| &*frame.method).collect();
    let is_started = frames
        .last()
        .is_some_and(|frame| &*frame.class == "java.lang.Thread" && &*frame.method == "run");
    let Some(work) = names.iter().position(|name| *name == "work") else { return false };
    let calls = &names[work + 1..];
    let levels: Vec<&str> = calls.iter().copied().filter(|name| *name != "leaf").collect();
    let is_alternating =
        levels.iter().enumerate().all(|(n, name)| *name == ["next", "level"][n % 2]);
    // Only the ninth level calls the leaf, and the leaf none of ours.
    let is_leaf_last = match calls.iter().position(|name| *name == "leaf") {
        Some(at) => at + 1 == calls.len() && levels.len() == 18,
        None => true,
    };
    is_started && is_alternating && is_leaf_last
}

fn stop_often(jdk: &Path, options: &[&str]) {
    let jvm = Jvm::start_program(jdk, options, "JvmCallTree");
    let what = format!("{} {options:?}", jdk.display());
    let memory = Rc::new(LiveMemory::new(jvm.pid));
    let start = libjvm(&maps::read(jvm.pid).unwrap()).unwrap();
    let vm = Vm::open(memory.clone(), start).unwrap();
    let code = JavaCode::new(&vm).unwrap();
    let mut walker = Walker {
        memory,
        vm,
        code,
        start: Instant::now(),
        seen: Seen::default(),
        is_exact: true,
        trace: Vec::new(),
    };
    let threads = walker.vm.java_threads().unwrap();
    let worker = threads.iter().find(|thread| thread.name == "worker").unwrap();
    let (mut changes, mut worst) = (0, Duration::ZERO);
    for n in 0..STOPS {
        if n % 50 == 0 {
            let before = Instant::now();
            let now_ns = walker.now_ns();
            let seen = walker.code.observe(now_ns).unwrap();
            changes += seen.n_new + seen.gone.len();
            worst = worst.max(before.elapsed());
        }
        match walker.walk(worker) {
            Some(Ok(frames)) if is_path(&frames) => {}
            Some(Ok(frames)) => {
                let steps = &walker.trace[..walker.trace.len().min(3)];
                assert!(!walker.is_exact, "{what}: {frames:#?} {steps:#?}");
                walker.seen.wrong += 1;
            }
            Some(Err(_)) => walker.seen.unsteppable += 1,
            None => {}
        }
        std::thread::sleep(Duration::from_micros(700 + n as u64 % 13 * 100));
    }
    let Seen { in_java, in_native, approximate, unsteppable, wrong, .. } = walker.seen;
    let _ = writeln!(
        std::io::stderr(),
        "{what}: {:?}, {changes} changes of code, slowest look {worst:?}",
        walker.seen
    );
    assert!(in_java > STOPS / 3, "{what}: the worker was in Java only {in_java} times");
    assert!(unsteppable * 100 < in_java + in_native, "{what}: {unsteppable} without an end");
    assert!(wrong * 100 < in_java + in_native, "{what}: {wrong} wrong");
    // The first compiler leaves a fifth of the time to stubs, and what was interrupted there is never sure.
    assert!(approximate * 3 < in_java + in_native, "{what}: {approximate} approximate");
}

/// Stops are at random: with `cargo xtask test --all` only, for one stop in ten thousand has found something yet.
fn stop_every_jdk(test: &str, options: &[&str]) {
    if std::env::var_os("MEMTRACE_TEST_ALL").is_none() {
        // Not `eprintln!`, whose output the test harness keeps to itself when the test passes.
        let _ = writeln!(std::io::stderr(), "skipped: {test}: runs with `cargo xtask test --all`");
        return;
    }
    jdks().iter().for_each(|jdk| stop_often(jdk, options));
}

#[test]
fn default_options() {
    stop_every_jdk("default_options", &[]);
}

#[test]
fn first_compiler_only() {
    stop_every_jdk("first_compiler_only", &["-XX:TieredStopAtLevel=1"]);
}

#[test]
fn small_code_cache() {
    stop_every_jdk("small_code_cache", &["-XX:ReservedCodeCacheSize=5m"]);
}

#[test]
fn interpreter_only() {
    stop_every_jdk("interpreter_only", &["-Xint"]);
}
