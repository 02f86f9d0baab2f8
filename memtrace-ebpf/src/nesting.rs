//! Probed functions that a thread is in: what their return needs, and the return addresses they hide.
//!
//! A return probe replaces a return address on the stack by a trampoline, and a stack that is copied meanwhile loses
//! its callers. So the entry saves where the address stood and what it was, and every event of the thread carries
//! these pairs.

use memtrace_common::{Counter, MAX_MENDS, Mend};

use crate::counters::{count, is_on};

/// One probed function that has not returned.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Call {
    pub(crate) mend: Mend,
    /// The function's address.
    pub(crate) ip: u64,
    pub(crate) enter_ns: u64,
    pub(crate) argument: u64,
    /// A `Kind`.
    pub(crate) kind: u64,
}

/// The probed functions that one thread is in, outermost first.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Nesting {
    n: u64,
    calls: [Call; MAX_MENDS],
}

const NO_CALL: Call =
    Call { mend: Mend { slot: 0, return_address: 0 }, ip: 0, enter_ns: 0, argument: 0, kind: 0 };

/// A thread in no probed function.
pub(crate) const EMPTY: Nesting = Nesting { n: 0, calls: [NO_CALL; MAX_MENDS] };

impl Nesting {
    /// Remembers that the thread entered a probed function.
    #[inline(always)]
    pub(crate) fn push(&mut self, call: Call) {
        // A call with the same slot has been left, too.
        self.drop_below(call.mend.slot.wrapping_add(1));
        let n = self.n as usize;
        if n >= MAX_MENDS {
            count(Counter::NESTING_FULL);
            return;
        }
        self.calls[n] = call;
        self.n = n as u64 + 1;
    }

    /// Takes the call whose return address stood at `slot`; one that is not there is counted.
    #[inline(always)]
    pub(crate) fn pop(&mut self, slot: u64) -> Option<&Call> {
        self.drop_below(slot);
        let last = (self.n as usize).wrapping_sub(1);
        if last >= MAX_MENDS || self.calls[last].mend.slot != slot {
            // One that there was no room for has been counted already.
            if last != MAX_MENDS - 1 && is_on() {
                count(Counter::ENTRY_MISSED);
            }
            return None;
        }
        self.n = last as u64;
        Some(&self.calls[last])
    }

    /// Writes the return addresses that are hidden now; returns how many there are.
    #[inline(always)]
    pub(crate) fn mends(&self, into: &mut [Mend; MAX_MENDS]) -> u32 {
        if self.n != 0 {
            for (mend, call) in into.iter_mut().zip(&self.calls) {
                *mend = call.mend;
            }
        }
        self.n as u32
    }

    /// Drops all calls: the thread ends.
    #[inline(always)]
    pub(crate) fn drop_all(&mut self) {
        self.drop_below(u64::MAX);
    }

    /// Drops calls that were left without a return (longjmp, a lost return): the stack has shrunk past their slots.
    #[inline(always)]
    fn drop_below(&mut self, slot: u64) {
        for _ in 0..MAX_MENDS {
            let last = (self.n as usize).wrapping_sub(1);
            if last >= MAX_MENDS || self.calls[last].mend.slot >= slot {
                break;
            }
            self.n = last as u64;
            count(Counter::RETURN_MISSED);
        }
    }
}
