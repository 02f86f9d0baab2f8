//! How full ZGC's heap is. Where it is, the map tells: it is a file of its own.

use super::fields::Fields;

/// Nodes of the machine that a heap is divided among.
const MAX_NODES: u64 = 1024;

/// Used bytes, and bytes that the heap has of the kernel; `None` where this JVM does not tell.
pub(super) fn used_and_capacity(fields: Fields<'_>, collected: u64) -> (Option<u64>, Option<u64>) {
    // The generational one and, on JDK 21, the other one, whose names begin with X.
    let heap = |names: &[&str]| fields.place(collected, names);
    if let Some(heap) = heap(&["ZCollectedHeap::_heap"])
        && let Some(found) = of_allocator(fields, heap, 'Z')
    {
        return found;
    }
    let found = heap(&["XCollectedHeap::_heap"]).and_then(|heap| of_allocator(fields, heap, 'X'));
    found.unwrap_or_default()
}

fn of_allocator(fields: Fields<'_>, heap: u64, kind: char) -> Option<(Option<u64>, Option<u64>)> {
    let name = |field: &str| format!("{kind}{field}");
    let allocator = fields.place(heap, &[&name("Heap::_page_allocator")])?;
    if let Some(partitions) = fields.place(allocator, &["ZPageAllocator::_partitions"]) {
        return of_partitions(fields, partitions);
    }
    let used = fields.word(allocator, &[&name("PageAllocator::_used")]);
    Some((used, fields.word(allocator, &[&name("PageAllocator::_capacity")])))
}

/// One for each node, in an array that is pointed at.
fn of_partitions(fields: Fields<'_>, partitions: u64) -> Option<(Option<u64>, Option<u64>)> {
    let first = fields.word(partitions, &["ZPerNUMAZPartition::_addr"])?;
    let stride = fields.structs.size("ZPartition");
    let n_nodes = match (fields.global(&["ZNUMA::_count"]), stride) {
        (Some(n), Some(_)) => (n & 0xffff_ffff).clamp(1, MAX_NODES),
        _ => 1,
    };
    let (mut used, mut capacity) = (0_u64, 0_u64);
    for n in 0..n_nodes {
        let partition = first.wrapping_add(n * stride.unwrap_or(0));
        used = used.saturating_add(fields.word(partition, &["ZPartition::_used"])?);
        capacity = capacity.saturating_add(fields.word(partition, &["ZPartition::_capacity"])?);
    }
    Some((Some(used), Some(capacity)))
}
