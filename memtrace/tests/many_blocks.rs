//! What ten million live blocks take, in a process of their own: memory at the most, and time.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs,
    io::{self, Write},
};

use memtrace::{
    ledger::{Allocation, Event, Freeing, Ledger, What},
    stacks::StackId,
};

const N_BLOCKS: u64 = 10_000_000;
const N_PAIRS: u64 = 1_000_000;
/// Ring buffer (counted twice), program and stacks take another 120 MB; a trace is to stay far below 600 MB.
const MAX_BYTES: u64 = 240_000_000;

/// Processor time of this thread, in nanoseconds: others may be busy, too.
fn cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is written by the call; the clock exists on every kernel.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// The most that this process had resident.
fn peak_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
}

/// Threads and stacks take turns as in a program that is busy everywhere.
fn event(n: u64, time_ns: u64, what: What) -> Event {
    let (tid, stack) = (100 + n as u32 % 50, StackId(1 + n as u32 % 20_000));
    Event { time_ns, tgid: 100, tid, stack, what }
}

/// Blocks of many sizes, side by side, as allocators lay them.
fn address(n: u64) -> u64 {
    0x5555_0000_0000 + n * 48 + n / 1000 * 4096
}

fn alloc(n: u64, time_ns: u64) -> Event {
    let what = What::Alloc { by: Allocation::Malloc, addr: address(n), size: 24 + n % 100 };
    event(n, time_ns, what)
}

fn free(n: u64, time_ns: u64) -> Event {
    event(n, time_ns, What::Free { addr: address(n), by: Freeing::Free })
}

#[test]
fn ten_million() {
    let mut ledger = Ledger::default();
    let before = peak_bytes();
    let began = cpu_ns();
    (0..N_BLOCKS).for_each(|n| ledger.apply(&alloc(n, n * 1000)));
    let filling = cpu_ns() - began;
    let taken = peak_bytes() - before;
    assert_eq!((ledger.blocks().live, ledger.blocks().not_kept), (N_BLOCKS, 0));

    // Blocks die anywhere while as many are live.
    let began = cpu_ns();
    for n in 0..N_PAIRS {
        let time_ns = (N_BLOCKS + n) * 1000;
        ledger.apply(&free(n * 7_919_317 % N_BLOCKS, time_ns));
        ledger.apply(&alloc(N_BLOCKS + n, time_ns));
    }
    let far = cpu_ns() - began;
    assert_eq!((ledger.blocks().live, ledger.blocks().freed_before), (N_BLOCKS, 0));

    // Most die soon.
    let began = cpu_ns();
    for n in 2 * N_BLOCKS..2 * N_BLOCKS + N_PAIRS {
        ledger.apply(&alloc(n, n * 1000));
        ledger.apply(&free(n, n * 1000));
    }
    let near = cpu_ns() - began;
    assert_eq!(ledger.blocks().live, N_BLOCKS);

    let began = cpu_ns();
    let rows = ledger.stacks_of_blocks();
    let summing = cpu_ns() - began;
    assert_eq!(rows.iter().map(|row| row.blocks.malloc_live.rounded()).sum::<u64>(), N_BLOCKS);

    // Not `println!`, whose output the test harness keeps to itself when the test passes.
    writeln!(
        io::stderr(),
        "{} MB; {} ns an allocation while the table grows, {} ns a pair anywhere, {} ns a pair near; \
         rows in {} ms",
        taken / 1_000_000,
        filling / N_BLOCKS,
        far / N_PAIRS,
        near / N_PAIRS,
        summing / 1_000_000
    )
    .unwrap();
    assert!(taken < MAX_BYTES, "{taken}");
}
