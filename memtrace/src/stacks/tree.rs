//! The walks of one process as a tree: a node is a frame with all its callers. Stacks that have callers in common share
//! them, and what lies above a frame that is known need not be looked at to know the stack.

use rustc_hash::FxHashMap;

use super::{
    intern::StackId,
    walk::{Address, End},
};

/// A frame with all its callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Node(u32);

impl Node {
    /// No frame.
    pub(super) const ROOT: Node = Node(0);
}

/// Nodes that are kept of a process, and of all together; it is a cache, and starts anew when it is full.
const MAX_NODES: usize = 200_000;
pub(super) const MAX_ALL_NODES: usize = 400_000;

/// Frames by their callers, and the stacks that they are.
///
/// Nodes are many, and each is looked up by chance: their table is kept small, of numbers only.
#[derive(Debug, Default)]
pub(super) struct Tree {
    numbers: FxHashMap<Address, u32>,
    /// By number.
    addresses: Vec<Address>,
    nodes: FxHashMap<(Node, u32), Node>,
    /// What each node but the root was made of.
    made_of: Vec<(Node, u32)>,
    /// What each node, the root first, called last: mostly it calls that again, and to find that out takes one look at
    /// memory where the tables take four.
    called: Vec<Option<(Address, Node)>>,
    stacks: FxHashMap<(Node, u8), StackId>,
}

impl Tree {
    /// The frame at `address` that was called from `caller`.
    pub(super) fn node(&mut self, caller: Node, address: Address) -> Node {
        let at = caller.0 as usize;
        if let Some(&Some((called, node))) = self.called.get(at)
            && called == address
        {
            return node;
        }
        let node = self.look_up(caller, address);
        if self.called.len() <= at {
            self.called.resize(at + 1, None);
        }
        self.called[at] = Some((address, node));
        node
    }

    fn look_up(&mut self, caller: Node, address: Address) -> Node {
        let Self { numbers, addresses, nodes, made_of, .. } = self;
        let number = *numbers.entry(address).or_insert_with(|| {
            addresses.push(address);
            addresses.len() as u32 - 1
        });
        *nodes.entry((caller, number)).or_insert_with(|| {
            made_of.push((caller, number));
            Node(made_of.len() as u32)
        })
    }

    /// Whether it is time to start anew.
    pub(super) fn is_full(&self) -> bool {
        self.made_of.len() >= MAX_NODES
    }

    /// Nodes that are kept.
    pub(super) fn len(&self) -> usize {
        self.made_of.len()
    }

    /// The frames from `node` to the outermost, with the numbers of their addresses: equal ones have the same, from 0 on.
    pub(super) fn frames(&self, node: Node) -> impl Iterator<Item = (usize, Address)> {
        let made_of = |node: Node| self.made_of.get((node.0 as usize).checked_sub(1)?).copied();
        std::iter::successors(made_of(node), move |&(caller, _)| made_of(caller))
            .map(|(_, number)| (number as usize, self.addresses[number as usize]))
    }

    /// The number of the stack that begins at `node` and whose walk had this end, if it has one.
    pub(super) fn stack(&self, node: Node, end: End) -> Option<StackId> {
        self.stacks.get(&(node, end.key())).copied()
    }

    /// Notes the number of a stack.
    pub(super) fn set_stack(&mut self, node: Node, end: End, id: StackId) {
        self.stacks.insert((node, end.key()), id);
    }
}

impl End {
    /// Ends that make different stacks of the same addresses.
    fn key(self) -> u8 {
        match self {
            End::First => 0,
            End::Java => 1,
            End::Truncated => 2,
            End::Broken(_) => 3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::walk::Place, *};

    #[test]
    fn callers_are_shared() {
        let address = |pc| Address { place: Place::Native(pc), guess: false };
        let mut tree = Tree::default();
        let outermost = tree.node(Node::ROOT, address(1));
        let [left, right] = [2, 3].map(|pc| tree.node(outermost, address(pc)));
        assert_eq!(tree.node(Node::ROOT, address(1)), outermost);
        assert_eq!(tree.node(outermost, address(2)), left);
        assert_ne!(left, right);
        // The same function in another place is another frame.
        assert_ne!(tree.node(left, address(2)), left);
        let frames: Vec<(usize, Address)> = tree.frames(right).collect();
        assert_eq!(frames, [(2, address(3)), (0, address(1))]);
        assert_eq!(tree.frames(Node::ROOT).count(), 0);
        tree.set_stack(left, End::First, StackId(7));
        assert_eq!(tree.stack(left, End::First), Some(StackId(7)));
        assert_eq!((tree.stack(left, End::Java), tree.stack(right, End::First)), (None, None));
    }
}
