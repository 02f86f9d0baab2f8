//! What the kernel side counts: per kind, and every way to lose something.

use crate::N_KINDS;

/// How many counters the kernel side has.
pub const N_COUNTERS: usize = Counter::FAILED as usize + N_KINDS;

/// An index into the kernel side's counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Counter(pub u32);

macro_rules! losses {
    ($($(#[$doc:meta])* $constant:ident = $number:literal, $name:literal;)*) => {
        impl Counter {
            $($(#[$doc])* pub const $constant: Counter = Counter($number);)*

            /// The ways to lose something, with the name that reports use.
            pub const LOSSES: &'static [(Counter, &'static str)] = &[$((Counter::$constant, $name)),*];
        }
    };
}

losses! {
    /// The ring buffer had no room for an event.
    RING_FULL = 0, "ring_full";
    /// A call was entered while the table of threads was full.
    PENDING_FULL = 1, "pending_full";
    /// A call was entered while the same thread's last one had never been seen to return.
    EXIT_MISSED = 2, "exit_missed";
    /// A call returned that was never seen to be entered, after the thread had been seen entering one.
    ENTRY_MISSED = 3, "entry_missed";
    /// A probed function was left without its return being seen.
    RETURN_MISSED = 4, "return_missed";
    /// More probed functions were nested in one thread than there is room for.
    NESTING_FULL = 5, "nesting_full";
    /// A child could not be followed because the table of traced processes was full.
    TARGETS_FULL = 6, "targets_full";
    /// A block was no sample, though it should have been one: the table of samples was full.
    SAMPLES_FULL = 7, "samples_full";
}

impl Counter {
    /// Stacks with holes, where pages of them could not be read.
    pub const STACK_FAULT: Counter = Counter(12);
    /// Calls that were under way when tracing began.
    pub const UNDER_WAY: Counter = Counter(13);
    /// Not a counter: 1 as long as calls are to be taken note of. User space sets it when everything is attached and
    /// resets it before anything is detached, so that no call is seen by half.
    pub const ON: Counter = Counter(14);
    /// Not a counter: 1 as long as user space is so far behind that blocks are told of without their stacks.
    pub const BEHIND: Counter = Counter(15);
    /// The first of the counters of calls that failed, one a kind.
    pub const FAILED: u32 = 16;
}
