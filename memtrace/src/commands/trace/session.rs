//! One trace, from the bytes of the ring buffer to its records: it hands each room what the one before it made.

mod closing;

use std::{io, ops::ControlFlow, path::PathBuf};

use anyhow::Result;
use memtrace_common::{EventHeader, Kind};

use super::super::{args::TraceArgs, jstack::SavedNames};
use super::{
    before::Reading,
    behind::Behind,
    capturing, clock, looking,
    naming::{self, VmNames},
    processes::Processes,
    records::Records,
    tally,
};
use crate::{
    events::{Event, Window},
    footprint,
    jvm::Look,
    ledger::{self, Before, Meaning, Sample, What},
    probes::{Blocks, Probes, Ring},
    stacks::{New, StackId},
    target,
    trace::{Malloc, Record, Recording, Target, ThreadName},
};

/// How long events are held back to put them in order: longer than a call takes, but for the odd one, which is counted.
const WINDOW_NS: u64 = 100_000_000;
/// How long the ring buffer is read before other things get their turn.
const TURN_NS: u64 = 20_000_000;
/// Records between two looks at the clock.
const LOOK_AT_CLOCK_EVERY: u32 = 64;

/// A trace that goes on.
pub(super) struct Session {
    processes: Processes,
    /// Whether zlib's own functions are probed, too.
    zlib: bool,
    /// Whether the frames of Java code are told apart.
    java_frames: bool,
    /// How calls of allocators are traced, if they are to be and none was found yet.
    malloc: Option<Malloc>,
    /// Blocks of fewer bytes are ignored.
    min_size: Option<u64>,
    meaning: Meaning,
    window: Window<Timed>,
    records: Records,
    /// When the map of a process that ran already was read.
    reading: Option<Reading>,
    newest_ns: u64,
    own: tally::Own,
    behind: Behind,
    vm_names: VmNames,
    names_for_the_end: SavedNames,
    /// Where what resolving depends on is written down, if it is.
    capture: Option<PathBuf>,
}

/// What waits in the window.
#[derive(Debug)]
enum Timed {
    Event(ledger::Event),
    Name(ThreadName),
    Before(u32, Before),
}

impl Session {
    pub(super) fn new(root: u32, args: &TraceArgs, probes: Probes, records: Records) -> Self {
        Self {
            processes: Processes::new(root, probes),
            zlib: args.zlib,
            java_frames: !args.no_java_frames,
            malloc: match args.blocks() {
                Blocks::None => None,
                Blocks::All => Some(Malloc::Exact),
                Blocks::Samples { mean_bytes } => Some(Malloc::Sampled { mean_bytes }),
            },
            min_size: args.min_size.filter(|&bytes| bytes > 0),
            meaning: Meaning::default(),
            window: Window::new(),
            records,
            reading: None,
            newest_ns: 0,
            own: tally::Own::default(),
            behind: Behind::default(),
            vm_names: VmNames::default(),
            names_for_the_end: SavedNames::default(),
            capture: args.capture.clone(),
        }
    }

    /// Writes down from now on what resolving depends on, if that is wanted.
    pub(super) fn begin_capture(&mut self) -> Result<()> {
        let begin = |path: &PathBuf| capturing::begin(&mut self.processes.stacks, path);
        self.capture.as_ref().map_or(Ok(()), begin)
    }

    /// Ends that.
    pub(super) fn end_capture(&mut self) -> Result<()> {
        let end = |path: PathBuf| capturing::end(&mut self.processes.stacks, &path);
        self.capture.take().map_or(Ok(()), end)
    }

    /// Attaches to a command that has not begun, and may never begin: nothing is recorded of it yet.
    pub(super) fn begin_command(&mut self) -> Result<()> {
        self.processes.probes.attach()
    }

    /// The trace has begun: what was in its file before is gone.
    pub(super) fn begin_file(&mut self) {
        self.records.begin();
    }

    /// Takes note of what is traced.
    pub(super) fn name_target(&mut self, command: Vec<String>) {
        self.put(Record::Features(self.processes.probes.features()));
        self.put(Record::Target(Target { pid: self.processes.root, command, ..Target::default() }));
        self.tell_malloc();
    }

    /// What the user should know before the trace ends: that what was asked for can't be seen.
    pub(super) fn warning(&self) -> Option<&'static str> {
        let is_unseen = self.malloc.is_some() && self.processes.probes.n_unprobed() == 0;
        is_unseen.then_some(tally::NO_ALLOCATOR)
    }

    /// Tells that allocators' calls are traced, as soon as one was found: what is not seen is not 0; and what of them is not.
    fn tell_malloc(&mut self) {
        if self.processes.probes.n_allocators() > 0
            && let Some(malloc) = self.malloc.take()
        {
            self.put(Record::Malloc(malloc));
            self.min_size.into_iter().for_each(|bytes| self.put(Record::MinSize(bytes)));
        }
        let notes = self.processes.probes.take_notes_on_allocators();
        notes.into_iter().for_each(|note| self.note(note));
    }

    /// Attaches to a process that runs, and takes note of it as it is when tracing begins.
    pub(super) fn begin_process(&mut self) -> Result<()> {
        let root = self.processes.root;
        self.processes.stacks.prepare(root);
        let notes = looking::probe_allocators(&mut self.processes.probes, root);
        // While nothing comes that would have to wait.
        self.look_at_footprint();
        self.processes.probes.attach()?;
        self.name_target(target::command_line(root));
        notes.into_iter().for_each(|note| self.note(note));
        let now_ns = clock::now_ns();
        for name in naming::of_process(root) {
            self.window.push(now_ns, Timed::Name(name));
        }
        self.read_map();
        self.processes.stacks.refresh(root);
        self.look_at_code(root);
        self.read_vm_names(Look::All);
        self.sample();
        Ok(())
    }

    /// Takes note of what was mapped before.
    fn read_map(&mut self) {
        let root = self.processes.root;
        let (reading, mappings) = Reading::new(root, &self.processes.probes, self.reading);
        for before in mappings {
            self.window.push(reading.began_ns, Timed::Before(root, before));
        }
        self.reading = Some(reading);
    }

    /// Looks at what the resident bytes of the process consist of now, if it still runs.
    pub(super) fn look_at_footprint(&mut self) {
        let root = self.processes.root;
        match footprint::take(root, clock::now_ns()) {
            Ok(footprint) => self.put(Record::Footprint(footprint)),
            Err(_) if !target::is_alive(root) => {}
            Err(error) => self.note(format!("there is no footprint: {error}")),
        }
    }

    /// Reads what is in the ring buffer, for a turn at the most; tells whether it was emptied.
    pub(super) fn drain(&mut self, ring: &mut Ring) -> bool {
        let began_ns = clock::now_ns();
        self.processes.read_code_maps();
        if self.java_frames {
            self.processes.observe_java(began_ns);
        }
        let mut n_taken = 0_u32;
        let is_empty = ring.read(|record| {
            self.take(record);
            n_taken += 1;
            if n_taken.is_multiple_of(LOOK_AT_CLOCK_EVERY) {
                let now_ns = clock::now_ns();
                self.processes.stacks.set_time(now_ns);
                if now_ns.saturating_sub(began_ns) > TURN_NS {
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        });
        while let Some(tgid) = self.processes.take_new_code() {
            self.look_at_code(tgid);
        }
        self.read_vm_names(Look::New);
        if self.reading.is_some_and(|reading| reading.is_outdated(&self.processes.probes)) {
            self.read_map();
        }
        let reached_ns = if is_empty { began_ns } else { self.newest_ns };
        if is_empty {
            self.processes.probes.caught_up();
        }
        self.release(reached_ns.saturating_sub(WINDOW_NS));
        is_empty
    }

    /// What is due once a second: resident bytes, losses, and the file.
    pub(super) fn tick(&mut self, ring: &mut Ring) {
        self.drop_ended(ring);
        self.read_vm_names(Look::All);
        self.sample();
        self.tell_losses();
        self.records.flush();
    }

    /// Takes note of the names that JVMs have for their threads.
    fn read_vm_names(&mut self, look: Look) {
        // A thread that is found lives at this time, whatever is told of it later.
        let now_ns = clock::now_ns();
        let names = self.vm_names.look(look);
        names.into_iter().for_each(|name| self.window.push(now_ns, Timed::Name(name)));
    }

    /// Takes note of threads' names from another source.
    pub(super) fn name_threads(&mut self, names: Vec<ThreadName>) {
        // After what happened so far: the thread's own begin may still be in the window.
        let now_ns = clock::now_ns();
        names.into_iter().for_each(|name| self.window.push(now_ns, Timed::Name(name)));
    }

    /// The same at the end of the trace, but only for threads that were seen.
    pub(super) fn name_threads_at_the_end(&mut self, names: SavedNames) {
        self.names_for_the_end = names;
    }

    /// The process that was asked for, or started.
    pub(super) fn root(&self) -> u32 {
        self.processes.root
    }

    /// Takes note of something that the user should know.
    pub(super) fn note(&mut self, note: String) {
        self.put(Record::Note(note));
    }

    /// What the trace says so far.
    pub(super) fn recording(&self) -> &Recording {
        &self.records.recording
    }

    /// Whether no traced process is left.
    pub(super) fn is_over(&self) -> bool {
        self.processes.are_over()
    }

    /// Why the trace file is not written any more, once it is not.
    pub(super) fn take_file_error(&mut self) -> Option<io::Error> {
        self.records.take_error()
    }

    /// Processes whose end the kernel side could not tell, because the ring buffer was full.
    fn drop_ended(&mut self, ring: &mut Ring) {
        let looks_ended: Vec<u32> =
            self.processes.live().filter(|&tgid| !target::is_alive(tgid)).collect();
        if looks_ended.is_empty() {
            return;
        }
        // Its end may be told in the ring buffer, behind other events of it.
        let time_ns = clock::now_ns();
        while !self.drain(ring) && self.newest_ns <= time_ns {}
        for tgid in looks_ended {
            if !self.processes.is_live(tgid) {
                continue;
            }
            self.processes.ended(tgid);
            let what = What::Exit { ended: true, code: 0 };
            let stack = StackId::NOT_KEPT;
            let event = ledger::Event { time_ns, tgid, tid: tgid, stack, what };
            self.window.push(time_ns, Timed::Event(event));
        }
    }

    fn take(&mut self, record: &[u8]) {
        let Ok(event) = Event::decode(record) else {
            self.own.undecoded += 1;
            return;
        };
        let header = &event.header;
        self.newest_ns = self.newest_ns.max(header.exit_ns);
        self.processes.follow(&event);
        self.vm_names.follow(&event);
        if event.kind == Kind::RENAME {
            let name = Timed::Name(naming::of_rename(&event));
            return self.window.push(header.exit_ns, name);
        }
        let has_stack = event.kind.has_stack() && !event.is_short;
        let stack = if has_stack { self.resolve(&event) } else { StackId::NOT_KEPT };
        for (time_ns, what) in self.meaning.of(header, event.kind).into_iter().flatten() {
            let what = self.complete(header, what);
            if event.is_short && matches!(what, What::Alloc { .. }) {
                self.behind.left_out(header.exit_ns);
            }
            let time_ns = self.reading.map_or(time_ns, |it| it.effect_ns(header, time_ns));
            let (tgid, tid) = (header.tgid, header.tid);
            self.window
                .push(time_ns, Timed::Event(ledger::Event { time_ns, tgid, tid, stack, what }));
        }
    }

    fn resolve(&mut self, event: &Event<'_>) -> StackId {
        let id = self.processes.stacks.resolve(event);
        for new in self.processes.stacks.take_new() {
            self.put(match new {
                New::Frame(frame) => Record::Frame(frame),
                New::Stack(stack) => Record::Stack(stack),
            });
        }
        id
    }

    /// The size of a System V segment is no argument of the call.
    fn complete(&mut self, header: &EventHeader, what: What) -> What {
        let What::Shmat { addr, .. } = what else { return what };
        let id = header.args[0] as i32;
        let len = target::segment_bytes(header.tgid, id, addr);
        self.own.segment_size += u64::from(len.is_none());
        What::Shmat { addr, len: len.unwrap_or_default() }
    }

    /// The process has code that is new: what it is, and whether it is to be probed.
    fn look_at_code(&mut self, tgid: u32) {
        self.vm_names.code_is_new(tgid);
        let n_before = self.processes.probes.n_allocators();
        let mut notes = looking::probe_allocators(&mut self.processes.probes, tgid);
        let is_late = self.processes.probes.n_allocators() > n_before;
        self.processes.n_probed_late += u64::from(is_late);
        self.tell_malloc();
        notes.extend(looking::probe_zlib(&mut self.processes.probes, tgid, self.zlib));
        notes.into_iter().for_each(|note| self.note(note));
        if tgid == self.processes.root
            && let Some(target) = looking::learn(&self.records.recording.target)
        {
            self.put(Record::Target(target));
        }
    }

    fn release(&mut self, before_ns: u64) {
        while let Some(timed) = self.window.pop(before_ns) {
            self.put(match timed {
                Timed::Event(event) => Record::Event(event),
                Timed::Name(name) => Record::ThreadName(name),
                Timed::Before(tgid, before) => Record::Before((tgid, before)),
            });
        }
    }

    fn sample(&mut self) {
        let memory = self.processes.live().map(target::memory);
        let (rss_bytes, swap_bytes) = memory
            .fold((0, 0), |(rss, swap), memory| (rss + memory.rss_bytes, swap + memory.swap_bytes));
        if rss_bytes > 0 {
            self.put(Record::Sample(Sample { time_ns: clock::now_ns(), rss_bytes, swap_bytes }));
        }
    }

    fn tell_losses(&mut self) {
        let out_of_order = self.window.n_late;
        let code_maps = self.processes.n_code_maps_lost;
        let stacks_left_out = self.behind.n_left_out;
        let probed_late = self.processes.n_probed_late;
        let own = tally::Own { out_of_order, code_maps, stacks_left_out, probed_late, ..self.own };
        self.put(Record::Losses(tally::losses(
            &self.processes.probes,
            &self.processes.stacks,
            own,
        )));
        self.put(Record::Failed(tally::failed(self.processes.probes.counters())));
    }

    fn put(&mut self, record: Record) {
        self.records.put(record);
    }
}
