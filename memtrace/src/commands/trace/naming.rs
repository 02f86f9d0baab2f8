//! The names of threads, as they become known.
//!
//! In: a process, an event, a saved thread dump. Out: names, to be put where they belong in time.

use std::collections::BTreeSet;

use super::super::jstack::{self, SavedNames};
use crate::{
    events::Event,
    ledger::{Ledger, NameFrom},
    target,
    trace::ThreadName,
};

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
