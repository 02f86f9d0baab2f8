//! The threads that were seen, those that have ended too.

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::fold::at;

/// Threads that are kept apart; beyond, some are put together, and it is said how many.
const MAX_THREADS: usize = 20_000;
/// How many threads begin at least between two attempts to put some together.
const FOLD_EVERY: usize = MAX_THREADS / 8;
/// The name of the threads that are together whatever their own names are.
const MORE: &[u8] = b"[more threads]";

/// Bytes of a name that the kernel keeps.
const COMM_BYTES: usize = 15;

/// Where a thread's name is from. The order is that of the trace file, not of worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NameFrom {
    /// The kernel's name of the thread.
    Comm,
    /// The JVM's own thread dump.
    Jstack,
    /// The JVM's memory.
    Vm,
}

impl NameFrom {
    /// A name is replaced only by one from a source that is worth as much: what was asked for wins over what is there.
    fn worth(self) -> u8 {
        match self {
            NameFrom::Comm => 0,
            NameFrom::Vm => 1,
            NameFrom::Jstack => 2,
        }
    }
}

/// A thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// Its process.
    pub tgid: u32,
    /// Its id, 0 for one that stands for several that were not kept apart.
    pub tid: u32,
    /// Its name, as bytes that anyone may choose.
    pub name: Vec<u8>,
    /// Where the name is from.
    pub name_from: NameFrom,
    /// Whether it has ended.
    pub ended: bool,
    /// Calls and streams of it that were recorded.
    pub n_events: u64,
    /// Blocks that it got, where only samples are told of one by one; else 0.
    pub mallocs: u64,
    /// Bytes in them.
    pub malloc_bytes: u64,
    /// Blocks that it got and that were too small to be told of.
    pub ignored: u64,
    /// Bytes in them.
    pub ignored_bytes: u64,
}

impl Thread {
    fn tally(&mut self, mallocs: u64, bytes: u64) {
        self.mallocs = self.mallocs.saturating_add(mallocs);
        self.malloc_bytes = self.malloc_bytes.saturating_add(bytes);
    }

    fn ignore(&mut self, blocks: u64, bytes: u64) {
        self.ignored = self.ignored.saturating_add(blocks);
        self.ignored_bytes = self.ignored_bytes.saturating_add(bytes);
    }
}

/// All threads, by index. A thread id may be given to several threads, an index is given anew only by [`Threads::fold`].
#[derive(Debug, Default)]
pub(super) struct Threads {
    all: Vec<Thread>,
    current: FxHashMap<u32, u32>,
    /// Threads that began since some were put together last.
    n_since_fold: usize,
    /// Threads that were put together with others.
    pub(super) n_grouped: u64,
}

impl Threads {
    pub(super) fn all(&self) -> &[Thread] {
        &self.all
    }

    /// The index of the thread that has id `tid` now.
    pub(super) fn index(&mut self, tgid: u32, tid: u32) -> u32 {
        match self.current.get(&tid) {
            Some(&index) => index,
            None => self.begin(tgid, tid, None),
        }
    }

    /// A thread begins; it inherits the name of the thread that started it.
    pub(super) fn begin(&mut self, tgid: u32, tid: u32, parent: Option<u32>) -> u32 {
        let parent = parent.and_then(|parent| self.all.get(*self.current.get(&parent)? as usize));
        let mut name = parent.map(|thread| thread.name.clone()).unwrap_or_default();
        // The kernel hands down what it keeps of a name.
        name.truncate(COMM_BYTES);
        // Its end was not seen if there is one with this id.
        self.end(tid);
        self.n_since_fold += 1;
        let index = if self.all.len() < MAX_THREADS {
            self.push(Thread {
                tgid,
                tid,
                name,
                name_from: NameFrom::Comm,
                ended: false,
                n_events: 0,
                mallocs: 0,
                malloc_bytes: 0,
                ignored: 0,
                ignored_bytes: 0,
            })
        } else {
            self.n_grouped += 1;
            self.group(tgid)
        };
        self.current.insert(tid, index);
        index
    }

    pub(super) fn rename(&mut self, tgid: u32, tid: u32, name: &[u8], from: NameFrom) {
        // The VM's name may come after the thread's end, and before its begin is told.
        if from == NameFrom::Vm && !self.current.contains_key(&tid) {
            return;
        }
        let index = self.index(tgid, tid);
        if let Some(thread) = self.all.get_mut(index as usize)
            && thread.tid != 0
            && thread.name_from.worth() <= from.worth()
        {
            thread.name = name.to_vec();
            thread.name_from = from;
        }
    }

    /// The thread ends; its id may be given to another.
    pub(super) fn end(&mut self, tid: u32) -> Option<u32> {
        let index = self.current.remove(&tid)?;
        if let Some(thread) = self.all.get_mut(index as usize)
            && thread.tid != 0
        {
            thread.ended = true;
        }
        Some(index)
    }

    /// The threads of process `tgid` end, but for the one with id `but`.
    pub(super) fn end_all(&mut self, tgid: u32, but: Option<u32>) -> Vec<u32> {
        let Self { all, current, .. } = self;
        let is_of = |index: u32| all.get(index as usize).is_some_and(|it| it.tgid == tgid);
        let ended = current.extract_if(|&tid, &mut index| Some(tid) != but && is_of(index));
        let ended: Vec<u32> = ended.map(|(_, index)| index).collect();
        for &index in &ended {
            if let Some(thread) = all.get_mut(index as usize).filter(|it| it.tid != 0) {
                thread.ended = true;
            }
        }
        ended
    }

    pub(super) fn count_event(&mut self, index: u32) {
        if let Some(thread) = self.all.get_mut(index as usize) {
            thread.n_events += 1;
        }
    }

    /// Blocks that a thread got, of which only samples are told of.
    pub(super) fn tally(&mut self, index: u32, mallocs: u64, bytes: u64) {
        if let Some(thread) = self.all.get_mut(index as usize) {
            thread.tally(mallocs, bytes);
        }
    }

    /// Blocks that a thread got and that were too small to be told of.
    pub(super) fn ignore(&mut self, index: u32, blocks: u64, bytes: u64) {
        if let Some(thread) = self.all.get_mut(index as usize) {
            thread.ignore(blocks, bytes);
        }
    }

    /// Takes an event back that is part of another one.
    pub(super) fn uncount_event(&mut self, index: u32) {
        if let Some(thread) = self.all.get_mut(index as usize) {
            thread.n_events = thread.n_events.saturating_sub(1);
        }
    }

    /// Whether there are so many threads that some should be put together.
    pub(super) fn wants_folding(&self) -> bool {
        self.all.len() >= MAX_THREADS && self.n_since_fold >= FOLD_EVERY
    }

    /// Whether there is room for many more.
    pub(super) fn has_room(&self) -> bool {
        self.all.len() <= MAX_THREADS / 4 * 3
    }

    /// Puts threads together that have ended and are not among `holders`: those of one process and name, or all.
    /// Returns the new index of each.
    pub(super) fn fold(&mut self, holders: &[bool], by_name: bool) -> Vec<u32> {
        self.n_since_fold = 0;
        let mut together: FxHashMap<(u32, Vec<u8>), u32> = FxHashMap::default();
        let mut new = Vec::with_capacity(self.all.len());
        for (index, mut thread) in std::mem::take(&mut self.all).into_iter().enumerate() {
            let holds = holders.get(index).copied().unwrap_or_default();
            let stays = thread.tid != 0 && (!thread.ended || holds);
            if !by_name && !stays {
                (thread.tgid, thread.name) = (0, MORE.to_vec());
            }
            let key = (thread.tgid, thread.name.clone());
            let known = together.get(&key).copied().filter(|_| !stays);
            new.push(match known {
                Some(known) => self.join(known, &thread),
                None => self.push(thread),
            });
            if !stays && known.is_none() {
                together.insert(key, self.all.len() as u32 - 1);
            }
        }
        self.current.values_mut().for_each(|index| *index = at(&new, *index));
        new
    }

    /// Adds `thread` to the one at `index`, which stands for several from now on.
    fn join(&mut self, index: u32, thread: &Thread) -> u32 {
        if let Some(known) = self.all.get_mut(index as usize) {
            self.n_grouped += u64::from(known.tid != 0) + u64::from(thread.tid != 0);
            known.tid = 0;
            known.n_events += thread.n_events;
            known.tally(thread.mallocs, thread.malloc_bytes);
            known.ignore(thread.ignored, thread.ignored_bytes);
        }
        index
    }

    fn push(&mut self, thread: Thread) -> u32 {
        self.all.push(thread);
        self.all.len() as u32 - 1
    }

    /// The one that stands for all threads beyond the limit.
    fn group(&mut self, tgid: u32) -> u32 {
        let is_group = |thread: &Thread| thread.tid == 0 && thread.name == MORE;
        if let Some(index) = self.all.iter().rposition(is_group) {
            return index as u32;
        }
        let name = MORE.to_vec();
        self.push(Thread {
            tgid,
            tid: 0,
            name,
            name_from: NameFrom::Comm,
            ended: false,
            n_events: 0,
            mallocs: 0,
            malloc_bytes: 0,
            ignored: 0,
            ignored_bytes: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thread inherits its starter's name, and a later thread with the same id is another thread.
    #[test]
    fn names_and_reuse() {
        let mut threads = Threads::default();
        threads.rename(1, 1, b"main", NameFrom::Comm);
        let first = threads.begin(1, 2, Some(1));
        threads.end(2);
        let second = threads.begin(1, 2, Some(1));
        threads.rename(1, 2, b"worker", NameFrom::Comm);
        assert_ne!(first, second);
        let names: Vec<_> =
            threads.all().iter().map(|thread| (thread.name.as_slice(), thread.ended)).collect();
        assert_eq!(names, [(&b"main"[..], false), (b"main", true), (b"worker", false)]);
    }

    /// A name from a better source is not replaced by one from a worse, but by a later one from the same.
    #[test]
    fn better_source_stays() {
        use NameFrom::{Comm, Jstack, Vm};
        // (name and source, one after the other, the one that stays)
        type Names = [(&'static [u8], NameFrom); 3];
        let cases: [(Names, &[u8]); 4] = [
            ([(b"a", Comm), (b"asked for", Jstack), (b"b", Comm)], b"asked for"),
            ([(b"a", Comm), (b"a long name", Vm), (b"a long nam", Comm)], b"a long name"),
            ([(b"a", Comm), (b"a long name", Vm), (b"a later name", Vm)], b"a later name"),
            ([(b"a", Comm), (b"asked for", Jstack), (b"the VM's", Vm)], b"asked for"),
        ];
        for (names, stays) in cases {
            let mut threads = Threads::default();
            names.iter().for_each(|(name, from)| threads.rename(1, 1, name, *from));
            assert_eq!(threads.all()[0].name, stays, "{names:?}");
        }
    }

    /// The VM's name makes no thread, and its end is not handed down.
    #[test]
    fn name_of_the_vm() {
        let mut threads = Threads::default();
        threads.rename(1, 2, b"of a thread that ended", NameFrom::Vm);
        assert!(threads.all().is_empty());
        threads.begin(1, 2, None);
        threads.rename(1, 2, b"longer than the kernel keeps", NameFrom::Vm);
        threads.begin(1, 3, Some(2));
        assert_eq!(threads.all()[1].name, b"longer than the");
        assert_eq!(threads.all()[1].name_from, NameFrom::Comm);
    }

    #[test]
    fn many() {
        let mut threads = Threads::default();
        for tid in 1..=MAX_THREADS as u32 + 5 {
            threads.begin(1, tid, None);
        }
        assert_eq!((threads.all().len(), threads.n_grouped), (MAX_THREADS + 1, 5));
    }
}
