//! The names of threads, as they become known.
//!
//! In: a process, an event, a JVM's memory, a saved thread dump. Out: names, to be put where they belong in time.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use memtrace_common::Kind;
use rustc_hash::FxHashMap;

use super::super::jstack::{self, SavedNames};
use crate::{
    events::Event,
    jvm::{Look, TablesError, ThreadNames},
    ledger::{Ledger, NameFrom},
    target,
    trace::ThreadName,
};

/// JVMs that can't be read and are told of.
const MAX_UNREADABLE: usize = 10;

/// The names that the traced JVMs have for their threads.
#[derive(Default)]
pub(super) struct VmNames {
    processes: FxHashMap<u32, ThreadNames>,
    unreadable: BTreeMap<u32, String>,
    unlisted: BTreeMap<u32, String>,
}

/// The processes with a JVM that can't be read at all, or whose threads can't be listed, and why.
#[derive(Default)]
pub(super) struct Unreadable {
    pub(super) jvms: BTreeMap<u32, String>,
    pub(super) lists: BTreeMap<u32, String>,
}

impl VmNames {
    /// Process `tgid` has new code, which may be a JVM's.
    pub(super) fn code_is_new(&mut self, tgid: u32) {
        if !self.processes.contains_key(&tgid)
            && let Some(names) = ThreadNames::of_process(tgid)
        {
            self.processes.insert(tgid, names);
        }
    }

    /// Takes note of threads that begin or are renamed, and of processes that end.
    pub(super) fn follow(&mut self, event: &Event<'_>) {
        let header = &event.header;
        let tid = match event.kind {
            Kind::THREAD_START => header.args[0] as u32,
            Kind::RENAME => header.args[2] as u32,
            Kind::EXEC => return self.ended(header.tgid),
            Kind::EXIT if header.args[0] != 0 => return self.ended(header.tgid),
            _ => return,
        };
        if let Some(names) = self.processes.get_mut(&header.tgid) {
            names.changed(tid);
        }
    }

    /// The names that were not told yet.
    pub(super) fn look(&mut self, look: Look) -> Vec<ThreadName> {
        let mut found = Vec::new();
        for (&tgid, names) in &mut self.processes {
            let name = |(tid, name): (u32, String)| ThreadName {
                tgid,
                tid,
                name: name.into_bytes(),
                from: NameFrom::Vm,
            };
            found.extend(names.look(look).into_iter().map(name));
        }
        found
    }

    /// What could not be read, at the end.
    pub(super) fn unreadable(&mut self) -> Unreadable {
        let tgids: Vec<u32> = self.processes.keys().copied().collect();
        tgids.into_iter().for_each(|tgid| self.ended(tgid));
        Unreadable { jvms: mem::take(&mut self.unreadable), lists: mem::take(&mut self.unlisted) }
    }

    fn ended(&mut self, tgid: u32) {
        let names = self.processes.remove(&tgid);
        let Some((names, error)) = names.as_ref().and_then(|it| Some((it, it.error()?))) else {
            return;
        };
        // A process that is gone can't be read whatever it was.
        if matches!(error, TablesError::Unreadable(_)) {
            return;
        }
        let told = if names.is_open() { &mut self.unlisted } else { &mut self.unreadable };
        if told.len() < MAX_UNREADABLE {
            told.insert(tgid, error.to_string());
        }
    }
}

/// The names that the threads of process `tgid` have now.
pub(super) fn of_process(tgid: u32) -> Vec<ThreadName> {
    let named = |tid| Some(of_kernel(tgid, tid, target::comm(tgid, tid)?));
    target::threads(tgid).into_iter().filter_map(named).collect()
}

/// The name that a thread has from `event` on.
pub(super) fn of_rename(event: &Event<'_>) -> ThreadName {
    let [first, second, tid, ..] = event.header.args;
    let bytes = [first.to_ne_bytes(), second.to_ne_bytes()].concat();
    let len = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    of_kernel(event.header.tgid, tid as u32, bytes[..len].to_vec())
}

/// Those of `saved` whose threads were seen, and what the user should know of the others.
pub(super) fn of_seen(saved: SavedNames, ledger: &Ledger) -> (Vec<ThreadName>, Option<String>) {
    let seen: BTreeSet<u32> = ledger.threads().iter().map(|thread| thread.tid).collect();
    let SavedNames { mut names, n_in_dump } = saved;
    names.retain(|name| seen.contains(&name.tid));
    let note = jstack::note_on(names.len(), n_in_dump);
    (names, note)
}

fn of_kernel(tgid: u32, tid: u32, name: Vec<u8>) -> ThreadName {
    ThreadName { tgid, tid, name, from: NameFrom::Comm }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(tids: &[u32]) -> SavedNames {
        let names = tids.iter().map(|&tid| of_kernel(1, tid, b"name".to_vec())).collect();
        SavedNames { names, n_in_dump: tids.len() }
    }

    /// Only threads that were seen are named, and it is said if there is none.
    #[test]
    fn seen() {
        let mut ledger = Ledger::default();
        ledger.name_thread(1, 7, b"seen", NameFrom::Comm);
        // (threads of the dump, those that are named, whether there is a note)
        let cases: [(&[u32], &[u32], bool); 3] =
            [(&[7, 8], &[7], false), (&[8, 9], &[], true), (&[], &[], false)];
        for (tids, want, has_note) in cases {
            let (names, note) = of_seen(saved(tids), &ledger);
            let named: Vec<u32> = names.iter().map(|name| name.tid).collect();
            assert_eq!((named.as_slice(), note.is_some()), (want, has_note), "{tids:?}");
        }
    }

    /// The test's own threads have names.
    #[test]
    fn this_process() {
        let names = of_process(std::process::id());
        assert!(names.iter().any(|name| name.tid == std::process::id() && !name.name.is_empty()));
    }
}
