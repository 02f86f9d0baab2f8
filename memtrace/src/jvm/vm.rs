//! One JVM: its tables, read once, and what they make readable.

use rustc_hash::{FxHashMap, FxHashSet};
use std::rc::Rc;

use super::{
    library::Library,
    memory::{Memory, Unreadable},
    oops::Oops,
    release::{Flags, Release},
    threads::{JvmThread, ThreadFields, ThreadReader, ThreadsLayout},
    vm_structs::{TablesError, VmStructs},
    vm_threads::{self, VmThreadsLayout},
};

/// A JVM whose tables were read.
pub struct Vm {
    pub(super) memory: Rc<dyn Memory>,
    pub(super) structs: VmStructs,
    pub(super) library: Library,
    release: Release,
    flags: Flags,
    pub(super) threads: ThreadsLayout,
    vm_threads: Option<VmThreadsLayout>,
    oops: Option<Oops>,
    fields: ThreadFields,
    named: FxHashMap<u32, JvmThread>,
    /// Threads that are not Java's and whose names were not found.
    nameless: FxHashSet<u32>,
}

impl Vm {
    /// Reads the tables of the JVM whose library begins at `libjvm`.
    pub fn open(memory: Rc<dyn Memory>, libjvm: u64) -> Result<Self, TablesError> {
        memory.forget();
        let library = Library::at(&*memory, libjvm)?.ok_or(TablesError::NoTable("symbols"))?;
        let structs = VmStructs::read(&*memory, &library)?;
        let release = Release::read(&*memory, &structs);
        // Until JDK 21 it is set while the JVM starts; how numbers are packed and references look hangs on it.
        if release.feature.is_none() {
            return Err(TablesError::Missing("release".into()));
        }
        Ok(Self {
            threads: ThreadsLayout::of(&structs)?,
            vm_threads: VmThreadsLayout::of(&structs),
            flags: Flags::default(),
            oops: None,
            fields: ThreadFields::default(),
            named: FxHashMap::default(),
            nameless: FxHashSet::default(),
            memory,
            structs,
            library,
            release,
        })
    }

    /// Its release.
    #[must_use]
    pub fn release(&self) -> &Release {
        &self.release
    }

    /// What its tables describe.
    #[must_use]
    pub fn structs(&self) -> &VmStructs {
        &self.structs
    }

    /// Whether the flag `name` is on; `None` when this JVM has no such flag, or has none yet.
    pub fn flag(&mut self, name: &str) -> Option<bool> {
        self.need_flags().ok()?;
        self.flags.is_on(&*self.memory, name)
    }

    /// The value of the 64-bit flag `name`.
    pub fn flag_number(&mut self, name: &str) -> Option<u64> {
        self.need_flags().ok()?;
        self.flags.number(&*self.memory, name)
    }

    /// The Java threads that run now. None while the JVM is starting.
    pub fn java_threads(&mut self) -> Result<Vec<JvmThread>, TablesError> {
        self.java_threads_but(|_, _| false)
    }

    /// The same, but for those that `is_known` knows by address and id: what is known need not be read again.
    pub fn java_threads_but(
        &mut self,
        is_known: impl Fn(u64, u32) -> bool,
    ) -> Result<Vec<JvmThread>, TablesError> {
        self.memory.forget();
        self.need_oops()?;
        let Self { memory, threads, oops, fields, .. } = self;
        let Some(oops) = oops else { return Ok(Vec::new()) };
        Ok(ThreadReader { memory: &**memory, layout: threads, oops, fields }.all_but(is_known)?)
    }

    /// The names of the VM's own threads.
    ///
    /// `unnamed` are threads that are not Java's: their ids in the JVM's pid namespace and the kernel's names of them.
    /// Each is searched for once; the result is only those that were found.
    pub fn vm_threads(&mut self, unnamed: &FxHashMap<u32, Vec<u8>>) -> Vec<JvmThread> {
        let Some(layout) = self.vm_threads else { return Vec::new() };
        let is_known = |nid: &u32| self.named.contains_key(nid) || self.nameless.contains(nid);
        if !unnamed.keys().all(is_known) {
            self.memory.forget();
            let found =
                vm_threads::find(&*self.memory, &self.library, layout, &self.threads, unnamed);
            self.named = found.into_iter().map(|thread| (thread.nid, thread)).collect();
            self.nameless =
                unnamed.keys().filter(|nid| !self.named.contains_key(nid)).copied().collect();
        }
        let mut threads: Vec<JvmThread> =
            unnamed.keys().filter_map(|nid| self.named.get(nid).cloned()).collect();
        threads.sort_by_key(|thread| thread.nid);
        threads
    }

    /// Where the anchor of the Java thread at `thread` is: its last Java frame.
    pub(super) fn anchor_place(&self, thread: u64) -> u64 {
        thread.wrapping_add(self.threads.anchor)
    }

    fn need_flags(&mut self) -> Result<(), TablesError> {
        if self.flags.is_empty() {
            self.flags = Flags::read(&*self.memory, &self.structs)?;
        }
        Ok(())
    }

    /// The bases of compressed pointers are known only once the heap is there.
    fn need_oops(&mut self) -> Result<(), TablesError> {
        if self.oops.is_none() && self.has_threads()? {
            self.need_flags()?;
            self.oops = Some(Oops::of(&*self.memory, &self.structs, &self.flags, &self.release)?);
        }
        Ok(())
    }

    /// The first thread comes after the heap.
    fn has_threads(&self) -> Result<bool, Unreadable> {
        Ok(!self.threads.addresses(&*self.memory)?.is_empty())
    }
}
