//! What the ledger is told: events whose stack is a number and whose meaning needs no target any more.

use memtrace_common::Kind;
use serde::{Deserialize, Serialize};

use crate::stacks::StackId;

/// Something that happened in a traced process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When it took effect, in nanoseconds of the monotonic clock: obtaining at return, giving back at entry.
    pub time_ns: u64,
    /// The process.
    pub tgid: u32,
    /// The thread.
    pub tid: u32,
    /// Where in the program.
    pub stack: StackId,
    /// What.
    pub what: What,
}

/// A stream of zlib's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum StreamKind {
    /// `java.util.zip.Inflater`.
    Inflater,
    /// `java.util.zip.Deflater`.
    Deflater,
    /// zlib's own `inflateInit2_`, not by way of Java.
    Inflate,
    /// zlib's own `deflateInit2_`, not by way of Java.
    Deflate,
}

/// A function that hands out blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Allocation {
    /// `malloc`.
    Malloc,
    /// `calloc`.
    Calloc,
    /// `realloc`.
    Realloc,
    /// `reallocarray`.
    Reallocarray,
    /// `posix_memalign`.
    PosixMemalign,
    /// `aligned_alloc`.
    AlignedAlloc,
    /// `memalign`.
    Memalign,
    /// `valloc`.
    Valloc,
    /// `pvalloc`.
    Pvalloc,
}

/// How a block was given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Freeing {
    /// `free`.
    Free,
    /// The block moved, or has another size.
    Realloc,
    /// By a size of 0 for `realloc`.
    ReallocToZero,
    /// By a size of 0 for `reallocarray`.
    ReallocarrayToZero,
}

/// What happened. Addresses and lengths are whole pages. The order is that of the trace file: what is new comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// Memory was mapped, in place of what was there.
    Mmap {
        /// First address.
        addr: u64,
        /// Bytes.
        len: u64,
        /// Whether it can be accessed at all; a reservation can't.
        access: bool,
    },
    /// Memory was unmapped.
    Munmap {
        /// First address.
        addr: u64,
        /// Bytes.
        len: u64,
    },
    /// The first half of `mremap`: what was there has left its place, and arrives by [`What::MremapTo`].
    MremapFrom {
        /// First address.
        addr: u64,
        /// Bytes.
        len: u64,
    },
    /// The second half of `mremap`: what left is here now; bytes beyond are new.
    MremapTo {
        /// First address.
        addr: u64,
        /// Bytes.
        len: u64,
    },
    /// The protection was changed.
    Mprotect {
        /// First address.
        addr: u64,
        /// Bytes.
        len: u64,
        /// Whether it can be accessed at all now.
        access: bool,
        /// Whether by `pkey_mprotect`.
        pkey: bool,
    },
    /// The break is here now, moved or not.
    Brk {
        /// The break.
        to: u64,
    },
    /// The kernel was advised; bytes stay mapped.
    Madvise {
        /// First address.
        addr: u64,
        /// Bytes.
        len: u64,
        /// The advice, as the kernel numbers it.
        advice: u32,
    },
    /// The kernel was advised about a process.
    ProcessMadvise {
        /// Bytes advised.
        len: u64,
        /// The advice, as the kernel numbers it.
        advice: u32,
    },
    /// A System V segment was attached.
    Shmat {
        /// First address.
        addr: u64,
        /// Bytes; 0 if they could not be found out.
        len: u64,
    },
    /// A System V segment was detached.
    Shmdt {
        /// First address.
        addr: u64,
    },
    /// A zlib stream was opened.
    StreamInit {
        /// Whose.
        kind: StreamKind,
        /// Its address.
        address: u64,
    },
    /// A zlib stream was ended.
    StreamEnd {
        /// Whose.
        kind: StreamKind,
        /// Its address.
        address: u64,
    },
    /// A thread began.
    ThreadStart {
        /// Its id.
        tid: u32,
    },
    /// A process began.
    Fork {
        /// Its id.
        child: u32,
        /// Whether it is traced.
        followed: bool,
    },
    /// The process has a new image.
    Exec,
    /// A thread ended.
    Exit {
        /// Whether the process ended with it.
        ended: bool,
        /// The exit code as wait(2) has it.
        code: u32,
    },
    /// An allocator handed out a block.
    Alloc {
        /// By which function.
        by: Allocation,
        /// Its address, never 0.
        addr: u64,
        /// Bytes that were asked for.
        size: u64,
    },
    /// A block was given back to its allocator.
    Free {
        /// Its address, never 0.
        addr: u64,
        /// By what: `free`, or a realloc, whose other half is an [`What::Alloc`].
        by: Freeing,
    },
    /// What the thread's blocks add up to since this was last told, where not all are told of one by one: all of them where
    /// samples are, those that are ignored where the small ones are.
    Tally {
        /// Blocks handed out.
        blocks: u64,
        /// Bytes in them.
        bytes: u64,
        /// Blocks given back.
        given_back: u64,
    },
    /// The thread is about to end, by itself and not with its process.
    Leaves,
    /// The thread has made a page resident; one in so many is told of.
    PageFault {
        /// The address that it went to.
        addr: u64,
    },
}

impl What {
    /// The kind that reports count it under, `None` for what is half of another or of process life.
    pub fn kind(&self) -> Option<Kind> {
        Some(match self {
            What::Mmap { .. } => Kind::MMAP,
            What::Munmap { .. } => Kind::MUNMAP,
            What::MremapTo { .. } => Kind::MREMAP,
            What::Mprotect { pkey: false, .. } => Kind::MPROTECT,
            What::Mprotect { pkey: true, .. } => Kind::PKEY_MPROTECT,
            What::Brk { .. } => Kind::BRK,
            What::Madvise { .. } => Kind::MADVISE,
            What::ProcessMadvise { .. } => Kind::PROCESS_MADVISE,
            What::Shmat { .. } => Kind::SHMAT,
            What::Shmdt { .. } => Kind::SHMDT,
            What::StreamInit { kind, .. } => kind.init(),
            What::StreamEnd { kind, .. } => kind.end(),
            What::Alloc { by, .. } => by.kind(),
            What::Free { by: Freeing::Free, .. } => Kind::FREE,
            What::Free { by: Freeing::ReallocToZero, .. } => Kind::REALLOC,
            What::Free { by: Freeing::ReallocarrayToZero, .. } => Kind::REALLOCARRAY,
            What::PageFault { .. } => Kind::PAGE_FAULT,
            What::Free { by: Freeing::Realloc, .. } => return None,
            What::MremapFrom { .. }
            | What::ThreadStart { .. }
            | What::Tally { .. }
            | What::Leaves
            | What::Fork { .. }
            | What::Exec
            | What::Exit { .. } => return None,
        })
    }
}

impl Allocation {
    /// The kind of the call.
    pub fn kind(self) -> Kind {
        match self {
            Allocation::Malloc => Kind::MALLOC,
            Allocation::Calloc => Kind::CALLOC,
            Allocation::Realloc => Kind::REALLOC,
            Allocation::Reallocarray => Kind::REALLOCARRAY,
            Allocation::PosixMemalign => Kind::POSIX_MEMALIGN,
            Allocation::AlignedAlloc => Kind::ALIGNED_ALLOC,
            Allocation::Memalign => Kind::MEMALIGN,
            Allocation::Valloc => Kind::VALLOC,
            Allocation::Pvalloc => Kind::PVALLOC,
        }
    }
}

impl What {
    /// Whether it comes with a stack.
    pub fn has_stack(&self) -> bool {
        self.kind().is_some_and(Kind::has_stack)
    }

    /// The highest address that is meant, `None` for what is not about addresses.
    pub(super) fn last_address(&self) -> Option<u64> {
        Some(match *self {
            What::Mmap { addr, len, .. }
            | What::Munmap { addr, len }
            | What::MremapFrom { addr, len }
            | What::MremapTo { addr, len }
            | What::Mprotect { addr, len, .. }
            | What::Madvise { addr, len, .. }
            | What::Shmat { addr, len } => addr.saturating_add(len),
            What::Brk { to } => to,
            What::PageFault { addr } => addr,
            _ => return None,
        })
    }
}

impl StreamKind {
    /// The kind of the call that opens one.
    pub fn init(self) -> Kind {
        match self {
            StreamKind::Inflater => Kind::INFLATER_INIT,
            StreamKind::Deflater => Kind::DEFLATER_INIT,
            StreamKind::Inflate => Kind::INFLATE_INIT,
            StreamKind::Deflate => Kind::DEFLATE_INIT,
        }
    }

    /// The kind of the call that ends one.
    pub fn end(self) -> Kind {
        match self {
            StreamKind::Inflater => Kind::INFLATER_END,
            StreamKind::Deflater => Kind::DEFLATER_END,
            StreamKind::Inflate => Kind::INFLATE_END,
            StreamKind::Deflate => Kind::DEFLATE_END,
        }
    }

    /// Whether it is zlib's own, not Java's.
    pub fn is_native(self) -> bool {
        matches!(self, StreamKind::Inflate | StreamKind::Deflate)
    }
}
