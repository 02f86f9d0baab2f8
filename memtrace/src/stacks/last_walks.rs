//! The last walk through each thread's stack: a walk that gets to where the last one was, in a part of the stack that has
//! not changed since, goes on as the last one did.
//!
//! That holds because a step depends on nothing but the registers that the walk knows, the words that it reads, and the
//! code. All three are compared, none is guessed at.

use memtrace_common::N_SHADOWS;

use super::{
    steps::Generation,
    tree::{Node, Tree},
    walk::{End, Known, Point, Visited},
};

/// What a walk depends on beside registers and stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Circumstances {
    /// The process.
    pub(super) tgid: u32,
    /// One past the last address of the stack.
    pub(super) end_of_stack: u64,
    /// The state of the native code.
    pub(super) generation: Generation,
    /// How often the Java code was looked at.
    pub(super) n_looks: u32,
}

/// The last walk through one thread's stack.
#[derive(Debug, Default)]
pub(super) struct LastWalk {
    circumstances: Circumstances,
    /// Outermost first.
    visited: Vec<Visited>,
    nodes: Vec<Node>,
    /// `None` where nothing can be built on the walk.
    end: Option<End>,
}

impl LastWalk {
    /// What holds of it for a stack that is the same from address `from` on.
    pub(super) fn known(&self, circumstances: Circumstances, from: u64) -> Known<'_> {
        match self.end {
            Some(end) if self.circumstances == circumstances => {
                Known { visited: &self.visited, end, from }
            }
            _ => Known::NOTHING,
        }
    }

    /// Takes the place of the last walk: the outermost `n_kept` points are as they were, `points` are new, innermost first.
    /// Returns the node where the stack begins.
    pub(super) fn replace(&mut self, n_kept: usize, points: &[Point], tree: &mut Tree) -> Node {
        self.visited.truncate(n_kept);
        self.nodes.truncate(n_kept);
        let mut node = self.nodes.last().copied().unwrap_or(Node::ROOT);
        let mut lowest = self.visited.last().map_or(u64::MAX, |outer| outer.lowest_read);
        for point in points.iter().rev() {
            node = tree.node(node, point.address);
            lowest = lowest.min(point.lowest_read);
            self.visited.push(Visited { state: point.state, lowest_read: lowest });
            self.nodes.push(node);
        }
        self.end = None;
        node
    }

    /// The walk ended with `end`, and the next one can build on it.
    pub(super) fn keep(&mut self, circumstances: Circumstances, end: End) {
        self.circumstances = circumstances;
        self.end = Some(end);
    }
}

/// The last walks of all threads, by the numbers of their shadows; 0 is that of stacks without one, and never kept.
pub(super) fn none() -> Box<[LastWalk]> {
    (0..=N_SHADOWS).map(|_| LastWalk::default()).collect()
}
