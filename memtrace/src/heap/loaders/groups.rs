//! What goes with a class loader: its classes, their instances, the loaders below it, and the threads that have it as
//! their context.

use rustc_hash::FxHashMap;

use super::{
    super::graph::{Heap, Node},
    found::Loader,
};

/// Which dead loader each node goes with, by its place in the list of loaders.
#[derive(Debug)]
pub(super) struct Groups {
    by_class: Vec<Option<u32>>,
    by_node: FxHashMap<Node, u32>,
}

/// Loaders have no longer line of parents.
const MAX_PARENTS: usize = 100;

impl Groups {
    pub(super) fn new(heap: &Heap<'_>, loaders: &[Loader]) -> Self {
        let by_node: FxHashMap<Node, usize> =
            loaders.iter().enumerate().map(|(at, loader)| (loader.node, at)).collect();
        let mut groups =
            Self { by_class: vec![None; heap.classes.len()], by_node: FxHashMap::default() };
        for loader in loaders {
            let mut at = Some(loader);
            for _ in 0..MAX_PARENTS {
                let Some(found) = at else { break };
                let place = by_node[&found.node];
                if found.is_dead == Some(true) {
                    groups.by_node.insert(loader.node, place as u32);
                    for &class in &loader.classes {
                        groups.by_class[class as usize] = Some(place as u32);
                    }
                    break;
                }
                let parent = found.parent.and_then(|parent| by_node.get(&parent));
                at = parent.map(|&place| &loaders[place]);
            }
        }
        for thread in heap.instances_of("java.lang.Thread") {
            let context = heap.reference(thread, "contextClassLoader");
            if let Some(&place) = context.and_then(|context| groups.by_node.get(&context)) {
                groups.by_node.insert(thread, place);
            }
        }
        groups
    }

    /// The dead loader that `node` goes with.
    #[inline]
    pub(super) fn of(&self, heap: &Heap<'_>, node: Node) -> Option<u32> {
        if let Some(class) = heap.as_class(node).or_else(|| heap.class_of(node))
            && let Some(place) = self.by_class[class as usize]
        {
            return Some(place);
        }
        self.by_node.get(&node).copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_node.is_empty()
    }
}
