//! From registers and copied stack bytes to a stack of named frames, kept once and known by a number.
//!
//! Native frames are unwound by the modules' own unwind tables. The walk ends at a thread's first frame; where Java's
//! frames are not told apart, at Java. Of the stack it looks at nothing but the copy: what runs on in the target can't
//! change it. The target's maps and files are read when an instruction lies in no module that is known yet, and what the
//! JVM says of its code when Java code is first met.

mod intern;
mod java;
mod look_through;
mod modules;
#[cfg(test)]
mod oracle;
mod rules;
mod steps;
mod symbols;
mod unwind_table;
mod walk;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use memtrace_common::{EventHeader, MAX_STACK_BYTES, Regs};
use rustc_hash::FxHashMap;

pub use intern::{Frame, FrameId, FrameKind, Quality, Stack, StackId};
pub use look_through::look_through;

use crate::{events::Event, jvm::NoStep, target::maps::Mapping};
use intern::Interner;
use java::{Java, Stepped};
use modules::{Code, Files, Modules};
use steps::{Generation, Steps};
pub(crate) use walk::MAX_FRAMES as MAX_FRAMES_OF_WALK;
use walk::{Address, Break, CodeAt, End, Place, Snapshot};

/// Distinct stacks that are kept; events beyond get [`StackId::NOT_KEPT`], and are counted.
pub(crate) const MAX_STACKS: usize = 300_000;
/// Distinct frames that are kept.
pub(crate) const MAX_FRAMES: usize = 500_000;
/// Walks whose result is remembered per process; it is a cache, and starts anew when it is full.
const MAX_WALKS: usize = 50_000;
/// An instruction in no known module makes the map be read again, but not more often than this.
const REFRESH_EVERY: Duration = Duration::from_millis(20);

impl StackId {
    /// Stands for all stacks that there was no room for.
    pub const NOT_KEPT: StackId = StackId(0);
}

/// Something that was interned for the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum New {
    /// The next frame.
    Frame(Frame),
    /// The next stack.
    Stack(Stack),
}

/// What could not be resolved as it should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Stacks that there was no room for.
    pub not_kept: u64,
    /// Stacks that end at an instruction outside of all known code.
    pub nowhere: u64,
    /// Stacks that end at unwind information which is missing or not understood.
    pub no_rule: u64,
    /// Stacks that end at the trampoline of another tool's return probe.
    pub foreign_probe: u64,
    /// Stacks that end in code which the process made itself and which is not Java's.
    pub anonymous: u64,
    /// Stacks that end at Java code that is not there any more.
    pub no_java_code: u64,
    /// Stacks that end at a Java frame that can't be right.
    pub java_frame: u64,
}

impl Losses {
    /// How many stacks end early, and where, in words.
    pub fn reasons(&self) -> [(u64, &'static str); 6] {
        [
            (self.nowhere, "at an instruction that lies in no code of a known file"),
            (self.no_rule, "at code whose unwind information is missing or not understood"),
            (self.foreign_probe, "at a return probe of another tool"),
            (self.anonymous, "in code that the process made itself and that is not Java's"),
            (self.no_java_code, "at Java code that was thrown away meanwhile"),
            (self.java_frame, "at a Java frame that can't be right"),
        ]
    }
}

/// Resolves stacks.
#[derive(Debug)]
pub struct Stacks {
    frames: Interner<Frame>,
    stacks: Interner<Stack>,
    files: Files,
    processes: FxHashMap<u32, Process>,
    steps: Steps,
    new: Vec<New>,
    scratch: Vec<Address>,
    /// What could not be resolved.
    pub losses: Losses,
}

#[derive(Debug, Default)]
struct Process {
    modules: Modules,
    /// Of `modules`; none yet where nothing was looked up since they changed.
    generation: Option<Generation>,
    java: Java,
    walks: FxHashMap<Box<[Address]>, FxHashMap<u8, StackId>>,
    /// The frames of an address, and whether one of them is a guess.
    names: FxHashMap<Address, (Box<[FrameId]>, bool)>,
    refreshed: Option<Instant>,
}

impl Stacks {
    /// No stack yet but [`StackId::NOT_KEPT`].
    pub fn new() -> Self {
        let mut stacks = Self {
            frames: Interner::new(MAX_FRAMES),
            stacks: Interner::new(MAX_STACKS),
            files: Files::default(),
            processes: FxHashMap::default(),
            steps: Steps::new(),
            new: Vec::new(),
            scratch: Vec::new(),
            losses: Losses::default(),
        };
        let frame = stacks.frame(Frame {
            name: "[not kept]".into(),
            kind: FrameKind::Native,
            guess: false,
            source: None,
        });
        stacks.stack(Stack { frames: vec![frame], quality: Quality::Broken });
        stacks
    }

    /// The stack of `event`.
    pub fn resolve(&mut self, event: &Event<'_>) -> StackId {
        let mut frames = std::mem::take(&mut self.scratch);
        let end = self.walk(event, &mut frames);
        let id = self.intern(event.header.tgid, &frames, end);
        frames.clear();
        self.scratch = frames;
        id
    }

    /// Reads the code of process `tgid` again: it has mapped some, or is to be known before it ends.
    pub fn refresh(&mut self, tgid: u32) {
        let Self { processes, files, .. } = self;
        let process = processes.entry(tgid).or_default();
        if let Ok(is_changed) = process.modules.refresh(files, tgid) {
            process.refreshed = Some(Instant::now());
            process.forget_if(is_changed);
        }
    }

    /// Reads all code of process `tgid` before its first event: later the ring buffer would fill meanwhile.
    pub fn prepare(&mut self, tgid: u32) {
        self.refresh(tgid);
        if let Some(process) = self.processes.get(&tgid) {
            process.modules.prepare();
        }
    }

    /// Process `tgid` has mapped code.
    pub fn map_code(&mut self, tgid: u32, mapping: &Mapping) {
        let Self { processes, files, .. } = self;
        let process = processes.entry(tgid).or_default();
        let is_changed = process.modules.add(files, tgid, mapping);
        process.forget_if(is_changed);
    }

    /// Looks at the Java code of process `tgid` if it has a JVM; `now_ns` is the time on the events' clock.
    pub fn observe(&mut self, tgid: u32, now_ns: u64) {
        if let Some(process) = self.processes.get_mut(&tgid).filter(|it| it.modules.has_jvm) {
            process.java.observe(tgid, now_ns);
        }
    }

    /// Process `tgid` has a new image, with nothing of the old one.
    pub fn exec(&mut self, tgid: u32) {
        self.processes.remove(&tgid);
    }

    /// Process `parent` has forked `child`.
    pub fn fork(&mut self, parent: u32, child: u32) {
        let modules = self
            .processes
            .get(&parent)
            .map(|process| process.modules.inherited())
            .unwrap_or_default();
        self.processes.insert(child, Process { modules, ..Process::default() });
    }

    /// Process `tgid` has ended, and all its events were resolved.
    pub fn exit(&mut self, tgid: u32) {
        self.processes.remove(&tgid);
    }

    /// Files that could not be read, by name and reason.
    pub fn unreadable(&self) -> BTreeSet<(String, String)> {
        self.files.unreadable().map(|(name, reason)| (name.to_owned(), reason)).collect()
    }

    /// Frames and stacks that were interned since the last call, in the order of their numbers.
    pub fn take_new(&mut self) -> Vec<New> {
        std::mem::take(&mut self.new)
    }

    fn walk(&mut self, event: &Event<'_>, frames: &mut Vec<Address>) -> End {
        let header = &event.header;
        let snapshot = Snapshot {
            regs: header.regs,
            stack: event.stack,
            used: header.stack_used,
            cut: (event.stack.len() as u64) < header.stack_used
                || event.stack.len() == MAX_STACK_BYTES,
            has_holes: header.has_holes != 0,
            mends: header.mends.get(..header.n_mends as usize).unwrap_or(&header.mends),
        };
        let end = self.try_walk(header, &snapshot, frames);
        let refreshed = self.processes.get(&header.tgid).and_then(|process| process.refreshed);
        if end != End::Broken(Break::Nowhere)
            || refreshed.is_some_and(|when| when.elapsed() <= REFRESH_EVERY)
        {
            return end;
        }
        self.refresh(header.tgid);
        frames.clear();
        self.try_walk(header, &snapshot, frames)
    }

    fn try_walk(
        &mut self,
        header: &EventHeader,
        snapshot: &Snapshot<'_>,
        frames: &mut Vec<Address>,
    ) -> End {
        let Self { processes, steps, .. } = self;
        let Process { modules, generation, java, .. } = processes.entry(header.tgid).or_default();
        let generation = *generation.get_or_insert_with(|| steps.new_generation());
        let is_jvm = modules.has_jvm;
        let mut code = ProcessCode { modules, generation, steps, java, time_ns: header.exit_ns };
        walk::walk(&mut code, is_jvm, snapshot, frames)
    }

    fn intern(&mut self, tgid: u32, addresses: &[Address], end: End) -> StackId {
        self.count(end);
        let known = self
            .processes
            .get(&tgid)
            .and_then(|process| process.walks.get(addresses)?.get(&end.key()));
        if let Some(&id) = known {
            return id;
        }
        let mut frames = Vec::new();
        let mut guess = false;
        for &address in addresses {
            guess |= self.name(tgid, address, &mut frames);
        }
        if end == End::Java {
            frames.push(self.frame(Frame {
                name: "[java]".into(),
                kind: FrameKind::Java,
                guess: false,
                source: None,
            }));
        }
        let quality = match end {
            End::First | End::Java if guess => Quality::Approximate,
            End::First | End::Java => Quality::Complete,
            End::Truncated => Quality::Truncated,
            End::Broken(_) => Quality::Broken,
        };
        let id = self.stack(Stack { frames, quality });
        if let Some(process) = self.processes.get_mut(&tgid) {
            if process.walks.len() >= MAX_WALKS {
                process.walks.clear();
                process.names.clear();
            }
            process.walks.entry(addresses.into()).or_default().insert(end.key(), id);
        }
        id
    }

    /// Appends the frames that stand for `address`: more than one where methods were compiled into their caller. Tells
    /// whether one of them is a guess.
    fn name(&mut self, tgid: u32, address: Address, into: &mut Vec<FrameId>) -> bool {
        let Some(process) = self.processes.get_mut(&tgid) else { return address.guess };
        if let Some((known, guess)) = process.names.get(&address) {
            into.extend_from_slice(known);
            return *guess;
        }
        let frames = match address.place {
            Place::Java(key) => process.java.frames(key, address.guess),
            Place::Native(pc) => match process.modules.at(pc) {
                Code::Module(module, in_file) => vec![Frame {
                    name: module.function(in_file),
                    kind: FrameKind::Native,
                    guess: address.guess,
                    source: None,
                }],
                _ => Vec::new(),
            },
        };
        let guess = address.guess || frames.iter().any(|frame| frame.guess);
        let ids: Box<[FrameId]> = frames.into_iter().map(|frame| self.frame(frame)).collect();
        into.extend_from_slice(&ids);
        if let Some(process) = self.processes.get_mut(&tgid) {
            process.names.insert(address, (ids, guess));
        }
        guess
    }

    fn frame(&mut self, frame: Frame) -> FrameId {
        let Some((number, is_new)) = self.frames.number(&frame) else {
            self.losses.not_kept += 1;
            return FrameId(0);
        };
        if is_new {
            self.new.push(New::Frame(frame));
        }
        FrameId(number)
    }

    fn stack(&mut self, stack: Stack) -> StackId {
        let Some((number, is_new)) = self.stacks.number(&stack) else {
            self.losses.not_kept += 1;
            return StackId::NOT_KEPT;
        };
        if is_new {
            self.new.push(New::Stack(stack));
        }
        StackId(number)
    }

    fn count(&mut self, end: End) {
        let Losses { nowhere, no_rule, foreign_probe, anonymous, no_java_code, java_frame, .. } =
            &mut self.losses;
        match end {
            End::Broken(Break::Nowhere) => *nowhere += 1,
            End::Broken(Break::Rule) => *no_rule += 1,
            End::Broken(Break::ForeignProbe) => *foreign_probe += 1,
            End::Broken(Break::Anonymous) => *anonymous += 1,
            End::Broken(Break::NoJavaCode) => *no_java_code += 1,
            End::Broken(Break::JavaFrame) => *java_frame += 1,
            End::First | End::Java | End::Truncated => {}
        }
    }
}

/// The code of a process, as the walk asks for it.
struct ProcessCode<'a> {
    modules: &'a Modules,
    generation: Generation,
    steps: &'a mut Steps,
    java: &'a mut Java,
    time_ns: u64,
}

impl CodeAt for ProcessCode<'_> {
    fn native(&mut self, pc: u64) -> steps::Step {
        self.steps.at(self.modules, self.generation, pc)
    }

    fn java(
        &mut self,
        regs: &Regs,
        word: impl Fn(u64) -> Option<u64>,
    ) -> Option<Result<Stepped, NoStep>> {
        self.java.step(regs, self.time_ns, word)
    }
}

impl Process {
    /// What was found at an address does not hold when other code lies there.
    fn forget_if(&mut self, is_changed: bool) {
        if is_changed {
            self.generation = None;
            self.walks.clear();
            self.names.clear();
        }
    }
}

impl Default for Stacks {
    fn default() -> Self {
        Self::new()
    }
}

impl End {
    /// Ends that make different stacks of the same addresses.
    fn key(self) -> u8 {
        match self {
            End::First => 0,
            End::Java => 1,
            End::Truncated => 2,
            End::Broken(_) => 3,
        }
    }
}
