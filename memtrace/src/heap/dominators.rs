//! Who alone keeps whom: immediate dominators by Semi-NCA, and the bytes that go with each object.
//!
//! In: a graph whose node 0 reaches what is alive. Out: for each node the one that every path to it goes through. Nodes are
//! numbered anew in the order of a depth-first search, in which all arrays are walked; nothing recurs. The algorithm is
//! that of Georgiadis (2005), "Linear-Time Algorithms for Dominators and Related Problems", section 2.

/// Edges of each node, one after the other.
#[derive(Debug, Default)]
pub(super) struct Edges {
    /// Where those of each node begin, and of the last one end.
    pub(super) starts: Vec<u32>,
    pub(super) targets: Vec<u32>,
}

impl Edges {
    #[inline]
    pub(super) fn of(&self, node: u32) -> &[u32] {
        let node = node as usize;
        &self.targets[self.starts[node] as usize..self.starts[node + 1] as usize]
    }

    pub(super) fn n_nodes(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }
}

/// Not reached from node 0.
pub(super) const UNREACHED: u32 = u32::MAX;

/// Dominators, in the order of the search: `vertex[0]` is node 0.
#[derive(Debug)]
pub(super) struct Dominators {
    /// Nodes in the order in which they were reached.
    pub(super) vertex: Vec<u32>,
    /// Of the n-th that was reached, its immediate dominator's place; 0 for the first.
    pub(super) idom: Vec<u32>,
    /// Of the n-th, the bytes that would go with it.
    pub(super) retained: Vec<u64>,
}

struct Search {
    vertex: Vec<u32>,
    order: Vec<u32>,
    parent: Vec<u32>,
}

/// Reaches what can be reached.
fn search(edges: &Edges) -> Search {
    let n = edges.n_nodes();
    let mut order = vec![UNREACHED; n];
    let (mut vertex, mut parent) = (vec![0_u32], vec![0_u32]);
    order[0] = 0;
    // Which edge of each node is next. The way back is the parents.
    let mut next = edges.starts.clone();
    let mut at = 0_u32;
    loop {
        let node = vertex[at as usize] as usize;
        let end = edges.starts[node + 1];
        let mut found = None;
        while next[node] < end {
            let target = edges.targets[next[node] as usize];
            next[node] += 1;
            if order[target as usize] == UNREACHED {
                found = Some(target);
                break;
            }
        }
        if let Some(target) = found {
            let place = vertex.len() as u32;
            order[target as usize] = place;
            vertex.push(target);
            parent.push(at);
            at = place;
        } else if at == 0 {
            return Search { vertex, order, parent };
        } else {
            at = parent[at as usize];
        }
    }
}

/// For each place, the places that refer to it, but for its parent. `edges` lead from nodes to places.
fn predecessors(edges: &Edges, vertex: &[u32], parent: &[u32]) -> Edges {
    let mut starts = vec![0_u32; vertex.len() + 1];
    let is_kept = |from: u32, to: u32| parent[to as usize] != from && to != from && to != 0;
    for (from, &node) in (0..).zip(vertex) {
        for &to in edges.of(node) {
            if is_kept(from, to) {
                starts[to as usize] += 1;
            }
        }
    }
    let mut sum = 0;
    for start in &mut starts {
        sum += *start;
        *start = sum;
    }
    let mut targets = vec![0; sum as usize];
    for (from, &node) in (0..).zip(vertex) {
        for &to in edges.of(node) {
            if is_kept(from, to) {
                let start = &mut starts[to as usize];
                *start -= 1;
                targets[*start as usize] = from;
            }
        }
    }
    Edges { starts, targets }
}

impl Dominators {
    /// Takes the edges, which are not needed any more, and bytes by node.
    pub(super) fn new(mut edges: Edges, bytes: impl Fn(u32) -> u64) -> Self {
        let Search { vertex, order, parent } = search(&edges);
        // The numbers of nodes are not needed any more: memory is the least where one array takes the place of two.
        edges.targets.iter_mut().for_each(|target| *target = order[*target as usize]);
        drop(order);
        let preds = predecessors(&edges, &vertex, &parent);
        drop(edges);
        let idom = semi_nca(&preds, parent);
        drop(preds);
        let mut retained: Vec<u64> = vertex.iter().map(|&node| bytes(node)).collect();
        for at in (1..vertex.len()).rev() {
            let sum = retained[at];
            let of = &mut retained[idom[at] as usize];
            *of = of.saturating_add(sum);
        }
        Self { vertex, idom, retained }
    }
}

fn semi_nca(preds: &Edges, parent: Vec<u32>) -> Vec<u32> {
    let n = parent.len();
    let mut idom = parent.clone();
    let mut ancestor = parent;
    let mut semi: Vec<u32> = (0..n as u32).collect();
    // The least semidominator on the compressed path above each place.
    let mut label = semi.clone();
    let mut path = Vec::new();
    for at in (1..n as u32).rev() {
        let mut least = idom[at as usize];
        for &pred in preds.of(at) {
            least = least.min(eval(pred, at, &mut ancestor, &mut label, &mut path));
        }
        semi[at as usize] = least;
        label[at as usize] = least;
    }
    for at in 1..n {
        let mut up = idom[at];
        while up > semi[at] {
            up = idom[up as usize];
        }
        idom[at] = up;
    }
    idom
}

/// The least label on the path from `place` up to where places are not done yet, which are those up to `limit`.
fn eval(
    place: u32,
    limit: u32,
    ancestor: &mut [u32],
    label: &mut [u32],
    path: &mut Vec<u32>,
) -> u32 {
    if place <= limit {
        return place;
    }
    let mut at = place;
    while ancestor[at as usize] > limit {
        path.push(at);
        at = ancestor[at as usize];
    }
    let top = ancestor[at as usize];
    let mut least = label[at as usize];
    while let Some(at) = path.pop() {
        least = least.min(label[at as usize]);
        label[at as usize] = least;
        ancestor[at as usize] = top;
    }
    least
}

#[cfg(test)]
mod tests;
