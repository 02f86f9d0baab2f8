//! The Java code of one process, for the walk and for names: opened when the JVM has got that far, looked at now and then.
//!
//! A JVM that can't be read (it is starting, or brings no tables) has no Java frames; its stacks end at the first of its
//! code, as before.

use std::time::Duration;

use memtrace_common::Regs;

use super::{
    intern::{Frame, FrameKind},
    origin::Origin,
};
use crate::jvm::{
    self, Certainty, Execution, FrameKey, InterpreterRegisters, JavaCode, JavaFrame, NoStep,
    Registers, TablesError, Vm,
};

/// Time between two looks at the code cache: code that is gone must not be taken for code that came in its place.
const OBSERVE_EVERY: Duration = Duration::from_secs(2);
/// Time between two tries to open a JVM that is starting.
const TRY_EVERY: Duration = Duration::from_millis(20);
/// A JVM that could not be opened for so many tries won't be.
const MAX_TRIES: u32 = 1500;

/// What a step through Java code leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stepped {
    pub(super) frame: FrameKey,
    pub(super) caller: Registers,
    /// Whether it was found by a search.
    pub(super) guess: bool,
}

/// The Java code of a process.
#[derive(Default)]
pub(super) struct Java {
    code: Option<JavaCode>,
    n_tries: u32,
    /// When it was looked at, on the events' clock.
    looked_ns: Option<u64>,
    /// How often it was looked at.
    n_looks: u32,
    /// Why the JVM could not be read the last time it was tried.
    error: Option<TablesError>,
}

impl Java {
    /// Looks at the code of process `tgid` if it is time; `now_ns` is the time, on the events' clock.
    pub(super) fn observe(&mut self, tgid: u32, now_ns: u64, origin: &dyn Origin) {
        self.set_time(now_ns);
        // A JVM that starts can be read before it has any code.
        let is_ready = self.code.as_ref().is_some_and(JavaCode::has_interpreter);
        let every = if is_ready { OBSERVE_EVERY } else { TRY_EVERY };
        let since = |looked_ns| Duration::from_nanos(now_ns.saturating_sub(looked_ns));
        if self.looked_ns.is_some_and(|looked_ns| since(looked_ns) < every) {
            return;
        }
        if self.code.is_none() && self.n_tries < MAX_TRIES {
            self.open(tgid, origin);
        }
        if let Some(code) = &mut self.code {
            // What can't be read now may be at the next look; until then what is known stays.
            code.observe(now_ns).ok();
        }
        self.looked_ns = Some(now_ns);
        self.n_looks += 1;
    }

    /// A number that changes when what was found before need not hold any more.
    pub(super) fn version(&self) -> (u32, u32) {
        (self.n_looks, self.code.as_ref().map_or(0, JavaCode::n_replaced))
    }

    /// It is `now_ns` or later, on the events' clock.
    pub(super) fn set_time(&mut self, now_ns: u64) {
        if let Some(code) = &mut self.code {
            code.set_time(now_ns);
        }
    }

    /// Whether the Java code can be read.
    pub(super) fn is_open(&self) -> bool {
        self.code.is_some()
    }

    /// Process `tgid` and why its Java code can't be read, if it can't. One that ends can't be read whatever it was.
    pub(super) fn unreadable(&self, tgid: u32) -> Option<(u32, String)> {
        let error = self.error.as_ref().filter(|_| !self.is_open())?;
        (!matches!(error, TablesError::Unreadable(_))).then(|| (tgid, error.to_string()))
    }

    fn open(&mut self, tgid: u32, origin: &dyn Origin) {
        self.n_tries += 1;
        let opened = origin.maps(tgid).ok().and_then(|maps| jvm::libjvm(&maps)).map(|libjvm| {
            let vm = Vm::open(origin.memory(tgid), libjvm)?;
            JavaCode::new(&vm)
        });
        match opened {
            Some(Ok(code)) => self.code = Some(code),
            Some(Err(error)) => self.error = Some(error),
            None => {}
        }
    }

    /// The step from `regs`, which are those of an interrupted instruction or of a caller, in a stack of `time_ns` whose words `word` gives; `None` where there is no such code.
    pub(super) fn step(
        &mut self,
        regs: &Regs,
        is_interrupted: bool,
        time_ns: u64,
        word: impl Fn(u64) -> Option<u64>,
    ) -> Option<Result<Stepped, NoStep>> {
        let code = self.code.as_mut()?;
        if !code.contains(regs.ip) {
            return None;
        }
        let at = Registers { pc: regs.ip, sp: regs.sp, fp: regs.bp };
        let step = if is_interrupted {
            let interpreter = InterpreterRegisters { rbx: regs.bx, r13: regs.r13 };
            code.step_interrupted(at, interpreter, time_ns, &word)
        } else {
            code.step(at, time_ns, &word)
        };
        Some(step.map(|step| Stepped {
            frame: step.frame,
            caller: step.caller,
            guess: step.certainty == Certainty::Approximate,
        }))
    }

    /// The frames that `key` stands for, innermost first.
    pub(super) fn frames(&mut self, key: FrameKey, guess: bool) -> Vec<Frame> {
        let Some(code) = &mut self.code else { return Vec::new() };
        let frames: Vec<Frame> =
            code.frames(key).into_iter().map(|frame| named(frame, guess)).collect();
        if !frames.is_empty() {
            return frames;
        }
        // A stub has a label; a method that can't be read any more stands for frames that nobody knows.
        let (name, guess) = match code.label(key) {
            Some(label) => (label, guess),
            None => ("[unloaded Java method]".into(), true),
        };
        vec![Frame { name, kind: FrameKind::Stub, guess, source: None }]
    }
}

impl std::fmt::Debug for Java {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Java").field("is_open", &self.is_open()).finish_non_exhaustive()
    }
}

fn named(frame: JavaFrame, guess: bool) -> Frame {
    let JavaFrame { class, method, file, line, execution, certainty } = frame;
    let kind = match execution {
        Execution::Interpreted => FrameKind::Interpreted,
        Execution::Compiled => FrameKind::Compiled,
        Execution::Inlined => FrameKind::Inlined,
        Execution::Native => FrameKind::JavaNative,
    };
    Frame {
        name: format!("{class}.{method}"),
        kind,
        guess: guess || certainty == Certainty::Approximate,
        source: file.map(|file| (file.into(), line)),
    }
}
