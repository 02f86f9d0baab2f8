//! Where a walk meets an earlier one.

use super::walk::{Address, End};

/// All that a walk knows at one frame, but for the stack and the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) ip: u64,
    pub(super) sp: u64,
    pub(super) bp: u64,
    pub(super) bx: u64,
    /// Whether `ip` is an instruction to be executed, not a return address.
    pub(super) interrupted: bool,
    pub(super) guessing: bool,
}

/// A frame that was found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    pub(super) address: Address,
    pub(super) state: State,
    /// The lowest address of the stack that was read to get to its caller.
    pub(super) lowest_read: u64,
}

/// A frame of an earlier walk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Visited {
    pub(super) state: State,
    /// The lowest address of the stack that was read from there to the end of the walk.
    pub(super) lowest_read: u64,
}

/// What is known from an earlier walk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    /// Outermost first.
    pub(super) visited: &'a [Visited],
    /// How it ended.
    pub(super) end: End,
    /// From this address on the stack is the same.
    pub(super) from: u64,
}

impl Known<'_> {
    /// Nothing is known.
    pub(super) const NOTHING: Known<'static> = Known { visited: &[], end: End::First, from: 0 };

    /// How many frames of the earlier walk, from the outermost on, are those that a walk in this state would find.
    pub(super) fn joined(&mut self, state: &State) -> Option<usize> {
        if state.sp < self.from {
            return None;
        }
        while let [outer @ .., last] = self.visited
            && last.state.sp < state.sp
        {
            self.visited = outer;
        }
        let last = self.visited.last()?;
        (last.state == *state && last.lowest_read >= self.from).then_some(self.visited.len())
    }
}
