//! Types that the kernel side and the user side share.
//!
//! One record of the ring buffer is an [`EventHeader`] followed by `stack_bytes` bytes of the user stack,
//! which begin at `regs.sp`. Kinds, counters and sizes are plain numbers: an unknown value decodes, is counted
//! and passed over; it can't be undefined behavior.
#![no_std]

mod counters;
mod kinds;
mod layout;

pub use counters::{Counter, N_COUNTERS};
pub use kinds::{Kind, N_KINDS};
pub use layout::{
    COOKIE_LEAF, Comm, EventHeader, KernelOffsets, MAX_MENDS, MAX_STACK_BYTES, Mend, N_SHADOWS,
    Regs, SHADOW_BYTES, SHADOW_STEP_BYTES, STACK_CLASSES, ShortEvent, THREAD_BYTES, Tally,
    TargetFlags, ThreadRegisters,
};
