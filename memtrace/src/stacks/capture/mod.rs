//! What is needed to resolve the stacks of a trace again, without the traced processes.
//!
//! A capture is the sequence of what [`Stacks`](super::Stacks) was told, and before each step what was read of the
//! processes to take it, as far as it was not known: maps, pieces of memory. So the memory is at each step what it was
//! then, and code that came and went comes and goes again. Of files there is what the walks looked up in them: rules and
//! names. Whoever changes how stacks are resolved can see on a capture what that changes.

mod file;
mod measure;
mod notes;
mod record;
mod replay;
mod whole;

use serde::{Deserialize, Serialize};

pub use file::{Capture, CaptureError};
pub use measure::Measured;
pub use record::Captured;
pub(super) use record::Recorder;
pub use replay::Replay;

use super::rules::Rule;
use crate::target::maps::Mapping;

/// Something that resolving depends on, in the order in which it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Step {
    /// Bytes that the next steps read of a process.
    Memory { tgid: u32, address: u64, bytes: Vec<u8> },
    /// The map that the next steps read of a process: what can hold code of it.
    Maps { tgid: u32, mappings: Vec<Mapping> },
    /// A process' map was read.
    Refresh(u32),
    /// A process mapped code.
    MapCode { tgid: u32, mapping: Mapping },
    /// A process' Java code was looked at.
    Observe { tgid: u32, now_ns: u64 },
    /// Time went on.
    Time(u64),
    /// A process got a new image.
    Exec(u32),
    /// A process forked.
    Fork { parent: u32, child: u32 },
    /// A process ended.
    Exit(u32),
    /// An event, as it lay in the ring buffer: header, then stack.
    Event(Vec<u8>),
    /// What was looked up in a file, by any step.
    Excerpt(Excerpt),
    /// Nothing comes after it.
    End,
}

/// What was looked up in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Excerpt {
    /// Device, inode and path of the file.
    pub(super) key: (u64, u64, Vec<u8>),
    /// Segments: (file offset, bytes, address).
    pub(super) segments: Vec<(u64, u64, u64)>,
    /// By address, as the file has addresses: the rule, and the function's name.
    pub(super) places: Vec<(u64, Option<Rule>, String)>,
}

impl Excerpt {
    /// What was found at `address`, if it was looked up.
    pub(super) fn at(&self, address: u64) -> Option<&(u64, Option<Rule>, String)> {
        let index = self.places.binary_search_by_key(&address, |&(place, ..)| place).ok()?;
        self.places.get(index)
    }
}
