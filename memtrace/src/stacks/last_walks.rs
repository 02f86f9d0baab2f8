//! The last walk through each thread's stack: a walk that gets to where the last one was, in a part of the stack that has
//! not changed since, goes on as the last one did.
//!
//! That holds because a step depends on nothing but the registers that the walk knows, the words that it reads, and the
//! code. All three are compared, none is guessed at.

use memtrace_common::N_SHADOWS;

use super::{
    steps::Generation,
    tree::{Node, Tree},
    walk::{Address, End, Known, Point, Visited},
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
    /// The version of what is known of the Java code.
    pub(super) java_version: (u32, u32),
}

/// The last walk through one thread's stack.
#[derive(Debug, Default)]
pub(super) struct LastWalk {
    circumstances: Circumstances,
    /// Outermost first.
    visited: Vec<Visited>,
    /// The frames of `visited`.
    frames: Vec<(Address, Node)>,
    /// How it ended; `None` where nothing can be built on it.
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
    pub(super) fn replace(
        &mut self,
        circumstances: Circumstances,
        n_kept: usize,
        points: &[Point],
        tree: &mut Tree,
    ) -> Node {
        if !self.circumstances.have_same_tree(circumstances) {
            self.frames.clear();
        }
        self.circumstances = circumstances;
        self.end = None;
        self.visited.truncate(n_kept);
        let mut lowest_read = self.visited.last().map_or(u64::MAX, |outer| outer.lowest_read);
        for point in points.iter().rev() {
            lowest_read = lowest_read.min(point.lowest_read);
            self.visited.push(Visited { state: point.state, lowest_read });
        }
        self.replace_frames(n_kept, points, tree)
    }

    fn replace_frames(&mut self, n_kept: usize, points: &[Point], tree: &mut Tree) -> Node {
        // Mostly the same code runs again, on a stack with other data: then the nodes are the same as well.
        let new = points.iter().rev().map(|point| point.address);
        let old = self.frames.get(n_kept..).unwrap_or_default();
        let n_same = new.clone().zip(old).take_while(|(new, (old, _))| new == old).count();
        self.frames.truncate(n_kept + n_same);
        let mut node = self.frames.last().map_or(Node::ROOT, |&(_, node)| node);
        for address in new.skip(n_same) {
            node = tree.node(node, address);
            self.frames.push((address, node));
        }
        node
    }

    /// The walk ended with `end`, and the next one can build on it.
    pub(super) fn keep(&mut self, end: End) {
        self.end = Some(end);
    }
}

impl Circumstances {
    /// Whether nodes of the one are nodes of the other: the tree starts anew when the native code changes.
    fn have_same_tree(self, other: Circumstances) -> bool {
        (self.tgid, self.generation) == (other.tgid, other.generation)
    }
}

/// The last walks of all threads, by the numbers of their shadows; 0 is that of stacks without one, and never kept.
pub(super) fn none() -> Box<[LastWalk]> {
    (0..=N_SHADOWS).map(|_| LastWalk::default()).collect()
}
