//! A stack, copied as it is.

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use memtrace_common::{Counter, EventHeader};

use crate::{counters::count, opaque::opaque};

/// No block of this size lies in two pages if it begins at a multiple of its size.
const BLOCK: u64 = 1024;

/// Copies the stack from `sp` on, `used` bytes or as much as fits in `N`, and tells the header of it.
#[inline(always)]
pub(crate) fn copy_stack<const N: usize>(
    header: &mut EventHeader,
    stack: *mut u8,
    sp: u64,
    used: u64,
) {
    let want = if used == 0 || used > N as u64 { N as u64 } else { used };
    // SAFETY: `stack` has room for N >= `want` bytes; the helper checks the source.
    if unsafe { bpf_probe_read_user(stack.cast(), want as u32, sp as *const _) } == 0 {
        header.stack_bytes = want as u32;
        return;
    }
    count(Counter::STACK_FAULT);
    // By way of memory, as in `shadow`.
    // SAFETY: they are references.
    let want = unsafe {
        (&raw mut header.stack_bytes).write_volatile(want as u32);
        u64::from((&raw const header.stack_bytes).read_volatile())
    };
    copy_blocks::<N>(header, stack, sp, want, used == 0);
}

/// Copies block by block. One that can't be read was never touched (a buffer that is used in part), or is swapped out or
/// without access, with frames in it: it is zeros, it is told, and what lies above it is copied all the same. Where the
/// end of the stack is not known, it is the end.
#[inline(always)]
fn copy_blocks<const N: usize>(
    header: &mut EventHeader,
    stack: *mut u8,
    sp: u64,
    want: u64,
    ends_unknown: bool,
) {
    let mut copied = 0;
    let mut size = BLOCK - (sp & (BLOCK - 1));
    for _ in 0..N as u64 / BLOCK {
        copied = opaque(copied);
        size = opaque(size);
        if copied >= want || copied > N as u64 - BLOCK || size > BLOCK {
            break;
        }
        // SAFETY: a block fits behind `copied` bytes, as was just checked; the helper checks the source.
        let result = unsafe {
            let from = sp.wrapping_add(copied) as *const _;
            bpf_probe_read_user(stack.add(copied as usize).cast(), size as u32, from)
        };
        if result != 0 {
            if ends_unknown {
                header.stack_bytes = copied as u32;
                return;
            }
            header.has_holes = 1;
        }
        copied += size;
        size = BLOCK;
    }
    if copied < want {
        header.stack_bytes = copied as u32;
    }
}
