//! The last walk through each thread's stack: a walk that gets to where the last one was, in a part of the stack that has
//! not changed since, goes on as the last one did.
//!
//! That holds because a step depends on nothing but the registers that the walk knows, the words that it reads, and the
//! code. The first two are compared. Java code can be replaced by other code at the same place, though not while a frame
//! of it is on the stack: what is known of it counts for a tenth of a second, and only until some is found replaced.

use memtrace_common::N_SHADOWS;

use super::{
    joining::{Known, Point, Visited},
    steps::Generation,
    tree::{Node, Tree},
    walk::{Address, End},
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
    /// Of the event's time: a walk is gone on with for no longer, for what is known of Java code gets old.
    pub(super) tenth_of_second: u64,
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

#[cfg(test)]
mod tests {
    use memtrace_common::{Mend, Regs};

    use super::{
        super::{
            fake_code::{FakeCode, JAVA, NATIVE, RETURN_PROBE, SIZE},
            walk::{Place, Snapshot, walk},
        },
        *,
    };

    const END_OF_STACK: u64 = 0x7000_0000;

    /// Numbers that look random, the same in each run.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.0 >> 33) % bound
        }

        /// An instruction, the end of a stack, a place in it, or anything.
        fn word(&mut self) -> u64 {
            match self.below(64) {
                0 => 0,
                1 => self.below(1000),
                2..6 => END_OF_STACK - 8 * self.below(64),
                _ => self.instruction(),
            }
        }

        /// One in three is Java's.
        fn instruction(&mut self) -> u64 {
            let start = if self.below(3) == 0 { JAVA } else { NATIVE };
            start + self.below(SIZE)
        }
    }

    /// A walk that goes on as the last one did, through native code or Java's, finds what a walk of its own would.
    #[test]
    fn same_as_without() {
        let (mut numbers, mut tree, mut last) = (Numbers(7), Tree::default(), LastWalk::default());
        let circumstances = Circumstances { end_of_stack: END_OF_STACK, ..Default::default() };
        let mut old: Vec<u64> = vec![0; 12];
        let (mut n_joined, mut n_first, mut n_java) = (0, 0, 0);
        for round in 0..400_000 {
            // The last stack, cut somewhere, with other words below, and now and then one changed. It ends with zeros.
            let n_cut = numbers.below(old.len() as u64 - 11) as usize;
            let mut words = old[n_cut..].to_vec();
            if numbers.below(4) == 0 && words.len() > 12 {
                let at = numbers.below(words.len() as u64 - 12) as usize;
                words[at] = numbers.word();
            }
            let n_new = numbers.below(if words.len() < 60 { 24 } else { 4 });
            let new: Vec<u64> = (0..n_new).map(|_| numbers.word()).collect();
            words.splice(0..0, new);
            // Return addresses that probes hide: of the function that is entered, and of one that is not left yet. The
            // words in their place are the same each time.
            let sp = END_OF_STACK - 8 * words.len() as u64;
            let own = (numbers.below(2) == 0).then_some(0);
            let other = (numbers.below(8) == 0).then(|| numbers.below(words.len() as u64 - 11));
            let mut mends = Vec::new();
            for at in own.into_iter().chain(other) {
                words[at as usize] = RETURN_PROBE;
                mends.push(Mend { slot: sp + 8 * at, return_address: numbers.instruction() });
            }
            let n_same =
                words.iter().rev().zip(old.iter().rev()).take_while(|(a, b)| a == b).count();
            let stack: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            let ip = numbers.instruction();
            let bp = if numbers.below(2) == 0 { sp + 8 } else { numbers.word() };
            let snapshot = Snapshot {
                regs: Regs { ip, sp, bp, ..Regs::default() },
                stack: &stack,
                used: stack.len() as u64,
                cut: false,
                has_holes: false,
                is_at_entry: false,
                mends: &mends,
            };
            let mut whole = Vec::new();
            let (end, _) = walk(&mut FakeCode, true, &snapshot, Known::NOTHING, &mut whole);
            let known = last.known(circumstances, END_OF_STACK - 8 * n_same as u64);
            let mut points = Vec::new();
            let (end_again, n_kept) = walk(&mut FakeCode, true, &snapshot, known, &mut points);
            let node = last.replace(circumstances, n_kept, &points, &mut tree);
            last.keep(end);
            n_first += usize::from(end == End::First);
            let found: Vec<Address> = tree.frames(node).map(|(_, address)| address).collect();
            let want: Vec<Address> = whole.iter().map(|point| point.address).collect();
            assert_eq!((&found, end_again), (&want, end), "round {round}, {n_kept} kept");
            n_joined += usize::from(n_kept > 1);
            let is_java = |address: &Address| matches!(address.place, Place::Java(_));
            n_java += usize::from(n_kept > 1 && want[want.len() - n_kept..].iter().any(is_java));
            old = words;
        }
        assert!(n_joined > 2_000 && n_first > 100_000, "{n_joined} {n_first}");
        assert!(n_java > 700, "{n_java}");
    }
}
