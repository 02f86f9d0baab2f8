//! The VM's own threads: those of the garbage collector, the VM thread, the watcher.
//!
//! They are in no list that HotSpot describes. But each is a `NamedThread` that a variable of the library or another
//! thread points at, and is known by its thread id. So the library's data is searched, once, for words that point at
//! something with the id of a living thread and a name that begins as the kernel's name of that thread does. On JDK 8,
//! where they hang together in no list, those that no variable points at are not found.

use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    library::Library,
    memory::Memory,
    threads::{JvmThread, ThreadKind, ThreadsLayout},
    vm_structs::VmStructs,
};

/// Bytes of data that are searched; libjvm has about 2 MiB.
const MAX_DATA_BYTES: u64 = 16 << 20;
const PAGE_BYTES: u64 = 4096;
/// Threads that hang together.
const MAX_THREADS: usize = 4096;
/// Bytes of a name that the kernel keeps.
const COMM_BYTES: usize = 15;
/// What HotSpot calls its `WatcherThread`.
const WATCHER: &[u8] = b"VM Periodic Task Thread";

/// How the VM's own threads look.
#[derive(Clone, Copy, Debug)]
pub(super) struct VmThreadsLayout {
    name: u64,
    /// Where the next thread of the VM's list is; there is one since JDK 11.
    next: Option<u64>,
}

impl VmThreadsLayout {
    /// `None` when this JVM does not tell where the names are.
    pub(super) fn of(structs: &VmStructs) -> Option<Self> {
        let name = structs.offset("NamedThread::_name")?;
        // `class NonJavaThread : public Thread { NonJavaThread* volatile _next; }`
        let next = structs.size("NonJavaThread").and(structs.size("Thread"));
        Some(Self { name, next })
    }
}

/// Finds the VM's own threads among `unnamed`, threads without a Java name, with the kernel's names of them.
pub(super) fn find(
    memory: &dyn Memory,
    library: &Library,
    layout: VmThreadsLayout,
    threads: &ThreadsLayout,
    unnamed: &FxHashMap<u32, Vec<u8>>,
) -> Vec<JvmThread> {
    let search = Search { memory, layout, threads, unnamed };
    let mut found = FxHashMap::default();
    for first in search.pointed_at(library) {
        search.follow(first, &mut found);
    }
    let mut found: Vec<JvmThread> = found.into_values().collect();
    found.sort_by_key(|thread| thread.nid);
    found
}

struct Search<'a> {
    memory: &'a dyn Memory,
    layout: VmThreadsLayout,
    threads: &'a ThreadsLayout,
    unnamed: &'a FxHashMap<u32, Vec<u8>>,
}

impl Search<'_> {
    /// What the library's variables point at and may be a thread.
    fn pointed_at(&self, library: &Library) -> Vec<u64> {
        let mut words = FxHashSet::default();
        for &(start, end) in library.data() {
            let (start, mut page) = (start & !7, Vec::new());
            let end = end.min(start.saturating_add(MAX_DATA_BYTES));
            for at in (start..end).step_by(PAGE_BYTES as usize) {
                page.resize((end - at).min(PAGE_BYTES) as usize, 0);
                // A page that was never touched reads as zeros, and touches none but the one that all share.
                if self.memory.read(at, &mut page).is_err() {
                    continue;
                }
                words.extend(page.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)));
            }
        }
        let is_inside =
            |word: &u64| library.data().iter().any(|&(start, end)| (start..end).contains(word));
        words.retain(|word| {
            *word >= PAGE_BYTES && word % 8 == 0 && word >> 47 == 0 && !is_inside(word)
        });
        self.with_known_id(words.into_iter().collect())
    }

    /// Those of `candidates` that lead to the id of an unnamed thread, as a thread does.
    fn with_known_id(&self, candidates: Vec<u64>) -> Vec<u64> {
        let follow = |places: Vec<u64>, len: usize| {
            let mut bytes = Vec::new();
            let was_read = self.memory.read_each(&places, len, &mut bytes);
            let number = |piece: &[u8]| piece.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b));
            let numbers: Vec<u64> = bytes.chunks_exact(len).map(number).collect();
            was_read
                .into_iter()
                .zip(numbers)
                .map(|(ok, n)| if ok { n } else { 0 })
                .collect::<Vec<_>>()
        };
        let places =
            candidates.iter().map(|word| word.wrapping_add(self.threads.osthread)).collect();
        let os: Vec<(u64, u64)> = candidates
            .into_iter()
            .zip(follow(places, 8))
            .filter(|&(_, os)| os >= PAGE_BYTES && os % 8 == 0 && os >> 47 == 0)
            .collect();
        let places = os.iter().map(|(_, os)| os.wrapping_add(self.threads.thread_id)).collect();
        let ids = follow(places, 4);
        let is_known = |id: u64| u32::try_from(id).is_ok_and(|id| self.unnamed.contains_key(&id));
        os.into_iter().zip(ids).filter(|&(_, id)| is_known(id)).map(|((word, _), _)| word).collect()
    }

    /// Adds the thread at `first`, and those that it leads to.
    fn follow(&self, first: u64, found: &mut FxHashMap<u32, JvmThread>) {
        let (mut address, mut seen) = (first, FxHashSet::default());
        while address != 0 && seen.len() < MAX_THREADS && seen.insert(address) {
            let Ok(nid) = self.threads.nid(self.memory, address) else { break };
            let Some(comm) = self.unnamed.get(&nid) else { break };
            if let Some(name) = self.name(address, comm) {
                let thread = JvmThread { address, nid, name, kind: ThreadKind::Vm, carries: None };
                found.insert(nid, thread);
            }
            let next = self.layout.next.map(|next| self.memory.u64(address.wrapping_add(next)));
            address = next.and_then(Result::ok).unwrap_or(0);
        }
    }

    /// The name of the thread at `address`, which the kernel calls `comm`.
    fn name(&self, address: u64, comm: &[u8]) -> Option<String> {
        let place = address.wrapping_add(self.layout.name);
        let text = self.memory.u64(place).and_then(|text| self.memory.text(text));
        let name = text.ok().filter(|name| !name.is_empty() && is_cut_to(name, comm));
        // The watcher is no `NamedThread`: its name is a constant in the code.
        let name = name.or_else(|| is_cut_to(WATCHER, comm).then(|| WATCHER.to_vec()))?;
        Some(String::from_utf8_lossy(&name).into_owned())
    }
}

/// Whether the VM gave the kernel `comm` for `name`: its first bytes, or the first and the last with dots between.
fn is_cut_to(name: &[u8], comm: &[u8]) -> bool {
    if name.starts_with(comm) && (name.len() == comm.len() || comm.len() == COMM_BYTES) {
        return true;
    }
    let dots = comm.windows(2).position(|pair| pair == b"..");
    dots.is_some_and(|dots| name.starts_with(&comm[..dots]) && name.ends_with(&comm[dots + 2..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel shows of the VM's names.
    #[test]
    fn cut_names() {
        // (name, the kernel's, whether they belong together)
        let cases: [(&str, &str, bool); 6] = [
            ("VM Thread", "VM Thread", true),
            ("VM Periodic Task Thread", "VM Periodic Tas", true),
            ("GC Thread#0", "GC Thread#1", false),
            ("VM Thread 2", "VM Thread", false),
            ("G1 Concurrent Refinement Thread#0", "G1 Conc..read#0", true),
            ("G1 Concurrent Refinement Thread#1", "G1 Conc..read#0", false),
        ];
        for (name, comm, expected) in cases {
            assert_eq!(is_cut_to(name.as_bytes(), comm.as_bytes()), expected, "{name} {comm}");
        }
    }
}
