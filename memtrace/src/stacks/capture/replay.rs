//! Resolving the stacks of a capture again.

use std::{cell::RefCell, io, rc::Rc};

use rustc_hash::FxHashMap;

use super::{
    super::{
        New, StackId, Stacks,
        module::Source,
        origin::{Living, Origin},
    },
    Capture, Excerpt, Step,
};
use crate::{
    events::Event,
    jvm::{Image, LiveMemory, Memory, Unreadable},
    target::maps::Mapping,
};

/// Takes the steps of captures, one after the other.
#[derive(Debug)]
pub struct Replay {
    recorded: Rc<Recorded>,
    stacks: Stacks,
}

impl Replay {
    /// Replays `capture` from nothing else.
    #[must_use]
    pub fn new(capture: &Capture) -> Self {
        Self::of(capture, false)
    }

    /// Replays `capture` beside its processes, which still live: everything is read of them as in a trace, files and
    /// memory; memory that has changed since is then as it was.
    #[must_use]
    pub fn beside_living(capture: &Capture) -> Self {
        Self::of(capture, true)
    }

    pub(super) fn of(capture: &Capture, are_living: bool) -> Self {
        let excerpts = capture.steps.iter().filter_map(|step| match step {
            Step::Excerpt(excerpt) => Some((excerpt.key.clone(), Rc::new(excerpt.clone()))),
            _ => None,
        });
        let recorded = Rc::new(Recorded {
            are_living,
            excerpts: excerpts.collect(),
            maps: RefCell::default(),
            memories: RefCell::default(),
        });
        Self { stacks: Stacks::of(recorded.clone()), recorded }
    }

    /// Takes a step; tells the stack if it was an event. What is no event is passed over.
    pub(super) fn take(&mut self, step: &Step) -> Option<StackId> {
        let Self { stacks, recorded } = self;
        match step {
            Step::Memory { .. } | Step::Maps { .. } => recorded.change(step),
            &Step::Refresh(tgid) => stacks.refresh(tgid),
            Step::MapCode { tgid, mapping } => stacks.map_code(*tgid, mapping),
            &Step::Observe { tgid, now_ns } => stacks.observe(tgid, now_ns),
            &Step::Time(now_ns) => stacks.set_time(now_ns),
            &Step::Exec(tgid) => stacks.exec(tgid),
            &Step::Fork { parent, child } => stacks.fork(parent, child),
            &Step::Exit(tgid) => stacks.exit(tgid),
            Step::Event(bytes) => return Some(stacks.resolve(&Event::decode(bytes).ok()?)),
            Step::Excerpt(_) | Step::End => {}
        }
        None
    }

    /// Takes all steps of `capture`; hands the stack of each event to `take`, with what is new of frames and stacks.
    pub fn run(&mut self, capture: &Capture, mut take: impl FnMut(&Event<'_>, StackId, Vec<New>)) {
        for step in &capture.steps {
            let stack = self.take(step);
            if let (Some(stack), Step::Event(bytes)) = (stack, step)
                && let Ok(event) = Event::decode(bytes)
            {
                take(&event, stack, self.stacks.take_new());
            }
        }
    }

    /// What resolves.
    #[must_use]
    pub fn stacks(&self) -> &Stacks {
        &self.stacks
    }

    pub(super) fn stacks_mut(&mut self) -> &mut Stacks {
        &mut self.stacks
    }
}

/// What was read of processes.
#[derive(Debug)]
struct Recorded {
    are_living: bool,
    excerpts: FxHashMap<(u64, u64, Vec<u8>), Rc<Excerpt>>,
    maps: RefCell<FxHashMap<u32, Vec<Mapping>>>,
    memories: RefCell<FxHashMap<u32, Rc<RecordedMemory>>>,
}

impl Recorded {
    /// Takes note of what the next steps will read.
    fn change(&self, step: &Step) {
        match step {
            Step::Memory { tgid, address, bytes } => {
                self.memory_of(*tgid).change(*address, bytes);
            }
            Step::Maps { tgid, mappings } => {
                self.maps.borrow_mut().insert(*tgid, mappings.clone());
            }
            _ => {}
        }
    }

    fn memory_of(&self, tgid: u32) -> Rc<RecordedMemory> {
        let mut memories = self.memories.borrow_mut();
        let memory = memories.entry(tgid).or_insert_with(|| {
            let memory = || self.are_living.then(|| LiveMemory::new(tgid));
            let (living, aside) = (memory(), memory());
            Rc::new(RecordedMemory { image: RefCell::default(), living, aside })
        });
        memory.clone()
    }
}

impl Origin for Recorded {
    fn maps(&self, tgid: u32) -> io::Result<Vec<Mapping>> {
        let maps = self.maps.borrow();
        maps.get(&tgid).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn module(&self, tgid: u32, mapping: &Mapping) -> Source {
        if self.are_living {
            return Living.module(tgid, mapping);
        }
        let key = (mapping.device, mapping.inode, mapping.path.clone());
        let excerpt = self.excerpts.get(&key).cloned();
        excerpt.map_or_else(|| Source::Unreadable("not captured".into()), Source::Excerpt)
    }

    fn memory(&self, tgid: u32) -> Rc<dyn Memory> {
        self.memory_of(tgid)
    }
}

/// The memory of a process as it was.
#[derive(Debug)]
struct RecordedMemory {
    image: RefCell<Image>,
    /// The process, which has run on. The image has only what is another there now.
    living: Option<LiveMemory>,
    /// The same, for comparisons: what is kept of reads is none of theirs.
    aside: Option<LiveMemory>,
}

impl RecordedMemory {
    /// Takes note of what stood at `address`.
    fn change(&self, address: u64, bytes: &[u8]) {
        let mut image = self.image.borrow_mut();
        let aside = self.aside.as_ref().filter(|_| !image.knows_of(address, bytes.len()));
        // A process that has started does little: what is kept is not old.
        if aside.is_some_and(|now| now.bytes(address, bytes.len()).is_ok_and(|now| now == bytes)) {
            return;
        }
        image.put(address, bytes);
    }
}

impl Memory for RecordedMemory {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        let living = self.living.as_ref().map(|living| living.read(address, bytes));
        let is_known = self.image.borrow().lay_over(address, bytes);
        let unreadable = Unreadable { address, len: bytes.len() };
        living.filter(|_| !is_known).unwrap_or(is_known.then_some(()).ok_or(unreadable))
    }

    fn read_each(&self, addresses: &[u64], len: usize, bytes: &mut Vec<u8>) -> Vec<bool> {
        let living = self.living.as_ref().map(|living| living.read_each(addresses, len, bytes));
        let mut was_read = living.unwrap_or_else(|| {
            bytes.clear();
            bytes.resize(addresses.len() * len, 0);
            vec![false; addresses.len()]
        });
        let image = self.image.borrow();
        let pieces = bytes.chunks_mut(len.max(1)).zip(addresses).zip(&mut was_read);
        for ((piece, &address), is_read) in pieces {
            *is_read |= image.lay_over(address, piece);
        }
        was_read
    }

    fn forget(&self) {
        if let Some(living) = &self.living {
            living.forget();
        }
    }
}
