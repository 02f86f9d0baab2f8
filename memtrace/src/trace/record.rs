//! What a trace is made of, each kind of record with its number in the file.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    footprint::Footprint,
    ledger::{Before, Event, NameFrom, Sample},
    stacks::{Frame, Stack},
};

/// The process that was traced, or launched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Its id in the initial pid namespace.
    pub pid: u32,
    /// Its command line.
    pub command: Vec<String>,
    /// The allocator it uses, such as `glibc 2.36`, where known.
    pub allocator: Option<String>,
    /// Its Java virtual machine, where it is one.
    pub jvm: Option<Jvm>,
}

/// A Java virtual machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jvm {
    /// Its version, such as `17.0.15+6`; empty where it could not be found out.
    pub version: String,
    /// The feature release, such as 17.
    pub major: Option<u32>,
}

/// A thread's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadName {
    /// The process.
    pub tgid: u32,
    /// The thread.
    pub tid: u32,
    /// The name, as bytes that anyone may choose.
    pub name: Vec<u8>,
    /// Where it is from.
    pub from: NameFrom,
}

/// How an allocator's calls are traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Malloc {
    /// Each call.
    Exact,
    /// Some calls, by chance.
    Sampled {
        /// Bytes between two of them, on average.
        mean_bytes: u64,
    },
}

/// Why a trace ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Why {
    /// The user asked for it (Ctrl-C, a signal).
    Asked,
    /// The time was over.
    Duration,
    /// The traced processes ended.
    TargetEnded,
    /// The trace file could not be written any more.
    OutputFailed,
}

/// The end of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// When, in nanoseconds of the monotonic clock.
    pub time_ns: u64,
    /// Why.
    pub why: Why,
    /// How the target ended as wait(2) has it, if it did.
    pub status: Option<i32>,
    /// Processor time that memtrace itself took, in nanoseconds.
    pub self_cpu_ns: u64,
    /// The most memory that memtrace itself had resident, in bytes.
    pub self_max_rss_bytes: u64,
}

macro_rules! records {
    ($($(#[$doc:meta])* $variant:ident($body:ty) = $number:literal,)*) => {
        /// One record. Numbers are never used again for something else; a reader passes over those it doesn't know.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Record {
            $($(#[$doc])* $variant($body),)*
        }

        impl Record {
            /// The number of its kind in the file.
            pub(super) fn number(&self) -> u8 {
                match self { $(Record::$variant(_) => $number,)* }
            }

            /// Appends its body to `out`.
            pub(super) fn encode(&self, out: Vec<u8>) -> postcard::Result<Vec<u8>> {
                match self { $(Record::$variant(body) => postcard::to_extend(body, out),)* }
            }

            /// Decodes a body; `None` for a kind that is not known.
            pub(super) fn decode(number: u8, body: &[u8]) -> Option<postcard::Result<Record>> {
                match number {
                    $($number => Some(body_of::<$body>(body).map(Record::$variant)),)*
                    _ => None,
                }
            }
        }
    };
}

fn body_of<T: DeserializeOwned>(bytes: &[u8]) -> postcard::Result<T> {
    postcard::from_bytes(bytes)
}

records! {
    /// The process; told again when more is known.
    Target(Target) = 1,
    /// What of the kernel was used.
    Features(Vec<String>) = 2,
    /// The next frame.
    Frame(Frame) = 3,
    /// The next stack.
    Stack(Stack) = 4,
    /// Something happened.
    Event(Event) = 5,
    /// A mapping of a process that was there when tracing began.
    Before((u32, Before)) = 6,
    /// A thread has a name.
    ThreadName(ThreadName) = 7,
    /// Resident bytes.
    Sample(Sample) = 8,
    /// Everything that was lost so far, by name.
    Losses(Vec<(String, u64)>) = 9,
    /// Calls that failed so far, by name.
    Failed(Vec<(String, u64)>) = 10,
    /// Something that the user should know, in one line.
    Note(String) = 11,
    /// The trace is complete.
    End(End) = 12,
    /// Calls of allocators are traced; told at the begin, not at all where they are not.
    Malloc(Malloc) = 13,
    /// Blocks of fewer bytes are ignored; told with the above, not at all where none are.
    MinSize(u64) = 14,
    /// What the process's resident bytes consist of at a moment.
    Footprint(Footprint) = 15,
}
