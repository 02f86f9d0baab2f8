//! How full ZGC's heap is. Where it is, the map tells: it is a file of its own.

use super::fields::Fields;

/// Nodes of the machine that a heap is divided among.
const MAX_NODES: u64 = 1024;

/// Used bytes, and bytes that the heap has of the kernel; `None` where this JVM does not tell.
pub(super) fn used_and_capacity(fields: Fields<'_>, collected: u64) -> (Option<u64>, Option<u64>) {
    // JDK 21 has two: one with generations, and one without, whose names begin with X. What is in use has set itself up.
    let is_x = fields.global(&["XGlobalsForVMStructs::_instance_p"]).is_some_and(|it| it != 0);
    let (kind, field) =
        if is_x { ('X', "XCollectedHeap::_heap") } else { ('Z', "ZCollectedHeap::_heap") };
    let heap = fields.place(collected, &[field]);
    heap.and_then(|heap| of_allocator(fields, heap, kind)).unwrap_or_default()
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
