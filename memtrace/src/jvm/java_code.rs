//! The way through generated code: from a Java frame to its caller, and from an instruction to names and lines.
//!
//! Who unwinds a stack asks [`JavaCode::contains`] of an instruction and, if so, takes a [`JavaCode::step`]: it gives
//! the caller's registers and a [`FrameKey`] for what was stepped over. A key always means the same, so that who has
//! looked up its [`JavaCode::frames`] once need not do it again. A step over an instruction that was seen before costs
//! one look into a table, and where the code was not seen since the event, one at the code's header, shared with all
//! code in use.
//!
//! [`JavaCode::observe`] is to be called every few seconds, so that code is known that is gone when a stack leads through
//! it.

use std::{ops::Range, rc::Rc};

use rustc_hash::FxHashMap;

use super::{
    code::CodeId,
    code_blob::BlobKind,
    java_frame::{Certainty, Execution, FrameKey, JavaFrame, Registers, StackWords},
    journal::{CodeChanges, Journal},
    memory::{Memory, Unreadable},
    methods::{MethodId, Methods},
    step::Known,
    threads::{JvmThread, ThreadKind},
    unsigned5::Base,
    vm::Vm,
    vm_structs::TablesError,
};

/// The generated code of one JVM.
pub struct JavaCode {
    pub(super) memory: Rc<dyn Memory>,
    pub(super) journal: Journal,
    pub(super) methods: Methods,
    pub(super) rules: FxHashMap<u64, Known>,
    /// Where code may be, from the lowest heap to the highest.
    pub(super) bounds: Range<u64>,
    /// The interpreter, which stays where it is.
    pub(super) interpreter: Range<u64>,
    pub(super) call_stub_return: Option<u64>,
    call_stub_place: Option<u64>,
    /// Bytes from the frame pointer down to the interpreter's bytecode pointer.
    pub(super) bcp_slot: u64,
    pub(super) entry_bytes: Option<u64>,
    wrapper_anchor: Option<(u64, u64)>,
    base: Base,
    /// The time of the last stack.
    pub(super) asked_ns: u64,
    /// What is kept of the target's memory is no older than this.
    fresh_ns: u64,
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
            asked_ns: 0,
            fresh_ns: 0,
        })
    }

    /// Looks at the code cache: what came, what is gone. `now_ns` is the time before the call on the events' clock.
    pub fn observe(&mut self, now_ns: u64) -> Result<CodeChanges, Unreadable> {
        self.memory.forget();
        self.fresh_ns = now_ns;
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

    /// Whether the interpreter was found, without which no Java code runs.
    #[must_use]
    pub fn has_interpreter(&self) -> bool {
        !self.interpreter.is_empty()
    }

    /// It is `now_ns` or later, on the events' clock: what is not found now was not there for any event before.
    pub fn set_time(&mut self, now_ns: u64) {
        self.journal.set_time(now_ns);
    }

    /// How often code was found that had taken the place of other code since the last [`JavaCode::observe`].
    #[must_use]
    pub fn n_replaced(&self) -> u32 {
        self.journal.n_replaced
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

    /// What is kept of the target's memory is forgotten if the last stack is newer: a method that it leads through was there
    /// at its time, and not necessarily before. To forget it for each method would mean to read the same pages again and
    /// again, for methods lie side by side and events come in batches.
    fn freshen(&mut self) {
        if self.asked_ns > self.fresh_ns {
            self.memory.forget();
            // Read from now on, so after the event, even where the clock was not looked at since.
            self.fresh_ns = self.journal.now_ns().max(self.asked_ns);
        }
    }

    /// The method at `method`, and the bytecode at `bcp` in it; that is `None` in a native method.
    pub(super) fn at_bytecode(&mut self, method: u64, bcp: u64) -> Option<(MethodId, Option<u16>)> {
        if let Some(found) = self.methods.known_at_bytecode(method, bcp) {
            return Some(found);
        }
        self.freshen();
        self.methods.at_bytecode(&*self.memory, method, bcp)
    }

    /// The frames that `key` stands for, innermost first; none for stubs, and where a method is gone.
    pub fn frames(&mut self, key: FrameKey) -> Vec<JavaFrame> {
        self.freshen();
        match key {
            FrameKey::Compiled { code, offset } => {
                self.checked_frames(code, offset).unwrap_or_default()
            }
            FrameKey::Interpreted { method, bci } => {
                let bci = bci.map(u32::from);
                self.methods.frame(method, bci, Execution::Interpreted).into_iter().collect()
            }
            FrameKey::Stub(_) | FrameKey::Entry | FrameKey::Frozen | FrameKey::Unreadable => {
                Vec::new()
            }
        }
    }

    /// The frames of compiled code. Where one of its methods was not known before, the code must still be there
    /// afterwards: a class is not unloaded before all code that holds a method of it.
    fn checked_frames(&mut self, id: CodeId, offset: u32) -> Option<Vec<JavaFrame>> {
        let first = self.methods.next_id();
        let mut frames = self.compiled_frames(id, offset);
        if self.methods.next_id() != first && !self.journal.is_there(&*self.memory, id) {
            self.methods.read_again_from(first);
            frames.iter_mut().flatten().for_each(|it| it.certainty = Certainty::Approximate);
        }
        frames
    }

    /// None where one of them can't be read: to leave out one alone would make another one its callee's caller.
    fn compiled_frames(&mut self, id: CodeId, offset: u32) -> Option<Vec<JavaFrame>> {
        let Self { journal, methods, memory, base, .. } = self;
        let code = journal.code(id)?;
        let scopes = match &code.debug {
            Some(debug) if code.kind == BlobKind::Method => debug.scopes(offset, *base)?,
            _ => Vec::new(),
        };
        if scopes.is_empty() {
            let method = methods.at(&**memory, code.blob.method)?;
            return Some(vec![methods.frame(method, None, Execution::Compiled)?]);
        }
        let outermost = scopes.len() - 1;
        let mut frames = Vec::new();
        for (n, scope) in scopes.into_iter().enumerate() {
            let how = if n == outermost { Execution::Compiled } else { Execution::Inlined };
            let method = methods.at(&**memory, scope.method)?;
            frames.push(methods.frame(method, scope.bci, how)?);
        }
        Some(frames)
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

/// Whether `pc` lies in one of `ranges`, which are sorted and apart.
fn is_in(ranges: &[Range<u64>], pc: u64) -> bool {
    let next = ranges.partition_point(|range| range.start <= pc);
    next.checked_sub(1).is_some_and(|at| ranges[at].contains(&pc))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::jvm::{Capture, recorded::recorded};

    /// A recorded JVM that goes on.
    struct Running(RefCell<Capture>);

    impl Memory for Running {
        fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
            self.0.borrow().read(address, bytes)
        }
    }

    /// A frame with names in a block of code: its key, and where it says whether the block is used.
    fn named(code: &mut JavaCode) -> (FrameKey, u64) {
        let blocks = code.journal.in_use();
        let keys = blocks.into_iter().flat_map(|(id, used)| {
            (0..2000).map(move |offset| (FrameKey::Compiled { code: id, offset }, used))
        });
        let mut keys = keys.collect::<Vec<_>>().into_iter();
        keys.find(|&(key, _)| !code.frames(key).is_empty()).expect("a method was recorded")
    }

    /// Names that are read when the code is gone may be those of another class: they are a guess, and they are read
    /// again where the code is there.
    #[test]
    fn names_of_what_is_gone() {
        for (recorded, libjvm) in recorded() {
            let memory = Rc::new(Running(RefCell::new(recorded.capture.clone())));
            let vm = Vm::open(memory.clone(), libjvm).unwrap();
            let fresh = || {
                let mut code = JavaCode::new(&vm).unwrap();
                code.observe(1_000).unwrap();
                code
            };
            let (key, used) = named(&mut fresh());
            // Numbers are given in order of addresses.
            let mut code = fresh();
            let certain = |code: &mut JavaCode| code.frames(key).first().unwrap().certainty;
            memory.0.borrow_mut().insert(used, &[0]);
            assert_eq!([certain(&mut code), certain(&mut code)], [Certainty::Approximate; 2]);
            memory.0.borrow_mut().insert(used, &[1]);
            assert_eq!(certain(&mut code), Certainty::Exact);
            // What was known before stays so.
            memory.0.borrow_mut().insert(used, &[0]);
            assert_eq!(certain(&mut code), Certainty::Exact);
        }
    }
}
