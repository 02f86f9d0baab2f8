//! How to get from a frame to its caller, at one instruction.

use serde::{Deserialize, Serialize};

/// Where the canonical frame address (the stack pointer before the call) is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum Cfa {
    /// rsp + offset.
    Sp(i32),
    /// rbp + offset.
    Bp(i32),
    /// rbx + offset (ld.so's lazy binding).
    Bx(i32),
    /// The word at rbp + offset (functions that realign their stack).
    AtBp(i32),
    /// rsp + 8, and 8 more behind the push of a lazy PLT entry.
    Plt,
}

/// Where the caller's value of a register is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum Saved {
    /// Still in the register.
    Same,
    /// At the canonical frame address + offset.
    AtCfa(i32),
    /// At rbp + offset.
    AtBp(i32),
    /// Nowhere.
    Lost,
}

/// How to get to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum Rule {
    /// An ordinary frame: the return address is just below the canonical frame address.
    Frame {
        /// Where the canonical frame address is.
        cfa: Cfa,
        /// The caller's rbp.
        bp: Saved,
        /// The caller's rbx.
        bx: Saved,
    },
    /// The kernel's signal frame: it holds every register of what was interrupted.
    Signal,
    /// No caller: the first frame of a thread.
    End,
    /// The unwind information says something that is not understood here.
    Unsupported,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rule is looked up for every frame: it stays small.
    #[test]
    fn size() {
        assert!(size_of::<Rule>() <= 24);
    }
}
