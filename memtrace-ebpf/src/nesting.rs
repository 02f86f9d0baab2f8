//! Probed functions that a thread is in: what their return needs, and the return addresses they hide.
//!
//! A return probe replaces a return address on the stack by a trampoline, and a stack that is copied meanwhile loses
//! its callers. So the entry saves where the address stood and what it was, and every event of the thread carries
//! these pairs.

use aya_ebpf::{macros::map, maps::HashMap};
use memtrace_common::{Counter, MAX_MENDS, Mend};

use crate::counters::count;

/// One probed function that has not returned.
#[repr(C)]
#[derive(Clone, Copy, Default)]
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
    pub(crate) n: u64,
    pub(crate) calls: [Call; MAX_MENDS],
}

#[map]
static NESTINGS: HashMap<u32, Nesting> = HashMap::with_max_entries(8192, 0);

const EMPTY: Call =
    Call { mend: Mend { slot: 0, return_address: 0 }, ip: 0, enter_ns: 0, argument: 0, kind: 0 };

/// Remembers that thread `tid` entered a probed function.
#[inline(always)]
pub(crate) fn push(tid: u32, call: Call) {
    let Some(nesting) = NESTINGS.get_ptr_mut(tid) else {
        let mut first = Nesting { n: 1, calls: [EMPTY; MAX_MENDS] };
        first.calls[0] = call;
        if NESTINGS.insert(tid, first, 0).is_err() {
            count(Counter::NESTING_FULL);
        }
        return;
    };
    // SAFETY: only the thread itself writes its element, and it is in this program.
    let nesting = unsafe { &mut *nesting };
    drop_left(nesting, call.mend.slot);
    let n = nesting.n as usize;
    if n >= MAX_MENDS {
        count(Counter::NESTING_FULL);
        return;
    }
    nesting.calls[n] = call;
    nesting.n = n as u64 + 1;
}

/// Takes the call of thread `tid` whose return address stood at `slot`.
#[inline(always)]
pub(crate) fn pop(tid: u32, slot: u64) -> Option<&'static Call> {
    let nesting = NESTINGS.get_ptr_mut(tid)?;
    // SAFETY: as in `push`.
    let nesting = unsafe { &mut *nesting };
    drop_left(nesting, slot);
    let last = (nesting.n as usize).wrapping_sub(1);
    if last >= MAX_MENDS || nesting.calls[last].mend.slot != slot {
        return None;
    }
    nesting.n = last as u64;
    Some(&nesting.calls[last])
}

/// Writes the return addresses that are hidden in thread `tid` now, and `own` behind them if it is one.
#[inline(always)]
pub(crate) fn mends(tid: u32, own: Mend, into: &mut [Mend; MAX_MENDS]) -> u32 {
    *into = [Mend { slot: 0, return_address: 0 }; MAX_MENDS];
    let mut n = 0;
    if let Some(nesting) = NESTINGS.get_ptr(tid) {
        // SAFETY: as in `push`.
        let nesting = unsafe { &*nesting };
        for (mend, call) in into.iter_mut().zip(&nesting.calls) {
            *mend = call.mend;
        }
        n = nesting.n;
    }
    if own.slot != 0 && n < MAX_MENDS as u64 {
        into[n as usize] = own;
        n += 1;
    }
    n as u32
}

/// Forgets thread `tid`, which ends.
#[inline(always)]
pub(crate) fn forget(tid: u32) {
    // Most threads never were in a probed function.
    NESTINGS.remove(tid).ok();
}

/// Drops calls that were left without a return (longjmp, a lost return): their slot lies below the new one.
#[inline(always)]
fn drop_left(nesting: &mut Nesting, slot: u64) {
    for _ in 0..MAX_MENDS {
        let last = (nesting.n as usize).wrapping_sub(1);
        if last >= MAX_MENDS || nesting.calls[last].mend.slot >= slot {
            break;
        }
        nesting.n = last as u64;
        count(Counter::RETURN_MISSED);
    }
}
