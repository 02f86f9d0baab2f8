//! Records as they lie in memory.

#[cfg(feature = "user")]
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The most stack that is copied with an event.
pub const MAX_STACK_BYTES: usize = 64 << 10;

/// Sizes of whole stacks that room is reserved for: the verifier wants a constant.
pub const STACK_CLASSES: [usize; 4] = [4 << 10, 16 << 10, 32 << 10, MAX_STACK_BYTES];

/// How much of a thread's stack is remembered, so that of the next one only what has changed is sent.
pub const SHADOW_BYTES: usize = 64 << 10;

/// Steps in which a stack is compared with the thread's last one, from the thread's first frame on.
pub const SHADOW_STEP_BYTES: usize = 512;

/// How many threads' stacks are remembered at a time; those of others are sent whole.
pub const N_SHADOWS: usize = 256;

/// How many probed functions may be nested in one thread.
pub const MAX_MENDS: usize = 4;

macro_rules! shared {
    ($(#[$doc:meta])* pub struct $name:ident { $($body:tt)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[cfg_attr(feature = "user", derive(FromBytes, IntoBytes, Immutable, KnownLayout))]
        #[repr(C)]
        pub struct $name { $($body)* }
    };
}

shared! {
    /// The registers that unwinding can need: the callee-saved ones, the instruction and the stack pointer.
    pub struct Regs {
        /// Instruction pointer.
        pub ip: u64,
        /// Stack pointer; the copied stack begins here.
        pub sp: u64,
        /// rbp.
        pub bp: u64,
        /// rbx.
        pub bx: u64,
        /// r12.
        pub r12: u64,
        /// r13.
        pub r13: u64,
        /// r14.
        pub r14: u64,
        /// r15.
        pub r15: u64,
    }
}

shared! {
    /// A return address that a return probe has replaced on the stack.
    pub struct Mend {
        /// Where on the stack it stood.
        pub slot: u64,
        /// What stood there.
        pub return_address: u64,
    }
}

shared! {
    /// What happened; `stack_bytes` bytes of stack follow, from the stack pointer on.
    pub struct EventHeader {
        /// When the call began, in nanoseconds of the monotonic clock.
        pub enter_ns: u64,
        /// When the call returned; equal to `enter_ns` for what takes no time.
        pub exit_ns: u64,
        /// The arguments, see [`Kind`](crate::Kind).
        pub args: [u64; 5],
        /// The result, see [`Kind`](crate::Kind).
        pub result: u64,
        /// The user registers at the call.
        pub regs: Regs,
        /// Return addresses that are to be put back into the copied stack; the first `n_mends` are set.
        pub mends: [Mend; MAX_MENDS],
        /// The thread's fs base: the end of the stack is a constant below it in every thread but the first.
        pub fs_base: u64,
        /// Bytes of stack in use as far as the kernel side could tell, 0 if it could not.
        pub stack_used: u64,
        /// The process, in the initial pid namespace.
        pub tgid: u32,
        /// The thread, in the initial pid namespace.
        pub tid: u32,
        /// A [`Kind`](crate::Kind).
        pub kind: u32,
        /// Bytes of stack that follow this header.
        pub stack_bytes: u32,
        /// How many of `mends` are set.
        pub n_mends: u32,
        /// Not 0 if a part of the copied stack could not be read and is zeros.
        pub has_holes: u32,
        /// 0 if all that was copied follows. Else one more than the number of the shadow: of the `stack_used` bytes of
        /// stack, those that don't follow are as they were in the shadow's version before this one.
        pub shadow: u32,
        /// The version of the shadow that this stack makes.
        pub version: u32,
    }
}
const _: () = assert!(size_of::<EventHeader>() == 240);

shared! {
    /// What happened, where no stack is told of: of ends, and in a process's life. Told from an [`EventHeader`] by size.
    pub struct ShortEvent {
        /// When the call began, in nanoseconds of the monotonic clock.
        pub enter_ns: u64,
        /// When the call returned; equal to `enter_ns` for what takes no time.
        pub exit_ns: u64,
        /// The first arguments, see [`Kind`](crate::Kind).
        pub args: [u64; 3],
        /// The result, see [`Kind`](crate::Kind).
        pub result: u64,
        /// The process, in the initial pid namespace.
        pub tgid: u32,
        /// The thread, in the initial pid namespace.
        pub tid: u32,
        /// A [`Kind`](crate::Kind).
        pub kind: u32,
        /// Always 0.
        pub reserved: u32,
    }
}
const _: () = assert!(size_of::<ShortEvent>() == 64);

shared! {
    /// Where the running kernel keeps what the kernel side reads: byte offsets from its type information.
    pub struct KernelOffsets {
        /// `task_struct.pid`, a thread id.
        pub task_pid: u64,
        /// `task_struct.tgid`, a process id.
        pub task_tgid: u64,
        /// `task_struct.mm`.
        pub task_mm: u64,
        /// `task_struct.exit_code`.
        pub task_exit_code: u64,
        /// `task_struct.signal`.
        pub task_signal: u64,
        /// `task_struct.thread.fsbase`.
        pub task_fs_base: u64,
        /// `mm_struct.start_stack`.
        pub mm_start_stack: u64,
        /// `signal_struct.live`.
        pub signal_live: u64,
        /// `signal_struct.flags`.
        pub signal_flags: u64,
    }
}

shared! {
    /// A thread's user registers as it left them when it last entered the kernel.
    pub struct ThreadRegisters {
        /// Those that unwinding needs.
        pub regs: Regs,
        /// Its fs base.
        pub fs_base: u64,
        /// The thread, in the initial pid namespace.
        pub tid: u32,
        /// Always 0.
        pub reserved: u32,
    }
}

shared! {
    /// How a process is traced.
    pub struct TargetFlags {
        /// Not 0 if its children are traced too.
        pub follow: u32,
        /// How many images it has had since it is traced.
        pub image: u32,
    }
}

shared! {
    /// Blocks that a thread got and gave back since this was last told.
    pub struct Tally {
        /// Blocks got.
        pub blocks: u64,
        /// Their bytes.
        pub bytes: u64,
        /// Blocks given back.
        pub given_back: u64,
        /// The process, in the initial pid namespace; 0 as long as there is nothing to tell.
        pub tgid: u64,
    }
}

/// Of the cookie of an allocator's probe, whose lower half is a [`Kind`](crate::Kind) and whose upper half a process: set
/// where the function calls no other one that is probed.
pub const COOKIE_LEAF: u32 = 1 << 31;

/// What the kernel side remembers of a thread; it begins with its [`Tally`].
pub const THREAD_BYTES: usize = 408;

shared! {
    /// A thread's name as the kernel has it, filled up with zeros.
    pub struct Comm {
        /// The bytes, not necessarily UTF-8.
        pub bytes: [u8; 16],
    }
}
