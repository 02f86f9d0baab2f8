//! What is remembered of each traced thread: the system call and the probed functions that it is in.

use core::mem::offset_of;

use aya_ebpf::{macros::map, maps::HashMap};
use memtrace_common::{Counter, MAX_MENDS, Mend, THREAD_BYTES, Tally};

use crate::{
    counters::{count, is_on},
    frees::{LastFree, NO_FREE},
    malloc::{NO_REQUEST, Request},
    maps::target,
    nesting::{self, Nesting},
    shadow, task,
};

/// One thread. Only the thread itself writes it, in programs that run on its behalf.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Thread {
    /// What of its blocks has not been told; user space reads it at the end.
    pub(crate) tally: Tally,
    /// Bytes until its next sample of a block, 0 if that was not drawn yet.
    pub(crate) until_sample: u64,
    /// When its system call was entered.
    pub(crate) enter_ns: u64,
    /// The `Kind` of the system call that is under way, 0 if none is.
    pub(crate) kind: u64,
    /// One more than the number of its shadow, 0 if it has none.
    pub(crate) shadow: u64,
    /// Its fs base when it was first asked for, 0 before that.
    fs_base: u64,
    pub(crate) nesting: Nesting,
    /// The function of an allocator that it is in.
    pub(crate) request: Request,
    /// The return address of the last of these functions whose return is of no interest. It may be hidden all the same: the
    /// kernel traps it where a session of another process is on the same file.
    pub(crate) unwanted: Mend,
    /// What it gave back last.
    pub(crate) last_free: LastFree,
}

#[map]
static THREADS: HashMap<u32, Thread> = HashMap::with_max_entries(32768, 0);

const _: () = assert!(size_of::<Thread>() == THREAD_BYTES && offset_of!(Thread, tally) == 0);

/// In memory of its own: the stack of a program has no room for it.
static NEW: Thread = Thread {
    tally: Tally { blocks: 0, bytes: 0, given_back: 0, tgid: 0 },
    until_sample: 0,
    enter_ns: 0,
    kind: 0,
    shadow: 0,
    fs_base: 0,
    nesting: nesting::EMPTY,
    request: NO_REQUEST,
    unwanted: Mend { slot: 0, return_address: 0 },
    last_free: NO_FREE,
};

impl Thread {
    /// The current thread's fs base: its stack ends there, whatever the thread makes of the register later.
    #[inline(always)]
    pub(crate) fn fs_base(&mut self) -> u64 {
        if self.fs_base == 0 {
            self.fs_base = task::fs_base();
        }
        self.fs_base
    }

    /// The thread has a new image, and with it another stack.
    #[inline(always)]
    pub(crate) fn forget_stack(&mut self) {
        self.fs_base = 0;
    }

    /// Writes the return addresses that are hidden now; returns how many there are.
    #[inline(always)]
    pub(crate) fn mends(&self, into: &mut [Mend; MAX_MENDS]) -> u32 {
        let n = self.nesting.mends(into);
        if !self.request.is_under_way() || n >= MAX_MENDS as u32 {
            return n;
        }
        into[n as usize] = self.request.mend;
        n + 1
    }
}

/// Whether what a thread of process `tgid` does is to be taken note of. Only threads of traced processes are `known`, and
/// after their first call all of these: one look-up does for both.
#[inline(always)]
pub(crate) fn is_wanted(known: Option<&Thread>, tgid: u32) -> bool {
    (known.is_some() || target(tgid).is_some()) && is_on()
}

/// What is remembered of thread `tid`.
#[inline(always)]
pub(crate) fn get(tid: u32) -> Option<&'static mut Thread> {
    let thread = THREADS.get_ptr_mut(tid)?;
    // SAFETY: the table's memory lives as long as the program, and nobody else uses the element, see `Thread`.
    Some(unsafe { &mut *thread })
}

/// The same, from now on if there was nothing yet; `None` where the table is full.
#[inline(always)]
pub(crate) fn get_or_try_add(tid: u32) -> Option<&'static mut Thread> {
    if let Some(thread) = get(tid) {
        return Some(thread);
    }
    let new: &Thread = &NEW;
    THREADS.insert(tid, new, 0).ok()?;
    get(tid)
}

/// The same for a call that is lost where the table is full, which is counted.
#[inline(always)]
pub(crate) fn get_or_add(tid: u32) -> Option<&'static mut Thread> {
    let thread = get_or_try_add(tid);
    if thread.is_none() {
        count(Counter::PENDING_FULL);
    }
    thread
}

/// Forgets thread `tid`, which ends. What it is in will not return, which is counted.
#[inline(always)]
pub(crate) fn forget(tid: u32) {
    // Many threads never made a call that is traced.
    let Some(thread) = get(tid) else { return };
    thread.nesting.drop_all();
    shadow::release(thread);
    THREADS.remove(tid).ok();
}
