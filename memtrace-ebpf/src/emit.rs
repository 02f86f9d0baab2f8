//! The one way out: an event with a copy of the stack, or a counted loss.

use core::arch::asm;

use aya_ebpf::helpers::generated::{bpf_probe_read_user, bpf_ringbuf_query};
use memtrace_common::{
    Counter, EventHeader, Kind, MAX_MENDS, MAX_STACK_BYTES, Mend, Regs, STACK_CLASSES,
};

use crate::{
    counters::count,
    maps::{EVENTS, WAKE_AT_BYTES},
    nesting::Nesting,
    task::{self, Ids},
};

const BPF_RB_NO_WAKEUP: u64 = 1;
const BPF_RB_FORCE_WAKEUP: u64 = 2;
const BPF_RB_AVAIL_DATA: u64 = 0;
const PAGE: u64 = 4096;

/// When user space hears of an event.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wake {
    /// When it looks, or when the buffer fills.
    Later,
    /// At once: it must look at the target while the target is still like this.
    Now,
}

#[repr(C)]
struct Record<const N: usize> {
    header: EventHeader,
    stack: [u8; N],
}

/// What happened, as the probes know it; the rest of the header is filled in place, for this stack is 512 bytes.
pub(crate) struct What {
    pub(crate) kind: Kind,
    pub(crate) ids: Ids,
    pub(crate) enter_ns: u64,
    pub(crate) exit_ns: u64,
    pub(crate) args: [u64; 5],
    pub(crate) result: u64,
    pub(crate) regs: Regs,
    /// The return address that the event's own probe hides.
    pub(crate) own_mend: Mend,
}

/// Hands `what` to user space without a stack.
#[inline(always)]
pub(crate) fn emit(what: &What, wake: Wake) {
    send::<0>(what, None, 0, 0, wake);
}

/// Hands `what` and the stack from `what.regs.sp` on to user space. `nesting` is what hides return addresses there.
#[inline(always)]
pub(crate) fn emit_with_stack(what: &What, nesting: Option<&Nesting>, wake: Wake) {
    let fs_base = task::fs_base();
    let used = stack_used(what.regs.sp, fs_base);
    let want = if used == 0 { MAX_STACK_BYTES as u64 } else { used };
    if want <= STACK_CLASSES[1] as u64 {
        send::<{ STACK_CLASSES[1] }>(what, nesting, fs_base, used, wake);
    } else if want <= STACK_CLASSES[2] as u64 {
        send::<{ STACK_CLASSES[2] }>(what, nesting, fs_base, used, wake);
    } else if want <= STACK_CLASSES[3] as u64 {
        send::<{ STACK_CLASSES[3] }>(what, nesting, fs_base, used, wake);
    } else if want <= STACK_CLASSES[4] as u64 {
        send::<{ STACK_CLASSES[4] }>(what, nesting, fs_base, used, wake);
    } else if want <= STACK_CLASSES[5] as u64 {
        send::<{ STACK_CLASSES[5] }>(what, nesting, fs_base, used, wake);
    } else if want <= STACK_CLASSES[6] as u64 {
        send::<{ STACK_CLASSES[6] }>(what, nesting, fs_base, used, wake);
    } else {
        send::<{ STACK_CLASSES[7] }>(what, nesting, fs_base, used, wake);
    }
}

/// The same with a [`STACK_CLASSES`]`[1]` of stack at the most.
#[inline(always)]
pub(crate) fn emit_with_top_of_stack(what: &What, nesting: Option<&Nesting>, wake: Wake) {
    let fs_base = task::fs_base();
    let used = stack_used(what.regs.sp, fs_base);
    send::<{ STACK_CLASSES[1] }>(what, nesting, fs_base, used, wake);
}

/// Bytes of stack above `sp`: up to the thread block of a pthread, up to the first frame of the first thread,
/// 0 where the stack is neither (a signal stack, a coroutine).
#[inline(always)]
fn stack_used(sp: u64, fs_base: u64) -> u64 {
    let to_thread_block = fs_base.wrapping_sub(sp);
    if to_thread_block < 8 << 20 {
        return to_thread_block;
    }
    let to_start = task::start_stack().wrapping_sub(sp);
    if to_start < 1 << 30 { to_start } else { 0 }
}

#[inline(always)]
fn send<const N: usize>(
    what: &What,
    nesting: Option<&Nesting>,
    fs_base: u64,
    used: u64,
    wake: Wake,
) {
    let Some(mut entry) = EVENTS.reserve::<Record<N>>(0) else {
        count(Counter::RING_FULL);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the entry is reserved; every field of the header is written, the stack is bytes.
    let header = unsafe { &mut (*record).header };
    header.enter_ns = what.enter_ns;
    header.exit_ns = what.exit_ns;
    header.args = what.args;
    header.result = what.result;
    header.regs = what.regs;
    header.fs_base = fs_base;
    header.stack_used = used;
    header.tgid = what.ids.tgid;
    header.tid = what.ids.tid;
    header.kind = what.kind.0;
    header.n_mends = mends(what, nesting, &mut header.mends);
    header.has_holes = 0;
    header.stack_bytes = 0;
    if N > 0 {
        // SAFETY: the stack part lies inside the reserved record.
        let stack = unsafe { (&raw mut (*record).stack).cast::<u8>() };
        (header.stack_bytes, header.has_holes) = copy_stack::<N>(stack, what.regs.sp, used);
    }
    entry.submit(wake_flag(what, wake));
}

/// Writes the return addresses that are hidden, the event's own last.
#[inline(always)]
fn mends(what: &What, nesting: Option<&Nesting>, into: &mut [Mend; MAX_MENDS]) -> u32 {
    let n = match nesting {
        Some(nesting) => nesting.mends(into),
        None => 0,
    };
    if what.own_mend.slot == 0 || n >= MAX_MENDS as u32 {
        return n;
    }
    into[n as usize] = what.own_mend;
    n + 1
}

/// Copies the stack from `sp` on, `used` bytes or as much as fits. Tells how many came, and not 0 if there are holes.
#[inline(always)]
fn copy_stack<const N: usize>(stack: *mut u8, sp: u64, used: u64) -> (u32, u32) {
    let want = if used == 0 || used > N as u64 { N as u64 } else { used };
    // SAFETY: `stack` has room for N >= `want` bytes; the helper checks the source.
    if unsafe { bpf_probe_read_user(stack.cast(), want as u32, sp as *const _) } == 0 {
        return (want as u32, 0);
    }
    count(Counter::STACK_FAULT);
    copy_pages::<N>(stack, sp, used)
}

/// Copies page by page. A page that can't be read was never touched (a buffer that is used in part), or is swapped out
/// or without access, with frames in it: it is zeros, it is told, and what lies above it is copied all the same. Where
/// the end of the stack is not known, it is the end.
#[inline(always)]
fn copy_pages<const N: usize>(stack: *mut u8, sp: u64, used: u64) -> (u32, u32) {
    let n = N as u64;
    if n < PAGE {
        return (0, 0);
    }
    let first = PAGE - (sp & (PAGE - 1));
    // SAFETY: `first` is at most a page and N is no less; the helper checks the source.
    let result = unsafe { bpf_probe_read_user(stack.cast(), first as u32, sp as *const _) };
    if result != 0 && used == 0 {
        return (0, 0);
    }
    let mut has_holes = (result != 0) as u32;
    let mut copied = first;
    for _ in 0..n / PAGE {
        copied = opaque(copied);
        if copied > n - PAGE {
            break;
        }
        // SAFETY: a page fits behind `copied` bytes, as was just checked.
        let result = unsafe { copy_part(stack, copied, sp, PAGE) };
        if result != 0 && used == 0 {
            return (copied as u32, 0);
        }
        has_holes |= (result != 0 && copied < used) as u32;
        copied += PAGE;
    }
    // Of the last page what fits, from its beginning on: by halves, for the verifier wants constant sizes.
    let mut size = PAGE / 2;
    while size > 0 {
        copied = opaque(copied);
        if copied <= n - size {
            // SAFETY: `size` bytes fit behind `copied` bytes, as was just checked.
            let result = unsafe { copy_part(stack, copied, sp, size) };
            if result != 0 && used == 0 {
                return (copied as u32, 0);
            }
            // What lies beyond the stack's end may not be there.
            has_holes |= (result != 0 && copied < used) as u32;
            copied += size;
        }
        size /= 2;
    }
    (if used == 0 || used > n { n as u32 } else { used as u32 }, has_holes)
}

/// `value`, of which the compiler knows nothing: what the verifier sees checked is what is used.
#[inline(always)]
fn opaque(mut value: u64) -> u64 {
    // SAFETY: it moves a register to itself.
    unsafe { asm!("{value} = {value}", value = inout(reg) value) };
    value
}

/// Copies `size` bytes from `sp + at` to `stack + at`; not 0 if they can't be read, and then they are zeros.
///
/// # Safety
///
/// `stack` has room for `at + size` bytes.
#[inline(always)]
unsafe fn copy_part(stack: *mut u8, at: u64, sp: u64, size: u64) -> i64 {
    // SAFETY: the caller's; the helper checks the source.
    unsafe {
        bpf_probe_read_user(
            stack.add(opaque(at) as usize).cast(),
            size as u32,
            (sp.wrapping_add(at)) as *const _,
        )
    }
}

#[inline(always)]
fn wake_flag(what: &What, wake: Wake) -> u64 {
    if wake == Wake::Now {
        return BPF_RB_FORCE_WAKEUP;
    }
    // How full the buffer is need not be asked for every event: one in sixteen, by chance.
    if what.exit_ns >> 6 & 15 != 0 {
        return BPF_RB_NO_WAKEUP;
    }
    // SAFETY: the map is a ring buffer.
    let waiting =
        unsafe { bpf_ringbuf_query((&raw const EVENTS).cast_mut().cast(), BPF_RB_AVAIL_DATA) };
    if waiting > WAKE_AT_BYTES.load() { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP }
}
