//! The one way out: an event with a copy of the stack, or a counted loss.

use aya_ebpf::helpers::generated::{bpf_ringbuf_output, bpf_ringbuf_query};
use memtrace_common::{
    Counter, EventHeader, Kind, MAX_MENDS, MAX_STACK_BYTES, Mend, Regs, SHADOW_BYTES,
    STACK_CLASSES, ShortEvent,
};

use crate::{
    copy::copy_stack,
    counters::{count, is_behind, set_behind},
    maps::{EVENTS, WAKE_AT_BYTES},
    opaque::opaque,
    shadow::{self, Compared},
    task::{self, Ids},
    threads::Thread,
};

const BPF_RB_NO_WAKEUP: u64 = 1;
const BPF_RB_FORCE_WAKEUP: u64 = 2;
const BPF_RB_AVAIL_DATA: u64 = 0;

/// How full the ring buffer is when user space is behind, and when it has caught up, in sixteenths: it is woken at one.
const BEHIND_AT: u64 = 12;
const CAUGHT_UP_AT: u64 = 8;

/// A header, and all of a stack that has a shadow.
const MAX_CHANGE_BYTES: u64 = (size_of::<EventHeader>() + SHADOW_BYTES) as u64;

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

/// Hands `what` to user space without a stack, or counts it as lost.
#[inline(always)]
pub(crate) fn emit(what: &What, wake: Wake) {
    if !try_emit(what, wake) {
        count(Counter::RING_FULL);
    }
}

/// Hands `what` to user space without a stack; tells whether there was room.
#[inline(always)]
pub(crate) fn try_emit(what: &What, wake: Wake) -> bool {
    let Some(mut entry) = EVENTS.reserve::<ShortEvent>(0) else { return false };
    let [a, b, c, ..] = what.args;
    entry.write(ShortEvent {
        enter_ns: what.enter_ns,
        exit_ns: what.exit_ns,
        args: [a, b, c],
        result: what.result,
        tgid: what.ids.tgid,
        tid: what.ids.tid,
        kind: what.kind.0,
        reserved: 0,
    });
    entry.submit(wake_flag(what, wake));
    true
}

/// Hands `what` and the stack of `thread` from `what.regs.sp` on to user space; of a stack that user space knows in part
/// only the rest.
#[inline(always)]
pub(crate) fn emit_with_stack(what: &What, thread: Option<&mut Thread>, wake: Wake) {
    let Some(thread) = thread else {
        let fs_base = task::fs_base();
        return emit_whole(what, None, fs_base, stack_used(what.regs.sp, fs_base), wake);
    };
    let fs_base = thread.fs_base();
    let used = stack_used(what.regs.sp, fs_base);
    let Some(compared) = shadow::compare(thread, what.regs.sp, used) else {
        // Perhaps the end of the stack is not where it was found once.
        thread.forget_stack();
        return emit_whole(what, Some(thread), fs_base, used, wake);
    };
    let event = Event { what, thread: Some(thread), fs_base, used };
    if send_change(&event, &compared, wake) {
        compared.commit();
    }
}

/// Hands over all of the stack, as much as fits.
#[inline(always)]
fn emit_whole(what: &What, thread: Option<&Thread>, fs_base: u64, used: u64, wake: Wake) {
    let event = Event { what, thread, fs_base, used };
    let want = if used == 0 { MAX_STACK_BYTES as u64 } else { used };
    if want <= STACK_CLASSES[0] as u64 {
        send_whole::<{ STACK_CLASSES[0] }>(&event, wake);
    } else if want <= STACK_CLASSES[1] as u64 {
        send_whole::<{ STACK_CLASSES[1] }>(&event, wake);
    } else if want <= STACK_CLASSES[2] as u64 {
        send_whole::<{ STACK_CLASSES[2] }>(&event, wake);
    } else {
        send_whole::<{ STACK_CLASSES[3] }>(&event, wake);
    }
}

/// Bytes of stack above `sp`: up to the thread block of a pthread, up to the first frame of the first thread,
/// 0 where the stack is neither (a signal stack, a coroutine). At an image's first instruction nothing is used yet: the
/// word that the kernel has put there, the number of arguments, says that it is known.
#[inline(always)]
fn stack_used(sp: u64, fs_base: u64) -> u64 {
    let to_thread_block = fs_base.wrapping_sub(sp);
    if to_thread_block < 8 << 20 {
        return to_thread_block;
    }
    let to_start = task::start_stack().wrapping_sub(sp);
    if to_start < 1 << 30 { to_start.max(8) } else { 0 }
}

/// An event, and what was found out about its stack.
struct Event<'a> {
    what: &'a What,
    thread: Option<&'a Thread>,
    fs_base: u64,
    used: u64,
}

#[inline(always)]
fn send_whole<const N: usize>(event: &Event<'_>, wake: Wake) {
    send::<N>(event, wake, |header, stack| {
        copy_stack::<N>(header, stack, event.what.regs.sp, event.used);
    });
}

/// Hands over what has changed of the stack; tells whether there was room.
#[inline(always)]
fn send_change(event: &Event<'_>, compared: &Compared, wake: Wake) -> bool {
    // SAFETY: it is the shadow's, which only this thread uses.
    let header = unsafe { &mut *compared.header };
    fill(header, event);
    header.stack_bytes = compared.n_changed as u32;
    header.shadow = compared.number;
    header.version = compared.version;
    let flags = wake_flag(event.what, wake);
    // Checked once more right before its use, of which it is the size: from further away, and in other registers, the
    // verifier of Linux 6.1 does not know any more that it was.
    let n = opaque(size_of::<EventHeader>() as u64 + compared.n_changed);
    if n > MAX_CHANGE_BYTES {
        return false;
    }
    // SAFETY: the stack lies behind the header, and there is as much of it.
    let result = unsafe {
        let events = (&raw const EVENTS).cast_mut().cast();
        bpf_ringbuf_output(events, compared.header.cast(), n, flags)
    };
    if result != 0 {
        count(Counter::RING_FULL);
    }
    result == 0
}

/// Hands over an event whose `N` bytes of stack, and what the header says of them, `copy` writes.
#[inline(always)]
fn send<const N: usize>(
    event: &Event<'_>,
    wake: Wake,
    copy: impl FnOnce(&mut EventHeader, *mut u8),
) {
    let Some(mut entry) = EVENTS.reserve::<Record<N>>(0) else {
        count(Counter::RING_FULL);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the entry is reserved; the header is written, the stack is bytes.
    let header = unsafe { &mut (*record).header };
    fill(header, event);
    // SAFETY: the stack part lies inside the reserved record.
    copy(header, unsafe { (&raw mut (*record).stack).cast::<u8>() });
    entry.submit(wake_flag(event.what, wake));
}

/// Writes the header of an event without a stack, all of it but the mends that there are not.
#[inline(always)]
fn fill(header: &mut EventHeader, event: &Event<'_>) {
    let what = event.what;
    header.enter_ns = what.enter_ns;
    header.exit_ns = what.exit_ns;
    header.args = what.args;
    header.result = what.result;
    header.regs = what.regs;
    header.fs_base = event.fs_base;
    header.stack_used = event.used;
    header.tgid = what.ids.tgid;
    header.tid = what.ids.tid;
    header.kind = what.kind.0;
    header.n_mends = mends(what, event.thread, &mut header.mends);
    header.has_holes = 0;
    header.stack_bytes = 0;
    header.shadow = 0;
    header.version = 0;
}

/// Writes the return addresses that are hidden, the event's own last.
#[inline(always)]
fn mends(what: &What, thread: Option<&Thread>, into: &mut [Mend; MAX_MENDS]) -> u32 {
    let n = match thread {
        Some(thread) => thread.mends(into),
        None => 0,
    };
    let n = add(what.own_mend, n, into);
    // The last, and never of the place where the event was: it may be of a call that has returned.
    match thread {
        Some(thread) if thread.unwanted.slot > what.regs.sp => add(thread.unwanted, n, into),
        _ => n,
    }
}

#[inline(always)]
fn add(mend: Mend, n: u32, into: &mut [Mend; MAX_MENDS]) -> u32 {
    if mend.slot == 0 || n >= MAX_MENDS as u32 {
        return n;
    }
    into[n as usize] = mend;
    n + 1
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
    let wake_at = WAKE_AT_BYTES.load();
    if waiting > wake_at * BEHIND_AT {
        set_behind(true);
    } else if waiting < wake_at * CAUGHT_UP_AT && is_behind() {
        set_behind(false);
    }
    if waiting > wake_at { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP }
}
