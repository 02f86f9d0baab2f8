//! The way through generated code: from a Java frame to its caller, and from an instruction to names and lines.
//!
//! Who unwinds a stack asks [`JavaCode::contains`] of an instruction and, if so, takes a [`JavaCode::step`]: it gives
//! the caller's registers and a [`FrameKey`] for what was stepped over. A key always means the same, so that who has
//! looked up its [`JavaCode::frames`] once need not do it again. Steps read nothing but the stack that they are given
//! and tables of this room; a step over an instruction that was seen before costs one look into a table.
//!
//! [`JavaCode::observe`] is to be called a few times a second. A step for an event older than the last observation is
//! right whatever happened to the code meanwhile; for a newer one it is right unless code was replaced at the very same
//! place since.

use std::{ops::Range, rc::Rc};

use rustc_hash::FxHashMap;

use super::{
    code_blob::BlobKind,
    journal::{CodeChanges, CodeId, Journal},
    memory::{Memory, Unreadable},
    methods::{MethodId, Methods},
    threads::{JvmThread, ThreadKind},
    unsigned5::Base,
    vm::Vm,
    vm_structs::TablesError,
};

/// Instructions whose rules are remembered.
const MAX_RULES: usize = 500_000;
/// Words that are looked at for a return address above a frame of unknown size.
const MAX_SCAN: u64 = 200;

/// The registers that a walk needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    /// The instruction.
    pub pc: u64,
    /// The stack pointer.
    pub sp: u64,
    /// The frame pointer, whatever it holds.
    pub fp: u64,
}

/// A stack: its words by address.
pub trait StackWords {
    /// The word at `address`; `None` when it was not copied.
    fn word(&self, address: u64) -> Option<u64>;
}

impl<F: Fn(u64) -> Option<u64>> StackWords for F {
    fn word(&self, address: u64) -> Option<u64> {
        self(address)
    }
}

/// What a step led over. Equal keys have equal frames, for as long as the JVM runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrameKey {
    /// Compiled code, at an instruction.
    Compiled {
        /// The code.
        code: CodeId,
        /// Bytes from its beginning.
        offset: u32,
    },
    /// An interpreted method.
    Interpreted {
        /// The method.
        method: MethodId,
        /// Its bytecode; `None` in a native method.
        bci: Option<u16>,
    },
    /// A stub of the VM: no method of anyone's, but a frame.
    Stub(CodeId),
    /// The call from native code into Java.
    Entry,
    /// Here begin frames of a virtual thread that are not on the stack but in the heap.
    Frozen,
    /// An interpreted method that could not be read.
    Unreadable,
}

/// How sure a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Certainty {
    /// By what the VM says of its code.
    Exact,
    /// By a search for what looks like a return address, or at a place where code changed at that moment.
    Approximate,
}

/// A step from a frame to its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What was stepped over.
    pub frame: FrameKey,
    /// The caller's registers, `pc` being where the call returns to.
    pub caller: Registers,
    /// How sure it is.
    pub certainty: Certainty,
}

/// Why there is no step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoStep {
    /// No code is known at the instruction: it is gone for too long, or never was any.
    Unknown,
    /// The word of the stack at this address is needed and was not copied.
    Uncopied(u64),
    /// What stands on the stack can't be right.
    Implausible,
}

/// How Java code comes to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Execution {
    /// By the interpreter.
    Interpreted,
    /// Compiled on its own.
    Compiled,
    /// As part of its caller.
    Inlined,
    /// As a native method.
    Native,
}

/// A frame as Java shows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JavaFrame {
    /// The class, with dots.
    pub class: Box<str>,
    /// The method.
    pub method: Box<str>,
    /// The source file, where the class tells.
    pub file: Option<Box<str>>,
    /// The line in it.
    pub line: Option<u32>,
    /// How it was run.
    pub execution: Execution,
}

/// What to do at an instruction that a call returns to.
#[derive(Clone, Copy, Debug)]
enum Rule {
    Interpreted,
    /// The frame has this size.
    Fixed {
        bytes: u32,
        frame: FrameKey,
    },
    /// The same, but the call was none that the compiler describes: more may have been pushed.
    Leaf {
        bytes: u32,
        frame: FrameKey,
    },
    /// The real instruction stands in the frame.
    Deoptimized {
        bytes: u32,
        code: CodeId,
        slot: u32,
    },
    /// The frame pointer leads to the caller.
    Framed {
        frame: FrameKey,
    },
    /// The return address is on top.
    Frameless {
        frame: FrameKey,
    },
    Continuation {
        code: CodeId,
    },
}

/// A rule, and the earliest event that it holds for.
#[derive(Clone, Copy, Debug)]
struct Known {
    rule: Rule,
    since_ns: u64,
}

/// The generated code of one JVM.
pub struct JavaCode {
    memory: Rc<dyn Memory>,
    journal: Journal,
    methods: Methods,
    rules: FxHashMap<u64, Known>,
    /// Where code may be, from the lowest heap to the highest.
    bounds: Range<u64>,
    /// The interpreter, which stays where it is.
    interpreter: Range<u64>,
    call_stub_return: Option<u64>,
    call_stub_place: Option<u64>,
    /// Bytes from the frame pointer down to the interpreter's bytecode pointer.
    bcp_slot: u64,
    entry_bytes: Option<u64>,
    wrapper_anchor: Option<(u64, u64)>,
    base: Base,
}

impl JavaCode {
    /// Prepares for the code of `vm`; nothing is known before the first [`JavaCode::observe`].
    pub fn new(vm: &Vm) -> Result<Self, TablesError> {
        let structs = &vm.structs;
        let feature = vm.release().feature;
        // With the segmented code cache (JDK 9) came the mirror's slot in the interpreter's frame.
        let has_mirror = structs.address("CodeCache::_heaps").is_some();
        let wrapper = structs.constant("frame::entry_frame_call_wrapper_offset");
        let anchor = structs.offset("JavaCallWrapper::_anchor");
        Ok(Self {
            memory: vm.memory.clone(),
            journal: Journal::new(structs)?,
            methods: Methods::new(structs, feature)?,
            rules: FxHashMap::default(),
            bounds: 0..0,
            interpreter: 0..0,
            call_stub_return: None,
            call_stub_place: structs.address("StubRoutines::_call_stub_return_address"),
            bcp_slot: if has_mirror { 64 } else { 56 },
            entry_bytes: structs.size("ContinuationEntry").map(|size| size.next_multiple_of(16)),
            wrapper_anchor: wrapper.map(|words| words.wrapping_mul(8)).zip(anchor),
            base: if feature.is_some_and(|feature| feature < 20) { Base::Zero } else { Base::One },
        })
    }

    /// Looks at the code cache: what came, what is gone. `now_ns` is the time before the call on the events' clock.
    pub fn observe(&mut self, now_ns: u64) -> Result<CodeChanges, Unreadable> {
        self.memory.forget();
        let changes = self.journal.observe(&*self.memory, now_ns)?;
        if !changes.gone.is_empty() {
            self.rules.retain(|&pc, _| !is_in(&changes.gone, pc));
        }
        self.methods.check_some(&*self.memory);
        let (low, high) = self
            .journal
            .ranges()
            .fold((u64::MAX, 0), |(low, high), range| (low.min(range.start), high.max(range.end)));
        self.bounds = low..high;
        if self.interpreter.is_empty() {
            self.interpreter = self.journal.interpreter().unwrap_or(0..0);
        }
        if let Some(place) = self.call_stub_place {
            self.call_stub_return = self.memory.u64(place).ok().filter(|&address| address != 0);
        }
        Ok(changes)
    }

    /// Whether generated code may be at `pc`.
    #[must_use]
    pub fn contains(&self, pc: u64) -> bool {
        self.bounds.contains(&pc) && self.journal.ranges().any(|range| range.contains(&pc))
    }

    /// Blocks of code that are there, and bytes that are kept of their debug information.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        self.journal.size()
    }

    /// The step from where a call returns to, in a stack of `time_ns`.
    pub fn step(
        &mut self,
        at: Registers,
        time_ns: u64,
        stack: &impl StackWords,
    ) -> Result<Step, NoStep> {
        let known = match self.interpreter.contains(&at.pc) {
            true => Some((Rule::Interpreted, false)),
            false => self.rule(at.pc, time_ns),
        };
        let (rule, is_doubtful) = known.ok_or(NoStep::Unknown)?;
        let mut step = self.apply(rule, at, time_ns, stack)?;
        if is_doubtful {
            step.certainty = Certainty::Approximate;
        }
        // A stack is left upwards.
        if step.caller.sp <= at.sp { Err(NoStep::Implausible) } else { Ok(step) }
    }

    fn apply(
        &mut self,
        rule: Rule,
        at: Registers,
        time_ns: u64,
        stack: &impl StackWords,
    ) -> Result<Step, NoStep> {
        let exact = |frame, caller| Step { frame, caller, certainty: Certainty::Exact };
        match rule {
            Rule::Interpreted => self.interpreted(at, stack),
            Rule::Fixed { bytes, frame } => Ok(exact(frame, fixed(at, bytes, stack)?)),
            Rule::Framed { frame } => Ok(exact(frame, framed(at, stack)?)),
            Rule::Frameless { frame } => {
                let pc = word(stack, at.sp)?;
                Ok(exact(frame, Registers { pc, sp: at.sp.wrapping_add(8), fp: at.fp }))
            }
            Rule::Deoptimized { bytes, code, slot } => {
                let real = word(stack, at.sp.wrapping_add(u64::from(slot)))?;
                let blob = &self.journal.code(code).ok_or(NoStep::Unknown)?.blob;
                if !(blob.code..blob.code_end).contains(&real) {
                    return Err(NoStep::Implausible);
                }
                let frame = FrameKey::Compiled { code, offset: (real - blob.code) as u32 };
                Ok(exact(frame, fixed(at, bytes, stack)?))
            }
            Rule::Leaf { bytes, frame } => {
                let caller = self.scan(at, u64::from(bytes), time_ns, stack)?;
                Ok(Step { frame, caller, certainty: Certainty::Approximate })
            }
            Rule::Continuation { code } => self.continuation(at, code, time_ns, stack),
        }
    }

    /// An interpreted frame is all in the words around the frame pointer.
    fn interpreted(&mut self, at: Registers, stack: &impl StackWords) -> Result<Step, NoStep> {
        let Registers { sp, fp, .. } = at;
        if fp & 7 != 0 || fp < sp {
            return Err(NoStep::Implausible);
        }
        let method = word(stack, fp.wrapping_sub(24))?;
        let bcp = word(stack, fp.wrapping_sub(self.bcp_slot))?;
        let caller = Registers {
            pc: word(stack, fp.wrapping_add(8))?,
            sp: word(stack, fp.wrapping_sub(8))?,
            fp: word(stack, fp)?,
        };
        if caller.sp <= fp {
            return Err(NoStep::Implausible);
        }
        let found = self.methods.at_bytecode(&*self.memory, method, bcp);
        Ok(match found {
            Some((method, bci)) => {
                let frame = FrameKey::Interpreted { method, bci };
                Step { frame, caller, certainty: Certainty::Exact }
            }
            None => Step { frame: FrameKey::Unreadable, caller, certainty: Certainty::Approximate },
        })
    }

    /// The caller of a frame that may be larger than it says: the first word that looks like a return address.
    fn scan(
        &mut self,
        at: Registers,
        bytes: u64,
        time_ns: u64,
        stack: &impl StackWords,
    ) -> Result<Registers, NoStep> {
        let first = at.sp.wrapping_add(bytes).wrapping_sub(8);
        for n in 0..MAX_SCAN {
            let slot = first.wrapping_add(8 * n);
            let pc = word(stack, slot)?;
            if self.is_return_address(pc, time_ns) {
                let fp = word(stack, slot.wrapping_sub(8))?;
                return Ok(Registers { pc, sp: slot.wrapping_add(8), fp });
            }
        }
        Err(NoStep::Implausible)
    }

    /// Whether a call from Java or from the call stub may return to `pc`.
    fn is_return_address(&mut self, pc: u64, time_ns: u64) -> bool {
        self.contains(pc)
            && match self.rule(pc, time_ns) {
                Some((Rule::Interpreted | Rule::Deoptimized { .. }, _)) => true,
                Some((Rule::Fixed { frame, .. }, _)) => !matches!(frame, FrameKey::Stub(_)),
                Some((Rule::Framed { frame }, _)) => match frame {
                    FrameKey::Entry => true,
                    FrameKey::Stub(id) => {
                        self.journal.code(id).is_some_and(|code| code.kind == BlobKind::Upcall)
                    }
                    _ => false,
                },
                _ => false,
            }
    }

    /// Above a virtual thread's thawed frames: the carrier's frames begin behind the `ContinuationEntry`.
    fn continuation(
        &mut self,
        at: Registers,
        code: CodeId,
        time_ns: u64,
        stack: &impl StackWords,
    ) -> Result<Step, NoStep> {
        let entry = self.entry_bytes.map(|bytes| at.sp.wrapping_add(bytes));
        for fp in [Some(at.fp), entry].into_iter().flatten() {
            if fp & 7 != 0 || fp < at.sp {
                continue;
            }
            let Ok(caller) = framed(Registers { fp, ..at }, stack) else { continue };
            if self.is_return_address(caller.pc, time_ns) {
                let certainty = Certainty::Exact;
                return Ok(Step { frame: FrameKey::Frozen, caller, certainty });
            }
        }
        let caller = self.scan(at, 8, time_ns, stack)?;
        let frame = if caller.sp == at.sp { FrameKey::Stub(code) } else { FrameKey::Frozen };
        Ok(Step { frame, caller, certainty: Certainty::Approximate })
    }

    /// What to do at `pc`, and whether other code may have been there.
    fn rule(&mut self, pc: u64, time_ns: u64) -> Option<(Rule, bool)> {
        if let Some(known) = self.rules.get(&pc)
            && known.since_ns <= time_ns
        {
            return Some((known.rule, false));
        }
        let found = self.journal.find(&*self.memory, pc, time_ns)?;
        let rule = self.make_rule(pc, found.id)?;
        if let Some(since_ns) = found.since_ns {
            if self.rules.len() >= MAX_RULES {
                self.rules.clear();
            }
            self.rules.insert(pc, Known { rule, since_ns });
        }
        Some((rule, found.is_doubtful))
    }

    fn make_rule(&self, pc: u64, id: CodeId) -> Option<Rule> {
        let code = self.journal.code(id)?;
        let blob = &code.blob;
        let (bytes, stub) = (blob.frame_bytes, FrameKey::Stub(id));
        let offset = pc.checked_sub(blob.code)? as u32;
        let frame = FrameKey::Compiled { code: id, offset };
        Some(match code.kind {
            BlobKind::Interpreter => Rule::Interpreted,
            BlobKind::Method | BlobKind::NativeWrapper if bytes < 16 => return None,
            BlobKind::Method if blob.deopt.contains(&pc) => {
                Rule::Deoptimized { bytes, code: id, slot: blob.orig_pc }
            }
            BlobKind::Method => match &code.debug {
                Some(debug) if !debug.is_exact(offset) => Rule::Leaf { bytes, frame },
                _ => Rule::Fixed { bytes, frame },
            },
            BlobKind::NativeWrapper => Rule::Fixed { bytes, frame },
            BlobKind::RuntimeStub if bytes >= 16 => Rule::Fixed { bytes, frame: stub },
            BlobKind::Stubs if Some(pc) == self.call_stub_return => {
                Rule::Framed { frame: FrameKey::Entry }
            }
            BlobKind::Continuation => Rule::Continuation { code: id },
            BlobKind::RuntimeStub
            | BlobKind::Stubs
            | BlobKind::Deoptimization
            | BlobKind::Upcall => Rule::Framed { frame: stub },
            BlobKind::Frameless => Rule::Frameless { frame: stub },
            BlobKind::Unknown if bytes >= 16 => Rule::Fixed { bytes, frame: stub },
            BlobKind::Unknown => return None,
        })
    }

    /// The frames that `key` stands for, innermost first; none for stubs. Frames whose method is gone are missing.
    pub fn frames(&mut self, key: FrameKey) -> Vec<JavaFrame> {
        self.memory.forget();
        match key {
            FrameKey::Compiled { code, offset } => self.compiled_frames(code, offset),
            FrameKey::Interpreted { method, bci } => {
                let bci = bci.map(u32::from);
                self.methods.frame(method, bci, Execution::Interpreted).into_iter().collect()
            }
            FrameKey::Stub(_) | FrameKey::Entry | FrameKey::Frozen | FrameKey::Unreadable => {
                Vec::new()
            }
        }
    }

    fn compiled_frames(&mut self, id: CodeId, offset: u32) -> Vec<JavaFrame> {
        let Self { journal, methods, memory, base, .. } = self;
        let Some(code) = journal.code(id) else { return Vec::new() };
        let scopes = code.debug.as_ref().map_or_else(Vec::new, |debug| debug.scopes(offset, *base));
        if scopes.is_empty() || code.kind == BlobKind::NativeWrapper {
            let method = methods.at(&**memory, code.blob.method);
            let frame = method.and_then(|id| methods.frame(id, None, Execution::Compiled));
            return frame.into_iter().collect();
        }
        let outermost = scopes.len() - 1;
        let mut frames = Vec::new();
        for (n, scope) in scopes.into_iter().enumerate() {
            let how = if n == outermost { Execution::Compiled } else { Execution::Inlined };
            let method = methods.at(&**memory, scope.method);
            frames.extend(method.and_then(|id| methods.frame(id, scope.bci, how)));
        }
        frames
    }

    /// What a frame without a method of its own is called: a stub's name, in brackets.
    #[must_use]
    pub fn label(&self, key: FrameKey) -> Option<String> {
        Some(match key {
            FrameKey::Stub(id) => {
                format!("[{}]", String::from_utf8_lossy(&self.journal.code(id)?.name))
            }
            FrameKey::Entry => "[call_stub]".into(),
            FrameKey::Frozen => "[frozen virtual thread frames]".into(),
            FrameKey::Unreadable => "[unreadable method]".into(),
            FrameKey::Compiled { .. } | FrameKey::Interpreted { .. } => return None,
        })
    }

    /// The tier (1 to 4) that made the code of `key`, and whether for a loop that was running already.
    #[must_use]
    pub fn tier(&self, key: FrameKey) -> Option<(u8, bool)> {
        let FrameKey::Compiled { code, .. } = key else { return None };
        self.journal.code(code).map(|code| (code.blob.level, code.blob.is_osr))
    }

    /// The registers of the last Java frame of a thread that is in native code or blocked, from its anchor.
    ///
    /// Where the thread runs Java code there is none, nor where it is not a Java thread.
    pub fn last_java_frame(&self, vm: &Vm, thread: &JvmThread) -> Option<Registers> {
        self.memory.forget();
        if thread.kind != ThreadKind::Java {
            return None;
        }
        self.anchor_at(vm.anchor_place(thread.address), &|address| self.memory.u64(address).ok())
    }

    /// The last Java frame before the native code that made the call whose frame pointer is `fp`, an
    /// [`FrameKey::Entry`]: a way around the native frames.
    pub fn before_entry(&self, fp: u64, stack: &impl StackWords) -> Option<Registers> {
        let (slot, anchor) = self.wrapper_anchor?;
        let wrapper = stack.word(fp.wrapping_add(slot))?;
        self.anchor_at(wrapper.wrapping_add(anchor), stack)
    }

    /// The three words of a `JavaFrameAnchor`: stack pointer, instruction, frame pointer.
    fn anchor_at(&self, place: u64, stack: &impl StackWords) -> Option<Registers> {
        let sp = stack.word(place).filter(|&sp| sp != 0)?;
        let pc = match stack.word(place.wrapping_add(8))? {
            0 => stack.word(sp.wrapping_sub(8))?,
            pc => pc,
        };
        Some(Registers { pc, sp, fp: stack.word(place.wrapping_add(16))? })
    }
}

/// Both compilers save the frame pointer right below the return address.
fn fixed(at: Registers, bytes: u32, stack: &impl StackWords) -> Result<Registers, NoStep> {
    let sp = at.sp.wrapping_add(u64::from(bytes));
    Ok(Registers {
        pc: word(stack, sp.wrapping_sub(8))?,
        sp,
        fp: word(stack, sp.wrapping_sub(16))?,
    })
}

fn framed(at: Registers, stack: &impl StackWords) -> Result<Registers, NoStep> {
    let Registers { sp, fp, .. } = at;
    if fp & 7 != 0 || fp < sp {
        return Err(NoStep::Implausible);
    }
    let (caller, next) = (word(stack, fp)?, fp.wrapping_add(8));
    // The barrier at a method's entry pushes a mark between its frame and the return address.
    match word(stack, next)? {
        u64::MAX => {
            let pc = word(stack, fp.wrapping_add(16))?;
            Ok(Registers { pc, sp: fp.wrapping_add(24), fp: caller })
        }
        pc => Ok(Registers { pc, sp: fp.wrapping_add(16), fp: caller }),
    }
}

fn word(stack: &impl StackWords, address: u64) -> Result<u64, NoStep> {
    stack.word(address).ok_or(NoStep::Uncopied(address))
}

/// Whether `pc` lies in one of `ranges`, which are sorted and apart.
fn is_in(ranges: &[Range<u64>], pc: u64) -> bool {
    let next = ranges.partition_point(|range| range.start <= pc);
    next.checked_sub(1).is_some_and(|at| ranges[at].contains(&pc))
}
