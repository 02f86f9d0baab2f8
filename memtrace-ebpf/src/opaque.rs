//! A value that the compiler knows nothing of.

use core::arch::asm;

/// `value`, of which the compiler knows nothing: what the verifier sees checked is what is used.
#[inline(always)]
pub(crate) fn opaque(mut value: u64) -> u64 {
    // SAFETY: it moves a register to itself.
    unsafe { asm!("{value} = {value}", value = inout(reg) value) };
    value
}
