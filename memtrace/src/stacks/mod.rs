//! From registers and copied stack bytes to a stack of named frames, kept once and known by a number.
//!
//! Native frames are unwound by the modules' own unwind tables. The walk ends at a thread's first frame; where Java's
//! frames are not told apart, at Java. Of the stack it looks at nothing but the copy: what runs on in the target can't
//! change it. The target's maps and files are read when an instruction lies in no module that is known yet, and what the
//! JVM says of its code when Java code is first met.

mod capture;
#[cfg(test)]
mod fake_code;
mod intern;
mod java;
mod joining;
mod kept;
mod last_walks;
mod look_through;
mod losses;
mod module;
mod modules;
mod nodes;
#[cfg(test)]
mod oracle;
mod origin;
mod process;
mod rules;
mod shadows;
mod start_files;
mod steps;
mod symbols;
mod tree;
mod unwind_table;
mod walk;

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use memtrace_common::{EventHeader, Kind, MAX_STACK_BYTES, ThreadRegisters};
use rustc_hash::FxHashMap;
use zerocopy::IntoBytes;

pub use capture::{Capture, CaptureError, Captured, Measured, Replay};
pub use intern::{Frame, FrameId, FrameKind, Quality, Stack, StackId};
pub use kept::New;
pub(crate) use kept::{MAX_FRAMES, MAX_STACKS};
pub use look_through::look_through;
pub use losses::Losses;

use crate::{events::Event, target::maps::Mapping};
use capture::Recorder;
use joining::{Known, Point};
use kept::Kept;
use last_walks::{Circumstances, LastWalk};
use modules::Files;
use origin::{Living, Origin};
use process::{Process, ProcessCode};
use shadows::Shadows;
use steps::Steps;
use tree::Node;
pub(crate) use walk::MAX_FRAMES as MAX_FRAMES_OF_WALK;
use walk::{Break, End, Snapshot};

/// Processes that have ended and whose Java code could not be read; more are not told of.
const MAX_UNREADABLE_JVMS: usize = 10;
/// An instruction in no known module makes the map be read again, but not more often than this.
const REFRESH_EVERY_NS: u64 = 20_000_000;

/// Resolves stacks.
#[derive(Debug)]
pub struct Stacks {
    kept: Kept,
    files: Files,
    processes: FxHashMap<u32, Process>,
    shadows: Shadows,
    steps: Steps,
    last_walks: Box<[LastWalk]>,
    scratch: Vec<Point>,
    /// Nodes of all processes' trees, those of processes that have ended among them.
    n_nodes: usize,
    /// Of processes that have ended.
    unreadable_jvms: BTreeMap<u32, String>,
    /// The time on the events' clock, as far as it is known.
    now_ns: u64,
    recorder: Option<Recorder>,
    /// What could not be resolved.
    pub losses: Losses,
}

impl Stacks {
    /// No stack yet but [`StackId::NOT_KEPT`].
    pub fn new() -> Self {
        Self::of(Rc::new(Living))
    }

    /// The same for processes that `origin` knows.
    fn of(origin: Rc<dyn Origin>) -> Self {
        Self {
            kept: Kept::new(),
            files: Files::new(origin),
            processes: FxHashMap::default(),
            shadows: Shadows::new(),
            steps: Steps::new(),
            last_walks: last_walks::none(),
            scratch: Vec::new(),
            n_nodes: 0,
            unreadable_jvms: BTreeMap::new(),
            now_ns: 0,
            recorder: None,
            losses: Losses::default(),
        }
    }

    /// The stack of `event`. Events of a thread must come in order, and none may be left out.
    pub fn resolve(&mut self, event: &Event<'_>) -> StackId {
        self.now_ns = self.now_ns.max(event.header.exit_ns);
        let mut shadows = std::mem::take(&mut self.shadows);
        let id = self.resolve_whole(&event.header, shadows.whole(event));
        (self.losses.unfounded, self.losses.not_kept) = (shadows.n_unfounded, self.kept.n_lost);
        self.shadows = shadows;
        self.note(|| capture::Step::Event([event.header.as_bytes(), event.stack].concat()));
        id
    }

    fn resolve_whole(&mut self, header: &EventHeader, stack: &[u8]) -> StackId {
        self.start_anew_if_full(header.tgid);
        let mut points = std::mem::take(&mut self.scratch);
        let mut last = std::mem::take(self.last_walk(header));
        let before = self.circumstances(header);
        let (mut end, mut n_kept) = self.walk(header, stack, &last, &mut points);
        if n_kept > 0 && self.circumstances(header) != before {
            // What the walk itself found out speaks against what was known.
            points.clear();
            (end, n_kept) = self.walk(header, stack, &LastWalk::default(), &mut points);
        }
        // Also the second walk may have changed what is known, and begun a new tree.
        let circumstances = self.circumstances(header);
        let node =
            self.grow(header.tgid, |tree| last.replace(circumstances, n_kept, &points, tree));
        let is_whole = header.shadow != 0 && stack.len() as u64 == header.stack_used;
        if is_whole && circumstances == before && matches!(end, End::First | End::Java) {
            last.keep(end);
        }
        *self.last_walk(header) = last;
        points.clear();
        self.scratch = points;
        self.note_native(header.tgid, node);
        self.intern(header.tgid, node, end)
    }

    fn last_walk(&mut self, header: &EventHeader) -> &mut LastWalk {
        let number = header.shadow as usize;
        &mut self.last_walks[if number < self.last_walks.len() { number } else { 0 }]
    }

    fn circumstances(&mut self, header: &EventHeader) -> Circumstances {
        let Self { processes, steps, .. } = self;
        let Process { generation, java, .. } = processes.entry(header.tgid).or_default();
        Circumstances {
            tgid: header.tgid,
            end_of_stack: header.regs.sp.wrapping_add(header.stack_used),
            generation: *generation.get_or_insert_with(|| steps.new_generation()),
            java_version: java.version(),
            tenth_of_second: header.exit_ns / 100_000_000,
        }
    }

    /// The stack of a thread of process `tgid` that stood still at `time_ns`: `stack` begins at its stack pointer, and there
    /// were `used` bytes of it, 0 if that is not known.
    pub fn resolve_thread(
        &mut self,
        tgid: u32,
        time_ns: u64,
        thread: &ThreadRegisters,
        stack: &[u8],
        used: u64,
    ) -> StackId {
        let &ThreadRegisters { regs, fs_base, tid, .. } = thread;
        let header = EventHeader {
            enter_ns: time_ns,
            exit_ns: time_ns,
            regs,
            fs_base,
            stack_used: used,
            tgid,
            tid,
            stack_bytes: stack.len() as u32,
            ..EventHeader::default()
        };
        self.resolve(&Event { header, kind: Kind(header.kind), stack, is_short: false })
    }

    /// Reads the code of process `tgid` again: it has mapped some, or is to be known before it ends.
    pub fn refresh(&mut self, tgid: u32) {
        self.read_map(tgid);
        self.note(|| capture::Step::Refresh(tgid));
    }

    fn read_map(&mut self, tgid: u32) {
        let Self { processes, files, .. } = self;
        let process = processes.entry(tgid).or_default();
        if let Ok(is_changed) = process.modules.refresh(files, tgid) {
            process.refreshed_ns = Some(self.now_ns);
            process.forget_if(is_changed);
            self.code_changed(is_changed);
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
        self.code_changed(is_changed);
        self.note(|| capture::Step::MapCode { tgid, mapping: mapping.clone() });
    }

    /// Looks at the Java code of process `tgid` if it has a JVM; `now_ns` is the time on the events' clock.
    pub fn observe(&mut self, tgid: u32, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        let Self { processes, files, .. } = self;
        if let Some(process) = processes.get_mut(&tgid).filter(|it| it.modules.has_jvm) {
            process.java.observe(tgid, now_ns, &*files.origin);
        }
        self.note(|| capture::Step::Observe { tgid, now_ns });
    }

    /// It is `now_ns` or later, on the events' clock: what is read of a process from now on is not older.
    pub fn set_time(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        self.processes.values_mut().for_each(|process| process.java.set_time(now_ns));
        self.note(|| capture::Step::Time(now_ns));
    }

    /// Process `tgid` has a new image, with nothing of the old one.
    pub fn exec(&mut self, tgid: u32) {
        self.processes.remove(&tgid);
        self.code_changed(true);
        self.note(|| capture::Step::Exec(tgid));
    }

    /// Process `parent` has forked `child`.
    pub fn fork(&mut self, parent: u32, child: u32) {
        let modules = self
            .processes
            .get(&parent)
            .map(|process| process.modules.inherited())
            .unwrap_or_default();
        self.processes.insert(child, Process { modules, ..Process::default() });
        self.code_changed(true);
        self.note(|| capture::Step::Fork { parent, child });
    }

    /// Process `tgid` has ended, and all its events were resolved.
    pub fn exit(&mut self, tgid: u32) {
        self.note(|| capture::Step::Exit(tgid));
        let Some(process) = self.processes.remove(&tgid) else { return };
        if self.unreadable_jvms.len() < MAX_UNREADABLE_JVMS {
            self.unreadable_jvms.extend(process.java.unreadable(tgid));
        }
    }

    /// Processes whose Java code can't be read, and why.
    pub fn unreadable_jvms(&self) -> BTreeMap<u32, String> {
        let living = self.processes.iter();
        let living = living.filter_map(|(&tgid, process)| process.java.unreadable(tgid));
        self.unreadable_jvms.clone().into_iter().chain(living).collect()
    }

    /// Files that could not be read, by name and reason.
    pub fn unreadable(&self) -> BTreeSet<(String, String)> {
        self.files.unreadable().map(|(name, reason)| (name.to_owned(), reason)).collect()
    }

    /// Frames and stacks that were interned since the last call, in the order of their numbers.
    pub fn take_new(&mut self) -> Vec<New> {
        self.kept.take_new()
    }

    fn walk(
        &mut self,
        header: &EventHeader,
        stack: &[u8],
        last: &LastWalk,
        points: &mut Vec<Point>,
    ) -> (End, usize) {
        let snapshot = Snapshot {
            regs: header.regs,
            stack,
            used: header.stack_used,
            cut: (stack.len() as u64) < header.stack_used || stack.len() == MAX_STACK_BYTES,
            has_holes: header.has_holes != 0,
            is_at_entry: Kind(header.kind).is_malloc(),
            mends: header.mends.get(..header.n_mends as usize).unwrap_or_default(),
        };
        let ended = self.try_walk(header, &snapshot, last, points);
        let refreshed = self.processes.get(&header.tgid).and_then(|process| process.refreshed_ns);
        let is_early = |refreshed_ns| self.now_ns.saturating_sub(refreshed_ns) <= REFRESH_EVERY_NS;
        if ended.0 != End::Broken(Break::Nowhere) || refreshed.is_some_and(is_early) {
            return ended;
        }
        self.read_map(header.tgid);
        points.clear();
        self.try_walk(header, &snapshot, last, points)
    }

    fn try_walk(
        &mut self,
        header: &EventHeader,
        snapshot: &Snapshot<'_>,
        last: &LastWalk,
        points: &mut Vec<Point>,
    ) -> (End, usize) {
        let circumstances = self.circumstances(header);
        // Of a stack whose other part never came nothing is known to be as it was.
        let known = if header.shadow == 0 || snapshot.cut {
            Known::NOTHING
        } else {
            // What was sent is what has changed.
            last.known(circumstances, header.regs.sp.wrapping_add(u64::from(header.stack_bytes)))
        };
        let Self { processes, steps, .. } = self;
        let Process { modules, java, .. } = processes.entry(header.tgid).or_default();
        let generation = circumstances.generation;
        let is_jvm = modules.has_jvm;
        let mut code = ProcessCode { modules, generation, steps, java, header };
        walk::walk(&mut code, is_jvm, snapshot, known, points)
    }

    fn intern(&mut self, tgid: u32, node: Node, end: End) -> StackId {
        self.losses.count(end);
        let Self { processes, kept, .. } = self;
        let process = processes.entry(tgid).or_default();
        if let Some(id) = process.tree.stack(node, end) {
            kept.n_lost += u64::from(id == StackId::NOT_KEPT);
            return id;
        }
        let (mut frames, guess) = process.named(node, kept);
        if end == End::Java {
            frames.push(kept.frame(Frame {
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
        let id = kept.stack(Stack { frames, quality });
        process.tree.set_stack(node, end, id);
        id
    }
}

impl Default for Stacks {
    fn default() -> Self {
        Self::new()
    }
}
