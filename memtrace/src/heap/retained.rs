//! What the objects of each class retain together: the bytes that would go with all of them.
//!
//! That is no sum: of objects that keep others of their own kind, as the nodes of a list do, only the first counts.

use super::dominators::Dominators;

/// What is of no group.
pub(super) const NO_GROUP: u32 = u32::MAX;

/// Bytes by group; `group` tells it of a node, below `n_groups`.
pub(super) fn by_group(
    found: &Dominators,
    n_groups: usize,
    group: impl Fn(u32) -> u32,
) -> Vec<u64> {
    let mut sums = vec![0_u64; n_groups];
    // How many of each group are above the place that is visited.
    let mut n_above = vec![0_u32; n_groups];
    let group_at = |place: u32| {
        let group = group(found.vertex[place as usize]) as usize;
        (group < n_groups).then_some(group)
    };
    let (mut next, children) = children(&found.idom);
    let ends: Vec<u32> = next.iter().skip(1).copied().chain([children.len() as u32]).collect();
    let mut at = 0_u32;
    loop {
        let place = at as usize;
        if next[place] < ends[place] {
            at = children[next[place] as usize];
            next[place] += 1;
            if let Some(group) = group_at(at) {
                if n_above[group] == 0 {
                    sums[group] = sums[group].saturating_add(found.retained[at as usize]);
                }
                n_above[group] += 1;
            }
        } else if at == 0 {
            return sums;
        } else {
            if let Some(group) = group_at(at) {
                n_above[group] -= 1;
            }
            at = found.idom[place];
        }
    }
}

/// For each place, where its children begin, and the children of all places.
fn children(idom: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let mut begins = vec![0_u32; idom.len()];
    for &parent in idom.iter().skip(1) {
        begins[parent as usize] += 1;
    }
    let mut sum = 0;
    for begin in &mut begins {
        sum += *begin;
        *begin = sum;
    }
    let mut children = vec![0; sum as usize];
    for (place, &parent) in idom.iter().enumerate().skip(1).rev() {
        let begin = &mut begins[parent as usize];
        *begin -= 1;
        children[*begin as usize] = place as u32;
    }
    (begins, children)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a chain of one kind the first counts, of two chains both; what is of another kind between them does not help.
    #[test]
    fn chains() {
        // 0 keeps 1 and 5; 1 keeps 2, 2 keeps 3 and 4; 5 keeps 6.
        let idom = vec![0, 0, 1, 2, 2, 0, 5];
        let own = [0_u64, 10, 20, 30, 40, 50, 60];
        let mut retained = own.to_vec();
        for place in (1..own.len()).rev() {
            retained[idom[place] as usize] += retained[place];
        }
        let found = Dominators { vertex: (0..7).collect(), idom, retained };
        let groups = [NO_GROUP, 0, 1, 0, 2, 0, 1];
        let sums = by_group(&found, 3, |node| groups[node as usize]);
        assert_eq!(sums, [100 + 110, 90 + 60, 40]);
    }

    #[test]
    fn nothing() {
        let found = Dominators { vertex: vec![0], idom: vec![0], retained: vec![0] };
        assert_eq!(by_group(&found, 1, |_| 0), [0]);
    }
}
