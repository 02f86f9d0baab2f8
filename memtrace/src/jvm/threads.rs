//! The Java threads of a JVM, with the names that Java gave them.
//!
//! The list, the thread ids and the names come from the VM's memory; nobody is asked and nothing is stopped. A list
//! that changes while it is read may lack a thread that begins or ends at that moment.

use rustc_hash::FxHashMap;

use super::{
    memory::{Memory, Unreadable},
    oops::{Oops, StringFields},
    vm_structs::{TablesError, VmStructs},
};

/// Threads that are read.
const MAX_THREADS: usize = 65_536;
/// Subclasses of `java.lang.Thread` whose fields are remembered; beyond, they are looked up anew.
const MAX_CLASSES: usize = 1_000;

/// What a thread is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ThreadKind {
    /// It has a `java.lang.Thread`.
    Java,
    /// It is the VM's own: the garbage collector's, the VM thread.
    Vm,
}

/// A thread of a JVM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JvmThread {
    /// Where the VM's `Thread` lies.
    pub address: u64,
    /// The id that the kernel gave it, in the innermost pid namespace of the JVM.
    pub nid: u32,
    /// The whole name; may hold any character. Empty where the name could not be read.
    pub name: String,
    /// What it is.
    pub kind: ThreadKind,
    /// The virtual thread that it carries at this moment.
    pub carries: Option<VirtualThread>,
}

/// A virtual thread that is mounted on a carrier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualThread {
    /// `Thread.threadId()`.
    pub id: u64,
    /// Its name, most often none.
    pub name: String,
}

/// How this JVM's threads look.
#[derive(Clone, Debug)]
pub(super) struct ThreadsLayout {
    list: List,
    pub(super) osthread: u64,
    pub(super) thread_id: u64,
    thread_obj: u64,
    /// Whether references outside of the heap are handles, that is, point at a reference.
    has_handles: bool,
    vthread: Option<u64>,
    pub(super) anchor: u64,
}

#[derive(Clone, Copy, Debug)]
enum List {
    /// `Threads::_thread_list`, each with the next one.
    Linked { first: u64, next: u64 },
    /// `ThreadsSMRSupport::_java_thread_list`.
    Array { list: u64, length: u64, threads: u64 },
}

impl ThreadsLayout {
    pub(super) fn of(structs: &VmStructs) -> Result<Self, TablesError> {
        let list = match structs.address("ThreadsSMRSupport::_java_thread_list") {
            Some(list) => List::Array {
                list,
                length: structs.need_offset(&["ThreadsList::_length"])?,
                threads: structs.need_offset(&["ThreadsList::_threads"])?,
            },
            None => List::Linked {
                first: structs.need_address(&["Threads::_thread_list"])?,
                next: structs.need_offset(&["JavaThread::_next"])?,
            },
        };
        let thread_obj = structs.field("JavaThread::_threadObj");
        Ok(Self {
            list,
            osthread: structs.need_offset(&["Thread::_osthread", "JavaThread::_osthread"])?,
            thread_id: structs.need_offset(&["OSThread::_thread_id"])?,
            thread_obj: structs.need_offset(&["JavaThread::_threadObj"])?,
            has_handles: thread_obj.is_some_and(|field| &*field.type_name == "OopHandle"),
            vthread: structs.offset("JavaThread::_vthread"),
            anchor: structs.need_offset(&["JavaThread::_anchor"])?,
        })
    }

    /// The addresses of all `JavaThread`s.
    pub(super) fn addresses(&self, memory: &dyn Memory) -> Result<Vec<u64>, Unreadable> {
        match self.list {
            List::Linked { first, next } => {
                let mut found = Vec::new();
                let mut thread = memory.u64(first)?;
                while thread != 0 && found.len() < MAX_THREADS {
                    found.push(thread);
                    thread = memory.u64(thread.wrapping_add(next))?;
                }
                Ok(found)
            }
            List::Array { list, length, threads } => {
                let list = memory.u64(list)?;
                if list == 0 {
                    return Ok(Vec::new());
                }
                let len = (memory.u32(list.wrapping_add(length))? as usize).min(MAX_THREADS);
                let array = memory.u64(list.wrapping_add(threads))?;
                let bytes = memory.bytes(array, 8 * len)?;
                let words = bytes.as_chunks::<8>().0.iter();
                Ok(words.map(|word| u64::from_le_bytes(*word)).filter(|&word| word != 0).collect())
            }
        }
    }

    /// Address and id of all `JavaThread`s that have begun, however many, in few reads.
    fn begun(&self, memory: &dyn Memory) -> Result<Vec<(u64, u32)>, Unreadable> {
        let addresses = self.addresses(memory)?;
        let mut bytes = Vec::new();
        let places: Vec<u64> = addresses.iter().map(|at| at.wrapping_add(self.osthread)).collect();
        // What can't be read is zeros.
        memory.read_each(&places, 8, &mut bytes);
        let os = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
        let threads: Vec<(u64, u64)> = addresses.into_iter().zip(os).collect();
        let places: Vec<u64> =
            threads.iter().map(|(_, os)| os.wrapping_add(self.thread_id)).collect();
        memory.read_each(&places, 4, &mut bytes);
        let ids = bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word));
        let begun = threads.into_iter().zip(ids).filter(|&((_, os), nid)| os != 0 && nid != 0);
        Ok(begun.map(|((address, _), nid)| (address, nid)).collect())
    }

    /// The id of the VM's thread at `thread`; 0 while it has none.
    pub(super) fn nid(&self, memory: &dyn Memory, thread: u64) -> Result<u32, Unreadable> {
        let os = memory.u64(thread.wrapping_add(self.osthread))?;
        if os == 0 { Ok(0) } else { memory.u32(os.wrapping_add(self.thread_id)) }
    }

    /// The object that the field at `offset` of `thread` refers to.
    fn object(
        &self,
        memory: &dyn Memory,
        oops: &Oops,
        thread: u64,
        offset: u64,
    ) -> Result<u64, Unreadable> {
        let mut reference = memory.u64(thread.wrapping_add(offset))?;
        if self.has_handles && reference != 0 {
            reference = memory.u64(reference)?;
        }
        Ok(oops.resolve(reference))
    }
}

/// Where Java's own classes have what is read of them; found once, for every class anew.
#[derive(Debug, Default)]
pub(super) struct ThreadFields {
    /// By class of the thread object: where the name is, and the id.
    threads: FxHashMap<u64, (Option<u64>, Option<u64>)>,
    strings: Option<StringFields>,
}

/// Reads Java threads.
pub(super) struct ThreadReader<'a> {
    pub(super) memory: &'a dyn Memory,
    pub(super) layout: &'a ThreadsLayout,
    pub(super) oops: &'a Oops,
    pub(super) fields: &'a mut ThreadFields,
}

impl ThreadReader<'_> {
    /// The Java threads that have begun, but for those that `is_known` knows by address and id.
    pub(super) fn all_but(
        &mut self,
        is_known: impl Fn(u64, u32) -> bool,
    ) -> Result<Vec<JvmThread>, Unreadable> {
        let begun = self.layout.begun(self.memory)?;
        let new = begun.into_iter().filter(|&(address, nid)| !is_known(address, nid));
        Ok(new.map(|(address, nid)| self.thread(address, nid)).collect())
    }

    /// The thread at `address` with id `nid`. A name that can't be read is empty.
    fn thread(&mut self, address: u64, nid: u32) -> JvmThread {
        let object = self.object(address, self.layout.thread_obj);
        let name = object.and_then(|object| self.name(object)).unwrap_or_default();
        let carried = self.layout.vthread.and_then(|place| self.object(address, place));
        let carries = carried
            .filter(|&carried| Some(carried) != object)
            .and_then(|carried| self.carried(carried));
        JvmThread { address, nid, name, kind: ThreadKind::Java, carries }
    }

    fn object(&self, thread: u64, offset: u64) -> Option<u64> {
        let object = self.layout.object(self.memory, self.oops, thread, offset).ok();
        object.filter(|&object| object != 0)
    }

    fn carried(&mut self, object: u64) -> Option<VirtualThread> {
        let (_, id) = self.thread_fields(object).ok()?;
        let id = self.memory.u64(object.wrapping_add(id?)).ok()?;
        Some(VirtualThread { id, name: self.name(object).unwrap_or_default() })
    }

    /// The name of the `java.lang.Thread` at `object`.
    fn name(&mut self, object: u64) -> Option<String> {
        let place = object.wrapping_add(self.thread_fields(object).ok()?.0?);
        let string = self.oops.reference(self.memory, place).ok().filter(|&string| string != 0)?;
        let fields = self.string_fields(string).ok()??;
        self.oops.string(self.memory, string, &fields).ok()
    }

    fn thread_fields(&mut self, object: u64) -> Result<(Option<u64>, Option<u64>), Unreadable> {
        let klass = self.oops.klass(self.memory, object)?;
        if let Some(&known) = self.fields.threads.get(&klass) {
            return Ok(known);
        }
        let field = |name| self.oops.field(self.memory, klass, "java/lang/Thread", name);
        let found = (field("name")?, field("tid")?);
        if self.fields.threads.len() >= MAX_CLASSES {
            self.fields.threads.clear();
        }
        self.fields.threads.insert(klass, found);
        Ok(found)
    }

    fn string_fields(&mut self, string: u64) -> Result<Option<StringFields>, Unreadable> {
        if self.fields.strings.is_none() {
            let klass = self.oops.klass(self.memory, string)?;
            let field = |name| self.oops.field(self.memory, klass, "java/lang/String", name);
            let coder = field("coder")?;
            self.fields.strings = field("value")?.map(|value| StringFields { value, coder });
        }
        Ok(self.fields.strings)
    }
}
