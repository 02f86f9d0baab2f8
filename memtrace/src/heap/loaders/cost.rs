//! What each dead loader costs: the bytes that nothing else keeps.

use super::{
    super::{
        dominators::Edges,
        graph::{Heap, Node},
        reach::Reach,
    },
    groups::Groups,
};

/// Bytes that would go with dead loaders.
#[derive(Debug, Default)]
pub(super) struct Costs {
    /// By place of the loader: what is its alone.
    pub(super) own: Vec<u64>,
    /// What several of them keep, with the first of these.
    pub(super) shared: Vec<u64>,
    /// Loaders that only other dead ones keep, with one of these.
    pub(super) kept_by: Vec<(u32, u32)>,
}

const NOBODY: u32 = u32::MAX;
/// Set where a second one reaches it.
const SHARED: u32 = 1 << 31;

/// From where dead loaders are entered, go through all that is not reached otherwise.
pub(super) fn costs(
    heap: &Heap<'_>,
    edges: &Edges,
    groups: &Groups,
    reach: &Reach,
    entries: &[(u32, Node)],
    n_loaders: usize,
) -> Costs {
    let mut owner = vec![NOBODY; edges.n_nodes()];
    let mut costs =
        Costs { own: vec![0; n_loaders], shared: vec![0; n_loaders], kept_by: Vec::new() };
    let mut entries = entries.to_vec();
    let mut left = Vec::new();
    while let Some((group, entry)) = entries.pop() {
        left.push(entry);
        while let Some(node) = left.pop() {
            let of = &mut owner[node as usize];
            match *of {
                NOBODY => *of = group,
                first if first == group || first & SHARED != 0 => continue,
                first => *of = first | SHARED,
            }
            for &target in edges.of(node) {
                if reach.has(target) {
                    continue;
                }
                match groups.of(heap, target) {
                    Some(other) if other != group => {
                        // Its own turn comes, and so once.
                        if owner[target as usize] == NOBODY {
                            entries.push((other, target));
                            costs.kept_by.push((other, group));
                        }
                    }
                    _ => left.push(target),
                }
            }
        }
    }
    for (node, &of) in (0..).zip(&owner).filter(|(_, of)| **of != NOBODY) {
        let sums = if of & SHARED != 0 { &mut costs.shared } else { &mut costs.own };
        sums[(of & !SHARED) as usize] += heap.bytes(node);
    }
    costs.kept_by.sort_unstable();
    costs.kept_by.dedup();
    costs
}
