use super::*;

/// Numbers that are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % u64::from(n)) as u32
    }
}

fn edges(n: u32, pairs: &[(u32, u32)]) -> Edges {
    let mut edges = Edges { starts: vec![0], targets: Vec::new() };
    for node in 0..n {
        edges.targets.extend(pairs.iter().filter(|(from, _)| *from == node).map(|(_, to)| to));
        edges.starts.push(edges.targets.len() as u32);
    }
    edges
}

/// What node 0 reaches without going through `closed`.
fn reached(n: u32, pairs: &[(u32, u32)], closed: Option<u32>) -> Vec<bool> {
    let mut reached = vec![false; n as usize];
    let mut left = vec![0];
    while let Some(node) = left.pop() {
        if Some(node) == closed || std::mem::replace(&mut reached[node as usize], true) {
            continue;
        }
        left.extend(pairs.iter().filter(|(from, _)| *from == node).map(|(_, to)| *to));
    }
    reached
}

/// When a node was reached.
fn place(found: &Dominators, node: u32) -> Option<u32> {
    found.vertex.iter().position(|&it| it == node).map(|place| place as u32)
}

/// By definition: a dominates b if b is not reached without a; the immediate one is dominated by all others.
fn naive(n: u32, pairs: &[(u32, u32)]) -> Vec<Option<u32>> {
    let alive = reached(n, pairs, None);
    let without: Vec<Vec<bool>> = (0..n).map(|node| reached(n, pairs, Some(node))).collect();
    let dominates = |a: u32, b: u32| a != b && !without[a as usize][b as usize];
    (0..n)
        .map(|node| {
            if node == 0 || !alive[node as usize] {
                return None;
            }
            let all: Vec<u32> =
                (0..n).filter(|&a| alive[a as usize] && dominates(a, node)).collect();
            all.iter().copied().find(|&a| all.iter().all(|&b| a == b || dominates(b, a)))
        })
        .collect()
}

/// 1,000 random graphs, thin and thick, have the dominators and the retained sizes that the definition gives.
#[test]
fn random_graphs() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..1000 {
        let n = 2 + random.below(24);
        let n_edges = random.below(3 * n);
        let pairs: Vec<(u32, u32)> =
            (0..n_edges).map(|_| (random.below(n), random.below(n))).collect();
        let found = Dominators::new(edges(n, &pairs), |node| u64::from(node) + 1);
        let want = naive(n, &pairs);
        let idom = |node: u32| {
            let place = place(&found, node).filter(|&place| place != 0)?;
            Some(found.vertex[found.idom[place as usize] as usize])
        };
        let idoms: Vec<_> = (0..n).map(idom).collect();
        assert_eq!(idoms, want, "round {round}: {pairs:?}");
        for node in (0..n).filter(|&node| place(&found, node).is_some()) {
            let (all, left) = (reached(n, &pairs, None), reached(n, &pairs, Some(node)));
            let gone = (0..n).filter(|&it| all[it as usize] && !left[it as usize]);
            let bytes: u64 = gone.map(|it| u64::from(it) + 1).sum();
            let place = place(&found, node).unwrap();
            assert_eq!(found.retained[place as usize], bytes, "round {round}, node {node}");
        }
    }
}

/// A list of a million nodes, each of which the last one refers to as well, is no depth that matters.
#[test]
fn long_list() {
    let n = 1_000_000_u32;
    let mut edges = Edges { starts: vec![0], targets: Vec::new() };
    for node in 0..n {
        edges.targets.extend((node + 1 < n).then_some(node + 1));
        edges.targets.extend((node + 1 == n).then_some(n / 2));
        edges.starts.push(edges.targets.len() as u32);
    }
    let found = Dominators::new(edges, |_| 1);
    assert_eq!(found.retained[0], u64::from(n));
    assert!((1..n as usize).all(|at| found.idom[at] as usize == at - 1));
}
