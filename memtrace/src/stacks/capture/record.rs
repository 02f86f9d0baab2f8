//! Making a capture while stacks are resolved.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io::{self, Write},
    rc::Rc,
};

use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    super::{
        module::{Module, Source},
        modules::{Code, Modules},
        origin::Origin,
    },
    Excerpt, Step,
    file::Writer,
};
use crate::{
    jvm::{Image, Memory, Unreadable},
    target::maps::Mapping,
};

/// Quick enough for a trace.
const ZSTD_LEVEL: i32 = 1;

/// Files by device, inode and path.
type Key = (u64, u64, Vec<u8>);

/// What was captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// Events with a stack.
    pub n_stacks: u64,
    /// Bytes of stack that came with them.
    pub stack_bytes: u64,
}

/// Writes down what resolving depends on.
pub(in super::super) struct Recorder {
    read: Rc<RefCell<Vec<Step>>>,
    writer: io::Result<Writer>,
    excerpts: BTreeMap<Key, BTreeMap<u64, Rc<Module>>>,
    /// Processes and instructions whose place in a file is in an excerpt, as long as their code is the same.
    known: FxHashSet<(u32, u64)>,
    captured: Captured,
}

impl Recorder {
    /// Writes to `out` what is read of `origin`: also returns what to read from.
    pub(in super::super) fn new(
        out: Box<dyn Write>,
        origin: Rc<dyn Origin>,
    ) -> (Self, Rc<dyn Origin>) {
        let read = Rc::<RefCell<Vec<Step>>>::default();
        let noting = Noting { origin, read: read.clone(), memories: RefCell::default() };
        let recorder = Self {
            read,
            writer: Writer::new(out, ZSTD_LEVEL),
            excerpts: BTreeMap::new(),
            known: FxHashSet::default(),
            captured: Captured::default(),
        };
        (recorder, Rc::new(noting))
    }

    /// Notes a step that was taken, behind what was read to take it.
    pub(in super::super) fn note(&mut self, step: Step) {
        if let Step::Event(bytes) = &step {
            self.captured.n_stacks += 1;
            let header = size_of::<memtrace_common::EventHeader>();
            self.captured.stack_bytes += bytes.len().saturating_sub(header) as u64;
        }
        let read = std::mem::take(&mut *self.read.borrow_mut());
        read.into_iter().chain([step]).for_each(|step| self.write(&step));
    }

    /// A stack of process `tgid` leads through `pc`.
    pub(in super::super) fn visit(&mut self, tgid: u32, modules: &Modules, pc: u64) {
        if !self.known.insert((tgid, pc)) {
            return;
        }
        if let Code::Module(module, address) = modules.at(pc) {
            let places = self.excerpts.entry(module.key.clone()).or_default();
            places.insert(address, module.clone());
        }
    }

    /// The code of a process is other code now.
    pub(in super::super) fn forget_code(&mut self) {
        self.known.clear();
    }

    /// Writes the excerpts of the files, and the end.
    pub(in super::super) fn finish(mut self) -> io::Result<Captured> {
        for (key, places) in std::mem::take(&mut self.excerpts) {
            let Some(module) = places.values().next() else { continue };
            let segments = module.segments().to_vec();
            let place = |(address, module): (&u64, &Rc<Module>)| {
                (*address, module.rule(*address), module.function(*address))
            };
            let places = places.iter().map(place).collect();
            self.write(&Step::Excerpt(Excerpt { key, segments, places }));
        }
        self.writer?.end()?;
        Ok(self.captured)
    }

    /// After the first error nothing is written any more; it is told at the end.
    fn write(&mut self, step: &Step) {
        if let Ok(writer) = &mut self.writer
            && let Err(error) = writer.write(step)
        {
            self.writer = Err(error);
        }
    }
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").field("captured", &self.captured).finish_non_exhaustive()
    }
}

/// Notes what is read of processes.
#[derive(Debug)]
struct Noting {
    origin: Rc<dyn Origin>,
    read: Rc<RefCell<Vec<Step>>>,
    memories: RefCell<FxHashMap<u32, Rc<RefCell<Image>>>>,
}

impl Origin for Noting {
    fn maps(&self, tgid: u32) -> io::Result<Vec<Mapping>> {
        let maps = self.origin.maps(tgid)?;
        let matters =
            |mapping: &&Mapping| mapping.exec || mapping.file_name().starts_with("libjvm.so");
        let mappings = maps.iter().filter(matters).cloned().collect();
        self.read.borrow_mut().push(Step::Maps { tgid, mappings });
        Ok(maps)
    }

    fn module(&self, tgid: u32, mapping: &Mapping) -> Source {
        self.origin.module(tgid, mapping)
    }

    fn memory(&self, tgid: u32) -> Rc<dyn Memory> {
        let memory = self.origin.memory(tgid);
        let image = self.memories.borrow_mut().entry(tgid).or_default().clone();
        Rc::new(NotingMemory { tgid, memory, image, read: self.read.clone() })
    }
}

/// Notes what is read of a process' memory and was not known.
struct NotingMemory {
    tgid: u32,
    memory: Rc<dyn Memory>,
    image: Rc<RefCell<Image>>,
    read: Rc<RefCell<Vec<Step>>>,
}

impl NotingMemory {
    fn note(&self, address: u64, bytes: &[u8]) {
        if self.image.borrow_mut().put(address, bytes) {
            let (tgid, bytes) = (self.tgid, bytes.to_vec());
            self.read.borrow_mut().push(Step::Memory { tgid, address, bytes });
        }
    }
}

impl Memory for NotingMemory {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        self.memory.read(address, bytes)?;
        self.note(address, bytes);
        Ok(())
    }

    fn read_each(&self, addresses: &[u64], len: usize, bytes: &mut Vec<u8>) -> Vec<bool> {
        let was_read = self.memory.read_each(addresses, len, bytes);
        let pieces = addresses.iter().zip(&was_read).zip(bytes.chunks(len.max(1)));
        for ((&address, _), piece) in pieces.filter(|((_, is_read), _)| **is_read) {
            self.note(address, piece);
        }
        was_read
    }

    fn forget(&self) {
        self.memory.forget();
    }
}
