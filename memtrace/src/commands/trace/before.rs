//! What a process had mapped before tracing began, read while it goes on.
//!
//! In: a pid. Out: its mappings for the ledger, and when they were read. What events of that time say besides, and who
//! is right, is settled here and in [`Ledger::before`](crate::ledger::Ledger::before).

use memtrace_common::{Counter, EventHeader};

use super::clock;
use crate::{ledger::Before, probes::Probes, target};

/// A thread can be in one call when tracing begins; more readings than this help nobody.
const MAX_READINGS: u32 = 100;

/// One reading of a process's map.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    /// The process.
    pub(super) tgid: u32,
    /// When it began. An event that took effect later comes after it.
    pub(super) began_ns: u64,
    /// Calls so far that returned and were not seen to begin.
    n_under_way: u64,
    /// How often the map was read.
    n: u32,
}

impl Reading {
    /// Reads the map of process `tgid`; the last one may have been `before`.
    pub(super) fn new(tgid: u32, probes: &Probes, before: Option<Self>) -> (Self, Vec<Before>) {
        // In this order: what returns after the counter was read is either in the map, or makes it be read again.
        let n_under_way = probes.counters().get(Counter::UNDER_WAY);
        let reading = Self {
            tgid,
            began_ns: clock::now_ns(),
            n_under_way,
            n: before.map_or(0, |before| before.n) + 1,
        };
        (reading, mappings(tgid))
    }

    /// Whether a call has returned since that was under way when tracing began: no event tells of it, and the map may
    /// not have had it yet.
    pub(super) fn is_outdated(&self, probes: &Probes) -> bool {
        self.n < MAX_READINGS && probes.counters().get(Counter::UNDER_WAY) > self.n_under_way
    }

    /// When something that call `header` did counts. What gives memory back counts from its entry on; but if the map
    /// was read before the call returned, the memory may be in the map.
    pub(super) fn effect_ns(&self, header: &EventHeader, time_ns: u64) -> u64 {
        let spans = (header.enter_ns..header.exit_ns).contains(&self.began_ns);
        if header.tgid == self.tgid && spans { time_ns.max(self.began_ns) } else { time_ns }
    }
}

fn mappings(pid: u32) -> Vec<Before> {
    let mut mappings = target::maps::read(pid).unwrap_or_default();
    let read_ns = clock::now_ns();
    mappings.retain(|mapping| mapping.path != b"[vsyscall]");
    // A heap is several mappings where its access differs; the last one ends at the break.
    let heap = mappings.iter().rposition(|mapping| mapping.path == b"[heap]");
    let before = |(index, mapping): (usize, &target::maps::Mapping)| Before {
        start: mapping.start,
        end: mapping.end,
        access: mapping.access,
        is_brk: heap == Some(index),
        read_ns,
    };
    let mut before: Vec<Before> = mappings.iter().enumerate().map(before).collect();
    // A process that has no heap yet has asked where it would begin already, and will not ask again.
    if let (None, Some(at)) = (heap, target::start_brk(pid)) {
        before.push(Before { start: at, end: at, access: true, is_brk: true, read_ns });
    }
    before
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A call that spans the beginning of the reading counts after it, others when they did.
    #[test]
    fn effects() {
        let reading = Reading { tgid: 1, began_ns: 50, n_under_way: 0, n: 1 };
        // (process, entry, exit, when it would count, when it counts)
        let cases = [
            (1, 40, 60, 40, 50),
            (1, 40, 60, 60, 60),
            (1, 40, 45, 40, 40),
            (1, 55, 60, 55, 55),
            (2, 40, 60, 40, 40),
        ];
        for (tgid, enter_ns, exit_ns, time_ns, want) in cases {
            let header = EventHeader { tgid, enter_ns, exit_ns, ..Default::default() };
            assert_eq!(reading.effect_ns(&header, time_ns), want, "{enter_ns} {exit_ns}");
        }
    }

    /// Every process has a heap or a place for one, once.
    #[test]
    fn this_process() {
        let began_ns = clock::now_ns();
        let before = mappings(std::process::id());
        assert_eq!(before.iter().filter(|mapping| mapping.is_brk).count(), 1);
        assert!(
            before.iter().all(|mapping| (began_ns..=clock::now_ns()).contains(&mapping.read_ns))
        );
    }
}
