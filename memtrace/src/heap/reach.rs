//! What the roots reach, and by the shortest way.

use super::{
    dominators::{Edges, UNREACHED},
    graph::Node,
};

/// For each node that is reached, the one that it was first reached from.
#[derive(Debug)]
pub(super) struct Reach {
    from: Vec<Node>,
}

impl Reach {
    /// Goes from node 0, breadth first, into what `enters` allows; each edge is told of before it is gone.
    pub(super) fn new(edges: &Edges, mut enters: impl FnMut(Node, Node) -> bool) -> Self {
        let mut from = vec![UNREACHED; edges.n_nodes()];
        from[0] = 0;
        let mut queue = vec![0];
        let mut next = 0;
        while let Some(&node) = queue.get(next) {
            next += 1;
            for &target in edges.of(node) {
                if from[target as usize] == UNREACHED && enters(node, target) {
                    from[target as usize] = node;
                    queue.push(target);
                }
            }
            // What is done needs no room, of a queue that holds everything at last.
            if next == 1 << 16 {
                queue.drain(..next);
                next = 0;
            }
        }
        Self { from }
    }

    pub(super) fn has(&self, node: Node) -> bool {
        self.from.get(node as usize).is_some_and(|&from| from != UNREACHED)
    }

    /// The way from a root to `node`, both included, at most `max` nodes of its end.
    pub(super) fn path(&self, node: Node, max: usize) -> Vec<Node> {
        let mut path = Vec::new();
        let mut at = node;
        while at != 0 && self.has(at) && path.len() < max {
            path.push(at);
            at = self.from[at as usize];
        }
        path.reverse();
        path
    }
}
