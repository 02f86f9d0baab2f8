//! Changes of code on their way: each is to happen between the events before it and those after it.

use std::collections::VecDeque;

use super::code::{CodeChange, CodeRecord};

/// Changes that are kept for processes that are not known to be traced.
const MAX_UNCLAIMED: usize = 4096;

/// Changes of code that have not happened yet.
#[derive(Debug, Default)]
pub struct CodeChanges {
    /// Of traced processes, by time.
    coming: VecDeque<CodeChange>,
    /// Of other processes, or of children whose begin is yet to be read.
    unclaimed: Vec<CodeChange>,
    n_lost: u64,
}

impl CodeChanges {
    /// Takes a record of perf's.
    pub fn take(&mut self, record: &[u8]) {
        match CodeRecord::decode(record) {
            Some(CodeRecord::Change(change)) => self.unclaimed.push(change),
            Some(CodeRecord::Lost(n)) => self.n_lost += n,
            Some(CodeRecord::Other) | None => {}
        }
    }

    /// Sorts in what is of the processes that `is_traced` knows; tells how many were lost since the last call.
    pub fn claim(&mut self, is_traced: impl Fn(u32) -> bool) -> u64 {
        let Self { coming, unclaimed, n_lost } = self;
        coming.extend(unclaimed.extract_if(.., |change| is_traced(change.tgid)));
        coming.make_contiguous().sort_by_key(|change| change.time_ns);
        let n_old = unclaimed.len().saturating_sub(MAX_UNCLAIMED);
        unclaimed.drain(..n_old);
        std::mem::take(n_lost)
    }

    /// Process `tgid` began at `time_ns`: what was told of an earlier process with its id is not its.
    pub fn begin(&mut self, tgid: u32, time_ns: u64) {
        self.unclaimed.retain(|change| change.tgid != tgid || change.time_ns >= time_ns);
    }

    /// The next change that happened up to `time_ns`.
    pub fn pop(&mut self, time_ns: u64) -> Option<CodeChange> {
        self.coming.pop_front_if(|change| change.time_ns <= time_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record of a new image of process `tgid`.
    fn exec(tgid: u32, time_ns: u64) -> Vec<u8> {
        let head = [&3_u32.to_ne_bytes()[..], &(1_u16 << 13).to_ne_bytes(), &40_u16.to_ne_bytes()]
            .concat();
        let body = [u64::from(tgid), 0, 0, time_ns].map(u64::to_ne_bytes).concat();
        [head, body].concat()
    }

    #[test]
    fn by_time_and_process() {
        let mut changes = CodeChanges::default();
        for (tgid, time_ns) in [(1, 30), (2, 10), (1, 20), (3, 5)] {
            changes.take(&exec(tgid, time_ns));
        }
        assert_eq!(changes.claim(|tgid| tgid == 1), 0);
        let mut up_to = |time_ns| changes.pop(time_ns).map(|change| (change.tgid, change.time_ns));
        assert_eq!(
            [up_to(10), up_to(25), up_to(25), up_to(99)],
            [None, Some((1, 20)), None, Some((1, 30))]
        );
        // A child gets what was told of it before its begin was read, but nothing of an older process.
        changes.begin(2, 10);
        changes.begin(3, 6);
        changes.claim(|tgid| tgid != 1);
        assert_eq!(changes.pop(99).map(|change| change.tgid), Some(2));
        assert_eq!(changes.pop(99), None);
    }

    /// What is lost is told once.
    #[test]
    fn lost() {
        let mut changes = CodeChanges::default();
        for n in [3_u64, 4] {
            let head = [&2_u32.to_ne_bytes()[..], &[0; 2], &32_u16.to_ne_bytes()].concat();
            let body = [9, n, 20].map(u64::to_ne_bytes).concat();
            changes.take(&[head, body].concat());
        }
        assert_eq!([changes.claim(|_| true), changes.claim(|_| true)], [7, 0]);
    }

    #[test]
    fn bounded() {
        let mut changes = CodeChanges::default();
        (0..10_000).for_each(|time_ns| changes.take(&exec(7, time_ns)));
        changes.claim(|_| false);
        assert_eq!(changes.unclaimed.len(), MAX_UNCLAIMED);
        assert_eq!(changes.unclaimed[0].time_ns, 10_000 - MAX_UNCLAIMED as u64);
    }
}
