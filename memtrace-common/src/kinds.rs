//! What can happen, as numbers.

/// One past the highest [`Kind`].
pub const N_KINDS: usize = 48;

/// What an event is about. The names are the kernel's (system calls, tracepoints) and the JDK's (JNI functions).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Kind(pub u32);

macro_rules! kinds {
    ($($(#[$doc:meta])* $constant:ident = $number:literal, $name:literal;)*) => {
        impl Kind {
            $($(#[$doc])* pub const $constant: Kind = Kind($number);)*

            /// Every kind there is.
            pub const ALL: &'static [Kind] = &[$(Kind::$constant),*];

            /// The name as it stands in reports, `None` for a number that is no kind.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some($name),)*
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    /// mmap(addr, length, prot, flags, fd) = address.
    MMAP = 1, "mmap";
    /// munmap(addr, length).
    MUNMAP = 2, "munmap";
    /// mremap(old address, old size, new size, flags, new address) = address.
    MREMAP = 3, "mremap";
    /// mprotect(addr, length, prot).
    MPROTECT = 4, "mprotect";
    /// pkey_mprotect(addr, length, prot, pkey).
    PKEY_MPROTECT = 5, "pkey_mprotect";
    /// brk(addr) = the break after the call; a call that fails or only asks returns the old one.
    BRK = 6, "brk";
    /// madvise(addr, length, advice).
    MADVISE = 7, "madvise";
    /// process_madvise(pidfd, iovec, vlen, advice, flags) = bytes advised.
    PROCESS_MADVISE = 8, "process_madvise";
    /// shmat(shmid, addr, flags) = address.
    SHMAT = 9, "shmat";
    /// shmdt(addr).
    SHMDT = 10, "shmdt";

    /// `Java_java_util_zip_Inflater_init`: args\[0\] = JNIEnv, 0 where its call of zlib is
    /// probed instead of itself; result = address of the z_stream.
    INFLATER_INIT = 16, "inflater_init";
    /// `Java_java_util_zip_Inflater_end`: args\[0\] = address of the z_stream.
    INFLATER_END = 17, "inflater_end";
    /// `Java_java_util_zip_Deflater_init`, as [`Kind::INFLATER_INIT`].
    DEFLATER_INIT = 18, "deflater_init";
    /// `Java_java_util_zip_Deflater_end`, as [`Kind::INFLATER_END`].
    DEFLATER_END = 19, "deflater_end";
    /// zlib's `inflateInit2_(strm, …)`: args\[0\] = strm, result = status (0 is success).
    INFLATE_INIT = 20, "inflate_init";
    /// zlib's `inflateEnd(strm)`.
    INFLATE_END = 21, "inflate_end";
    /// zlib's `deflateInit2_(strm, …)`.
    DEFLATE_INIT = 22, "deflate_init";
    /// zlib's `deflateEnd(strm)`.
    DEFLATE_END = 23, "deflate_end";

    /// A thread began: `tgid`, `tid` are the parent's, args\[0\] the new thread's id; the comm is inherited.
    THREAD_START = 24, "thread_start";
    /// A process began: args\[0\] = its id, args\[1\] = 1 if it is traced from now on.
    FORK = 25, "fork";
    /// The process has a new image; args\[0\] = the thread id that called exec.
    EXEC = 26, "exec";
    /// A thread ended: args\[0\] = 1 if the process ended with it, args\[1\] = the exit code as wait(2) has it, args\[2\] = 1 if
    /// all threads of the process are to end.
    EXIT = 27, "exit";
    /// A thread has a new comm (16 bytes in args\[0\] and args\[1\]); args\[2\] = the thread that was renamed.
    RENAME = 28, "rename";

    /// A page fault that was counted, one in so many: args\[0\] = the address.
    PAGE_FAULT = 29, "page_fault";

    /// malloc(size) = block. The C library's documentation calls what an allocator hands out a block; so do we.
    MALLOC = 32, "malloc";
    /// calloc(n, size) = block.
    CALLOC = 33, "calloc";
    /// realloc(block, size) = block.
    REALLOC = 34, "realloc";
    /// reallocarray(block, n, size) = block.
    REALLOCARRAY = 35, "reallocarray";
    /// posix_memalign(place, alignment, size); result = the block, not the status.
    POSIX_MEMALIGN = 36, "posix_memalign";
    /// aligned_alloc(alignment, size) = block.
    ALIGNED_ALLOC = 37, "aligned_alloc";
    /// memalign(alignment, size) = block.
    MEMALIGN = 38, "memalign";
    /// valloc(size) = block.
    VALLOC = 39, "valloc";
    /// pvalloc(size) = block; the size is rounded up to whole pages.
    PVALLOC = 40, "pvalloc";
    /// free(block).
    FREE = 42, "free";
    /// Blocks that a thread got and gave back since this was last told of it, where only samples are told of one by one:
    /// args = blocks got, their bytes, blocks given back; `tid` is the thread.
    TALLY = 44, "tally";
    /// A realloc takes a block that was a sample: args\[0\] = block. The new one is told of if it is a sample, too.
    REALLOC_FROM = 45, "realloc_from";
}

impl Kind {
    /// The kind of a traced system call of x86-64, `None` for any other call.
    #[inline(always)]
    pub const fn of_syscall(nr: i64) -> Option<Kind> {
        Some(match nr {
            9 => Kind::MMAP,
            10 => Kind::MPROTECT,
            11 => Kind::MUNMAP,
            12 => Kind::BRK,
            25 => Kind::MREMAP,
            28 => Kind::MADVISE,
            30 => Kind::SHMAT,
            67 => Kind::SHMDT,
            329 => Kind::PKEY_MPROTECT,
            440 => Kind::PROCESS_MADVISE,
            _ => return None,
        })
    }

    /// Whether it is a call that the program made, not something in its life.
    pub const fn is_call(self) -> bool {
        self.0 < Kind::THREAD_START.0 || self.is_malloc()
    }

    /// Whether it is a call of an allocator.
    pub const fn is_malloc(self) -> bool {
        self.0 >= Kind::MALLOC.0 && self.0 <= Kind::FREE.0
    }

    /// Whether the event carries a stack. The end of a stream or block does not: who ended it is a matter of threads, and
    /// there are as many ends as there are beginnings.
    pub const fn has_stack(self) -> bool {
        let is_end = matches!(
            self,
            Kind::INFLATER_END
                | Kind::DEFLATER_END
                | Kind::INFLATE_END
                | Kind::DEFLATE_END
                | Kind::FREE
        );
        (self.is_call() || self.0 == Kind::PAGE_FAULT.0) && !is_end
    }
}
