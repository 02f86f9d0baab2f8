//! What user space has of each thread's stack, so that of the next one only what has changed since is sent.
//!
//! A thread has two shadows that take turns: the stack is copied into the one and compared with the other, from the
//! thread's first frame on, up to the first difference. No cheaper test is sound. The turn ends only when user space is
//! certain to get the change: what is lost on the way can't make a later stack wrong.

use core::{arch::asm, mem::offset_of};

use aya_ebpf::{
    helpers::generated::bpf_probe_read_user,
    macros::map,
    maps::{Array, Queue},
};
use memtrace_common::{EventHeader, N_SHADOWS, SHADOW_BYTES, SHADOW_STEP_BYTES};

use crate::{opaque::opaque, threads::Thread};

const STEP: u64 = SHADOW_STEP_BYTES as u64;
/// Offsets into a stack, whole words.
const OFFSETS: u64 = SHADOW_BYTES as u64 - 8;
/// Room for a stack. The verifier sees a step compared at any offset, the last one included.
const ROOM: usize = SHADOW_BYTES + SHADOW_STEP_BYTES;

/// A thread's two shadows.
#[repr(C)]
pub(crate) struct Shadow {
    /// Which of the two is what user space has.
    turn: u64,
    /// Bytes of stack in that one, 0 if user space has nothing.
    used: u64,
    /// How often the turn has changed.
    version: u64,
    /// Bytes of stack in the other one.
    new_used: u64,
    /// How many of these have to be sent.
    n_changed: u64,
    pair: [Sendable; 2],
}

/// A stack, behind room for the header that it is sent with: both go in one piece.
#[repr(C)]
struct Sendable {
    header: EventHeader,
    stack: [u8; ROOM],
}

#[map]
static SHADOWS: Array<Shadow> = Array::with_max_entries(N_SHADOWS as u32, 0);

/// Numbers of the shadows that no thread has; user space fills it.
#[map]
static FREE_SHADOWS: Queue<u32> = Queue::with_max_entries(N_SHADOWS as u32, 0);

/// A stack beside the one that user space has.
pub(crate) struct Compared {
    shadow: *mut Shadow,
    /// One more than the number of the shadow.
    pub(crate) number: u32,
    /// Room for a header, and behind it the whole stack.
    pub(crate) header: *mut EventHeader,
    /// How many bytes of the stack have to be sent, [`SHADOW_BYTES`] at the most.
    pub(crate) n_changed: u64,
    /// The version that it makes.
    pub(crate) version: u32,
}

/// Copies the `used` bytes of stack from `sp` on, and compares them with the thread's last. `None` where there is no
/// shadow for the thread, where the stack does not fit in, or can't be read.
#[inline(always)]
pub(crate) fn compare(thread: &mut Thread, sp: u64, used: u64) -> Option<Compared> {
    let shadow = shadow_of(thread)?;
    // Sizes go by way of memory: the verifier would follow each way to get at one through all that comes.
    // SAFETY: the map's elements live as long as the program, and only the thread itself uses this one.
    let (old_used, turn, version, used) = unsafe {
        (&raw mut (*shadow).new_used).write_volatile(used);
        let used = (&raw const (*shadow).new_used).read_volatile();
        ((*shadow).used, (*shadow).turn & 1, (*shadow).version as u32, used)
    };
    if used == 0 || used > SHADOW_BYTES as u64 || used & 7 != 0 {
        return None;
    }
    // SAFETY: both lie in the element.
    let (header, old, new) = unsafe {
        let pair = shadow.cast::<u8>().add(offset_of!(Shadow, pair));
        let old = pair.add(turn as usize * size_of::<Sendable>());
        let new = pair.add((turn as usize ^ 1) * size_of::<Sendable>());
        let stack = offset_of!(Sendable, stack);
        (new.cast::<EventHeader>(), old.add(stack), new.add(stack))
    };
    // SAFETY: `used` is no more than the room; the helper checks the source.
    if unsafe { bpf_probe_read_user(new.cast(), used as u32, sp as *const _) } != 0 {
        return None;
    }
    // SAFETY: as above.
    let n_changed = unsafe {
        let n_changed = used - same_bytes(new, used, old, old_used);
        (&raw mut (*shadow).n_changed).write_volatile(n_changed);
        (&raw const (*shadow).n_changed).read_volatile()
    };
    let number = thread.shadow as u32;
    let n_changed = if n_changed > SHADOW_BYTES as u64 { SHADOW_BYTES as u64 } else { n_changed };
    Some(Compared { shadow, number, header, n_changed, version: version.wrapping_add(1) })
}

impl Compared {
    /// The stack is on its way to user space.
    #[inline(always)]
    pub(crate) fn commit(&self) {
        // SAFETY: as in `compare`.
        unsafe {
            (*self.shadow).turn ^= 1;
            (*self.shadow).used = (*self.shadow).new_used;
            (*self.shadow).version += 1;
        }
    }
}

/// Gives the shadow of `thread`, which ends, to whoever needs one.
#[inline(always)]
pub(crate) fn release(thread: &mut Thread) {
    if thread.shadow != 0 {
        FREE_SHADOWS.push(thread.shadow as u32 - 1, 0).ok();
        thread.shadow = 0;
    }
}

/// The thread's shadow, from now on if it had none.
#[inline(always)]
fn shadow_of(thread: &mut Thread) -> Option<*mut Shadow> {
    if thread.shadow == 0 {
        let number = FREE_SHADOWS.pop().ok()??;
        let shadow = SHADOWS.get_ptr_mut(number)?;
        // What the thread before left is not this one's.
        // SAFETY: as in `compare`; nobody else has this number.
        unsafe { (&raw mut (*shadow).used).write_volatile(0) };
        thread.shadow = u64::from(number) + 1;
    }
    // SAFETY: it is a reference.
    let number = unsafe { (&raw const thread.shadow).read_volatile() };
    SHADOWS.get_ptr_mut(number as u32 - 1)
}

/// How many bytes at the ends of both stacks are the same, in whole steps.
#[inline(always)]
fn same_bytes(new: *const u8, new_used: u64, old: *const u8, old_used: u64) -> u64 {
    let shorter = if new_used < old_used { new_used } else { old_used };
    let mut same = 0;
    while same < SHADOW_BYTES as u64 {
        let reached = same + STEP;
        if reached > shorter {
            break;
        }
        // SAFETY: masked, an offset and a step fit in the room.
        let is_same = unsafe {
            is_same(new.add(offset(new_used - reached)), old.add(offset(old_used - reached)))
        };
        if !is_same {
            break;
        }
        same = reached;
    }
    same
}

/// `offset`, which is one already, so that the verifier knows.
#[inline(always)]
fn offset(offset: u64) -> usize {
    (opaque(offset) & OFFSETS) as usize
}

/// Whether two steps are the same.
///
/// # Safety
///
/// Both have [`SHADOW_STEP_BYTES`].
#[inline(always)]
unsafe fn is_same(new: *const u8, old: *const u8) -> bool {
    // Written out: the compiler would make a loop of it, whose own work would be most of the work, or leave at the first
    // difference, by as many ways as there are words, each of which the verifier would follow.
    macro_rules! differences {
        ($($offset:literal)*) => {
            concat!($(
                "{a} = *(u64 *)({new} + ", $offset, ")\n",
                "{b} = *(u64 *)({old} + ", $offset, ")\n",
                "{a} ^= {b}\n",
                "{all} |= {a}\n",
            )*)
        };
    }
    let mut all = 0_u64;
    // SAFETY: it reads the steps, which the caller says are there, and changes registers only.
    unsafe {
        asm!(
            differences!(
                0 8 16 24 32 40 48 56 64 72 80 88 96 104 112 120
                128 136 144 152 160 168 176 184 192 200 208 216 224 232 240 248
                256 264 272 280 288 296 304 312 320 328 336 344 352 360 368 376
                384 392 400 408 416 424 432 440 448 456 464 472 480 488 496 504
            ),
            new = in(reg) new,
            old = in(reg) old,
            all = inout(reg) all,
            a = out(reg) _,
            b = out(reg) _,
        );
    };
    all == 0
}
const _: () = assert!(SHADOW_STEP_BYTES == 504 + 8);
