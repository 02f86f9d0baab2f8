//! A JVM stopped anywhere: what its worker's stack is said to be must be a path of the program's call tree. And one that
//! is stopped at each instruction of a piece of code: its caller is the one that was seen to call.

#![expect(dead_code, reason = "the shared module also has what other tests need")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    io::Write,
    path::Path,
    rc::Rc,
    time::{Duration, Instant},
};

use iced_x86::{Decoder, Instruction, Mnemonic};
use memtrace::{
    jvm::{
        Certainty, FrameKey, InterpreterRegisters, JavaCode, JavaFrame, JvmThread, LiveMemory,
        Memory, NoStep, Registers, Step, Vm, libjvm,
    },
    target::maps,
};

mod jvm;
#[path = "jvm/stopped.rs"]
mod stopped;

use jvm::{Jvm, is_root_or_skipped, jdks};
use stopped::Stopped;

const STOPS: usize = 1500;
/// Pieces of code that are stepped through, instructions of one, and instructions in a row outside of Java's code.
const PIECES: usize = 100;
const PIECE: usize = 600;
const MAX_OUTSIDE: usize = 50;
/// Frames of a stack; the tree has 9 levels of 2 methods each.
const MAX_FRAMES: usize = 200;

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
    /// Its first one, if that was possible from generated code.
    first: Option<Step>,
}

impl Walker {
    /// A walker of the JVM `pid`, and the thread whose call tree is known.
    fn new(pid: u32) -> (Self, JvmThread) {
        let memory = Rc::new(LiveMemory::new(pid));
        let start = libjvm(&maps::read(pid).unwrap()).unwrap();
        let mut vm = Vm::open(memory.clone(), start).unwrap();
        let code = JavaCode::new(&vm).unwrap();
        let threads = vm.java_threads().unwrap();
        let worker = threads.into_iter().find(|thread| thread.name == "worker").unwrap();
        let (start, seen, trace) = (Instant::now(), Seen::default(), Vec::new());
        (Self { memory, vm, code, start, seen, is_exact: true, trace, first: None }, worker)
    }

    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// The stack of the worker, which is stopped with `regs`, innermost first; `None` where the thread has left Java
    /// without a trace.
    fn walk(
        &mut self,
        thread: &JvmThread,
        regs: &libc::user_regs_struct,
    ) -> Option<Result<Vec<JavaFrame>, NoStep>> {
        self.trace.clear();
        self.first = None;
        self.memory.forget();
        let at = Registers { pc: regs.rip, sp: regs.rsp, fp: regs.rbp };
        let (time_ns, memory) = (self.now_ns(), self.memory.clone());
        let stack = |address: u64| memory.u64(address).ok();
        let (mut frames, mut certainty) = (Vec::new(), Certainty::Exact);
        let mut next = if self.code.contains(at.pc) {
            self.seen.in_java += 1;
            let interpreter = InterpreterRegisters { rbx: regs.rbx, r13: regs.r13 };
            match self.code.step_interrupted(at, interpreter, time_ns, &stack) {
                Ok(step) => {
                    self.first = Some(step);
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
    let (mut walker, worker) = Walker::new(jvm.pid);
    let worker = &worker;
    let (mut changes, mut worst) = (0, Duration::ZERO);
    for n in 0..STOPS {
        if n % 50 == 0 {
            let before = Instant::now();
            let now_ns = walker.now_ns();
            let seen = walker.code.observe(now_ns).unwrap();
            changes += seen.n_new + seen.gone.len();
            worst = worst.max(before.elapsed());
        }
        let stopped = Stopped::new(worker.nid);
        let walked = walker.walk(worker, &stopped.regs);
        drop(stopped);
        match walked {
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

/// A call that was seen: the slot that its return address lies in, that address and the caller's frame pointer.
#[derive(Clone, Copy, Debug)]
struct Call {
    slot: u64,
    caller: Option<(u64, u64)>,
}

/// The calls that a thread made while it was stepped through and has not returned from.
#[derive(Debug, Default)]
struct Calls(Vec<Call>);

impl Calls {
    /// Takes in that `instruction` was executed, after which the registers are `regs`.
    fn apply(&mut self, instruction: &Instruction, regs: &libc::user_regs_struct) {
        let sp = regs.rsp;
        match instruction.mnemonic() {
            Mnemonic::Call => {
                self.0.push(Call { slot: sp, caller: Some((instruction.next_ip(), regs.rbp)) });
            }
            Mnemonic::Ret => drop(self.0.pop_if(|call| call.slot < sp)),
            // An adapter takes the return address off and puts it elsewhere: from here on it is not known.
            _ => {
                if let Some(call) = self.0.last_mut().filter(|call| call.slot < sp) {
                    call.caller = None;
                }
            }
        }
        while self.0.last().is_some_and(|call| call.caller.is_some() && call.slot < sp) {
            self.0.pop();
        }
    }
}

/// What came of the instructions that were stepped through.
#[derive(Debug, Default)]
struct Stepped {
    exact: usize,
    approximate_in_stubs: usize,
    approximate: usize,
    wrong: Vec<String>,
}

impl Stepped {
    fn check(&mut self, walker: &Walker, at: u64, call: Option<&Call>) {
        let Some((pc, fp)) = call.and_then(|call| call.caller) else { return };
        match walker.first {
            // The interpreter calls itself within one frame.
            Some(Step { frame: FrameKey::Interpreted { .. } | FrameKey::Unreadable, .. }) => {}
            Some(Step { frame: FrameKey::Stub(_), certainty: Certainty::Approximate, .. }) => {
                self.approximate_in_stubs += 1;
            }
            Some(Step { certainty: Certainty::Approximate, .. }) | None => self.approximate += 1,
            Some(step) if step.caller.pc == pc && step.caller.fp == fp => self.exact += 1,
            Some(step) => {
                let code = walker.memory.bytes(at - 16, 32);
                let trace = walker.trace.first();
                self.wrong.push(format!("{pc:#x} {fp:#x}: {step:x?} {trace:?} {code:02x?}"));
            }
        }
    }
}

/// Goes through the worker's code instruction by instruction, a piece here and there: at each one a caller that is
/// called exact must be the one that was seen to call.
fn step_through(jdk: &Path, options: &[&str]) {
    let jvm = Jvm::start_program(jdk, options, "JvmCallTree");
    let what = format!("{} {options:?}", jdk.display());
    let (mut walker, worker) = Walker::new(jvm.pid);
    let mut stepped = Stepped::default();
    for n in 0..PIECES {
        let now_ns = walker.now_ns();
        walker.code.observe(now_ns).unwrap();
        let mut stopped = Stopped::new(worker.nid);
        let (mut calls, mut n_outside) = (Calls::default(), 0);
        for _ in 0..PIECE {
            let at = stopped.regs;
            let is_inside = walker.code.contains(at.rip);
            n_outside = if is_inside { 0 } else { n_outside + 1 };
            if is_inside {
                let _ = walker.walk(&worker, &at);
                stepped.check(&walker, at.rip, calls.0.last());
            }
            let bytes = walker.memory.bytes(at.rip, 16).unwrap();
            let instruction = Decoder::with_ip(64, &bytes, at.rip, 0).decode();
            // It would save the flag that makes the thread step.
            let saves_flags = instruction.mnemonic() == Mnemonic::Pushfq;
            if n_outside > MAX_OUTSIDE || saves_flags || stopped.step().is_none() {
                break;
            }
            calls.apply(&instruction, &stopped.regs);
        }
        drop(stopped);
        std::thread::sleep(Duration::from_micros(700 + n as u64 % 13 * 100));
    }
    let Stepped { exact, approximate_in_stubs, approximate, wrong } = stepped;
    let _ = writeln!(
        std::io::stderr(),
        "{what}: {exact} instructions exact, {approximate} approximate, in stubs {approximate_in_stubs}"
    );
    assert!(wrong.is_empty(), "{what}: {} wrong: {:#?}", wrong.len(), &wrong[..wrong.len().min(9)]);
    assert!(exact > PIECES * 10, "{what}: only {exact} instructions");
    assert!(approximate * 200 < exact, "{what}: {approximate} approximate, {exact} exact");
}

/// By both compilers, and by the first one only.
#[test]
fn instruction_by_instruction() {
    if !is_root_or_skipped("instruction_by_instruction") {
        return;
    }
    for jdk in jdks() {
        step_through(&jdk, &[]);
        step_through(&jdk, &["-XX:TieredStopAtLevel=1"]);
    }
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
