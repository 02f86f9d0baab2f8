//! memtrace's kernel side: pairs calls with their returns, copies the user's registers and stack, counts what it loses.
//!
//! In: tracepoints of memory system calls and of process life, probes on functions of zlib and of
//! allocators, samples of page faults.
//! Out: the ring buffer [`maps::EVENTS`] and the counters [`maps::COUNTERS`]. It keeps no totals and resolves nothing.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod allocators;
mod copy;
mod counters;
mod emit;
mod faults;
mod frees;
mod life;
mod malloc;
mod maps;
mod nesting;
mod opaque;
mod own_stack;
mod registers;
mod sampling;
mod shadow;
mod syscalls;
mod tallies;
mod task;
mod threads;
mod traps;
mod zlib;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// The kernel lends some helpers only to programs under its own licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
