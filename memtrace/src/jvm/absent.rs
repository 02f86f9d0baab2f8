//! Instructions where no code was found, and for which events that is certain.
//!
//! A stack that went wrong leads to the same instructions again and again, and so do words of a stack that only look
//! like return addresses. To search the code cache for one takes some ten reads of the target's memory.

use std::ops::RangeInclusive;

use rustc_hash::FxHashMap;

/// Instructions that are remembered; beyond, they are searched for again.
const MAX_ABSENT: usize = 20_000;

/// Where no code was found since the journal has last changed.
#[derive(Debug, Default)]
pub(super) struct Absent(FxHashMap<u64, RangeInclusive<u64>>);

impl Absent {
    /// Whether there was no code at `pc` when an event of `time_ns` happened.
    pub(super) fn holds(&self, pc: u64, time_ns: u64) -> bool {
        self.0.get(&pc).is_some_and(|times| times.contains(&time_ns))
    }

    /// For an event of `time_ns` there was none at `pc`, neither in the journal nor at `looked_ns` in the code cache.
    ///
    /// Later events up to the look find none either: what the journal knows to be gone only gets less with time. For an
    /// event after the look there may be code that came since.
    pub(super) fn add(&mut self, pc: u64, time_ns: u64, looked_ns: u64) {
        if self.0.len() >= MAX_ABSENT {
            self.0.clear();
        }
        // The event's own time is over, too, when it is looked at.
        let (mut first, mut last) = (time_ns, looked_ns.max(time_ns));
        if let Some(known) = self.0.get(&pc) {
            (first, last) = (first.min(*known.start()), last.max(*known.end()));
        }
        self.0.insert(pc, first..=last);
    }

    /// The journal has changed: nothing is certain any more.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A look is good for events between the one that asked and the look, at that instruction.
    #[test]
    fn times() {
        let mut absent = Absent::default();
        absent.add(0x10, 100, 200);
        absent.add(0x20, 100, 50);
        // (instruction, time, whether it is certain)
        let cases = [
            (0x10, 99, false),
            (0x10, 100, true),
            (0x10, 200, true),
            (0x10, 201, false),
            (0x20, 100, true),
            (0x20, 101, false),
            (0x20, 99, false),
            (0x30, 100, false),
        ];
        for (pc, time_ns, is_certain) in cases {
            assert_eq!(absent.holds(pc, time_ns), is_certain, "{pc:#x} {time_ns}");
        }
        absent.add(0x10, 300, 400);
        assert!(absent.holds(0x10, 250) && absent.holds(0x10, 400) && !absent.holds(0x10, 401));
        absent.clear();
        assert!(!absent.holds(0x10, 150));
    }

    /// It does not grow without end.
    #[test]
    fn bound() {
        let mut absent = Absent::default();
        for pc in 0..3 * MAX_ABSENT as u64 {
            absent.add(pc, 1, 2);
            assert!(absent.holds(pc, 1) && absent.0.len() <= MAX_ABSENT);
        }
    }
}
