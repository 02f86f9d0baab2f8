//! The stacks of Java threads, by what the VM has noted of them.

use std::ops::Range;

use super::{super::threads::ThreadsLayout, fields::Fields};

/// More than any stack (`-Xss` is at most 1 GiB, share/runtime/os.cpp, JDK 17).
const MAX_STACK_BYTES: u64 = 1 << 30;

/// From each stack's end to where its thread began.
pub(super) fn ranges(fields: Fields<'_>, layout: &ThreadsLayout) -> Option<Vec<Range<u64>>> {
    let threads = layout.addresses(fields.memory).ok()?;
    let base = ["JavaThread::_stack_base", "Thread::_stack_base"];
    let size = ["JavaThread::_stack_size", "Thread::_stack_size"];
    base.iter().find(|name| fields.structs.offset(name).is_some())?;
    let stack = |thread: u64| {
        let base = fields.word(thread, &base)?;
        let size = fields.word(thread, &size).filter(|&size| size <= MAX_STACK_BYTES)?;
        Some(base.checked_sub(size)?..base)
    };
    Some(threads.into_iter().filter_map(stack).collect())
}
