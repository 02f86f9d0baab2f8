//! The names of a JVM's threads, as they become known while it runs.
//!
//! In: a process with a JVM, and word of threads that began or have a new name. Out: names that were not told before,
//! Java's and those of the VM's own threads. A thread can be named only as long as it lives, so who follows a process
//! looks when threads begin; such a look reads little but what is new. Threads that others rename are found by
//! [`Look::All`]. A thread that HotSpot starts for Java tells the kernel its name when it begins, so word comes in time
//! (`JavaThread::thread_main_inner`, JDK 8: src/share/vm/runtime/thread.cpp, JDK 21: src/hotspot/share/runtime/javaThread.cpp).

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    library::libjvm,
    live::LiveMemory,
    threads::{JvmThread, ThreadKind},
    vm::Vm,
    vm_structs::TablesError,
};
use crate::target::{self, maps};

/// After a look there is none of its kind for so many times the processor time that it took: each kind costs a hundredth
/// of the time at most.
const REST: u32 = 100;
/// The shortest rest.
const MIN_REST: Duration = Duration::from_millis(2);
/// How long a JVM that starts may be unreadable; one that still is has no tables.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time between two tries to open it.
const TRY_EVERY: Duration = Duration::from_millis(20);

/// What to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Threads that began, or renamed themselves, since the last look; unless that was just now.
    New,
    /// All threads; unless the last look was just now.
    All,
    /// All threads, for the last time.
    Last,
}

/// Until when there is no look of each kind.
#[derive(Clone, Copy, Debug)]
struct Rests {
    new: Instant,
    all: Instant,
    /// For the VM's own threads.
    own: Instant,
}

/// The names of the threads of one process.
pub struct ThreadNames {
    pid: u32,
    vm: Option<Vm>,
    error: Option<TablesError>,
    /// Whether it was tried for so long that it won't be readable.
    is_given_up: bool,
    began: Instant,
    rests: Rests,
    /// Whether a thread began or renamed itself since the last look.
    is_due: bool,
    /// The Java threads that were told, by id: where each lies, and its name.
    told: FxHashMap<u32, (u64, String)>,
    /// Threads that are not Java's and were looked for, by id.
    searched: FxHashSet<u32>,
    /// Ids here by those in the JVM's own pid namespace, where it has one. All other ids of this type are the JVM's.
    ids: Option<FxHashMap<u32, u32>>,
}

impl ThreadNames {
    /// Those of process `pid`; `None` where it has mapped no JVM.
    #[must_use]
    pub fn of_process(pid: u32) -> Option<Self> {
        libjvm(&maps::read(pid).ok()?)?;
        let is_elsewhere = target::namespace_tid(pid, pid).is_some_and(|nid| nid != pid);
        Some(Self { ids: is_elsewhere.then(FxHashMap::default), ..Self::new(pid, None) })
    }

    fn new(pid: u32, vm: Option<Vm>) -> Self {
        let now = Instant::now();
        Self {
            pid,
            vm,
            error: None,
            is_given_up: false,
            began: now,
            rests: Rests { new: now, all: now, own: now },
            is_due: true,
            told: FxHashMap::default(),
            searched: FxHashSet::default(),
            ids: None,
        }
    }

    /// Thread `tid` began, or renamed itself.
    pub fn changed(&mut self, tid: u32) {
        let nid = match &mut self.ids {
            None => tid,
            Some(ids) => {
                let Some(nid) = target::namespace_tid(self.pid, tid) else { return };
                ids.insert(nid, tid);
                nid
            }
        };
        self.told.remove(&nid);
        self.searched.remove(&nid);
        self.is_due = true;
    }

    /// The names that were not told yet, by the ids that the threads have here.
    pub fn look(&mut self, look: Look) -> Vec<(u32, String)> {
        let all = look != Look::New;
        let rest = if all { self.rests.all } else { self.rests.new };
        let is_wanted = self.is_due || all;
        let is_resting = rest > Instant::now() && look != Look::Last;
        if !is_wanted || is_resting || self.is_given_up {
            return Vec::new();
        }
        if let Err(error) = self.open() {
            self.is_given_up = self.began.elapsed() >= PATIENCE;
            self.error = Some(error);
            let rest = Instant::now() + TRY_EVERY;
            self.rests = Rests { new: rest, all: rest, ..self.rests };
            return Vec::new();
        }
        let began = processor_time();
        let (mut threads, error) = match self.java_threads(all) {
            Ok(threads) => (threads, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        self.error = error;
        let rest = rest_after(began);
        *(if all { &mut self.rests.all } else { &mut self.rests.new }) = rest;
        // While it starts, the VM does not know its own threads yet.
        if all && !threads.is_empty() && self.rests.own <= Instant::now() {
            let began = processor_time();
            let java = threads.iter().map(|thread| thread.nid).collect();
            threads.extend(self.vm_threads(&java));
            self.rests.own = rest_after(began);
        }
        threads.into_iter().filter_map(|thread| self.tell(thread)).collect()
    }

    /// Why the JVM could not be read at the last look.
    #[must_use]
    pub fn error(&self) -> Option<&TablesError> {
        self.error.as_ref()
    }

    /// Whether all but the list of threads can be read.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.vm.is_some()
    }

    fn java_threads(&mut self, all: bool) -> Result<Vec<JvmThread>, TablesError> {
        let Self { vm: Some(vm), told, .. } = self else { return Ok(Vec::new()) };
        let is_known = |address, nid| !all && told.get(&nid).is_some_and(|it| it.0 == address);
        let threads = vm.java_threads_but(is_known)?;
        self.is_due = false;
        if all {
            let living: FxHashSet<u32> = threads.iter().map(|thread| thread.nid).collect();
            self.told.retain(|nid, _| living.contains(nid));
        }
        Ok(threads)
    }

    fn open(&mut self) -> Result<(), TablesError> {
        if self.vm.is_none()
            && let Some(libjvm) = maps::read(self.pid).ok().and_then(|maps| libjvm(&maps))
        {
            self.vm = Some(Vm::open(Rc::new(LiveMemory::new(self.pid)), libjvm)?);
        }
        Ok(())
    }

    /// The VM's own threads among those that were not looked for yet. `java` are those of Java.
    fn vm_threads(&mut self, java: &FxHashSet<u32>) -> Vec<JvmThread> {
        let living = target::threads(self.pid);
        let ids: FxHashMap<u32, u32> = match self.ids {
            None => living.into_iter().map(|tid| (tid, tid)).collect(),
            Some(_) => ids_in_namespace(self.pid, living),
        };
        self.searched.retain(|nid| ids.contains_key(nid));
        let is_new = |nid: &u32| !java.contains(nid) && !self.searched.contains(nid);
        if !ids.keys().any(is_new) {
            return Vec::new();
        }
        let others = ids.iter().filter(|(nid, _)| !java.contains(nid));
        let unnamed: FxHashMap<u32, Vec<u8>> =
            others.filter_map(|(&nid, &tid)| Some((nid, target::comm(self.pid, tid)?))).collect();
        let mut found = self.vm.as_mut().map_or_else(Vec::new, |vm| vm.vm_threads(&unnamed));
        found.retain(|thread| is_new(&thread.nid));
        self.searched.extend(unnamed.keys());
        found
    }

    /// The name of `thread` if it was not told, by the id that it has here. One that can't be read is left as it was.
    fn tell(&mut self, thread: JvmThread) -> Option<(u32, String)> {
        let JvmThread { address, nid, name, kind, .. } = thread;
        let tid = self.id_here(nid).filter(|_| !name.is_empty())?;
        if kind == ThreadKind::Java {
            let told = self.told.insert(nid, (address, name.clone()));
            if told.is_some_and(|told| told == (address, name.clone())) {
                return None;
            }
        }
        Some((tid, name))
    }

    fn id_here(&mut self, nid: u32) -> Option<u32> {
        let Some(ids) = &mut self.ids else { return Some(nid) };
        if !ids.contains_key(&nid) {
            *ids = ids_in_namespace(self.pid, target::threads(self.pid));
        }
        ids.get(&nid).copied()
    }
}

/// The ids here of the threads `tids` of process `pid`, by those that they have in its pid namespace.
fn ids_in_namespace(pid: u32, tids: Vec<u32>) -> FxHashMap<u32, u32> {
    tids.into_iter().filter_map(|tid| Some((target::namespace_tid(pid, tid)?, tid))).collect()
}

/// When a look that began at this processor time may be followed by another.
fn rest_after(began: Duration) -> Instant {
    let took = processor_time().saturating_sub(began);
    Instant::now() + took.saturating_mul(REST).max(MIN_REST)
}

/// The processor time of this thread.
fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is written by the call.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

#[cfg(test)]
mod tests {
    use super::{super::recorded::recorded, *};

    /// That threads can't be listed is told, until they can.
    #[test]
    fn unreadable_list() {
        for (memory, libjvm) in recorded() {
            let vm = Vm::open(memory.clone(), libjvm).unwrap();
            let mut names = ThreadNames::new(std::process::id(), Some(vm));
            memory.is_over.set(true);
            assert_eq!(names.look(Look::Last), []);
            assert!(matches!(names.error(), Some(TablesError::Unreadable(_))) && names.is_open());
            memory.is_over.set(false);
            assert!(!names.look(Look::Last).is_empty());
            assert!(names.error().is_none());
        }
    }
}
