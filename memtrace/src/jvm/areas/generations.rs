//! The spaces of the Serial and the Parallel collector.

use std::ops::Range;

use super::{fields::Fields, heap::Ages};

/// The parts of Serial's spaces that hold objects.
pub(super) fn used_serial(fields: Fields<'_>, heap: u64) -> Option<Vec<Range<u64>>> {
    let young = fields.word(heap, &["SerialHeap::_young_gen", "GenCollectedHeap::_young_gen"])?;
    let old = fields.word(heap, &["SerialHeap::_old_gen", "GenCollectedHeap::_old_gen"])?;
    let mut parts = Vec::new();
    for space in [
        "DefNewGeneration::_eden_space",
        "DefNewGeneration::_from_space",
        "DefNewGeneration::_to_space",
    ] {
        parts.push(contiguous(fields, fields.word(young, &[space])?)?);
    }
    parts.push(contiguous(fields, fields.word(old, &["TenuredGeneration::_the_space"])?)?);
    Some(parts)
}

/// The parts of Parallel's spaces that hold objects.
pub(super) fn used_parallel(fields: Fields<'_>, _heap: u64) -> Option<Vec<Range<u64>>> {
    let young = fields.global(&["ParallelScavengeHeap::_young_gen"])?;
    let old = fields.global(&["ParallelScavengeHeap::_old_gen"])?;
    let mut parts = Vec::new();
    for space in ["PSYoungGen::_eden_space", "PSYoungGen::_from_space", "PSYoungGen::_to_space"] {
        parts.push(mutable(fields, fields.word(young, &[space])?)?);
    }
    parts.push(mutable(fields, fields.word(old, &["PSOldGen::_object_space"])?)?);
    Some(parts)
}

/// How old is what lies in `parts`: eden, two survivor spaces and the old generation.
pub(super) fn ages(parts: &[Range<u64>]) -> Option<Ages> {
    let [eden, from, to, old] = parts else { return None };
    let bytes = |part: &Range<u64>| part.end.saturating_sub(part.start);
    Some(Ages {
        eden_bytes: bytes(eden),
        survivor_bytes: bytes(from).saturating_add(bytes(to)),
        old_bytes: bytes(old),
        region_bytes: None,
    })
}

fn contiguous(fields: Fields<'_>, space: u64) -> Option<Range<u64>> {
    let bottom = fields.word(space, &["ContiguousSpace::_bottom", "Space::_bottom"])?;
    Some(bottom..fields.word(space, &["ContiguousSpace::_top"])?)
}

fn mutable(fields: Fields<'_>, space: u64) -> Option<Range<u64>> {
    let bottom = fields.word(space, &["MutableSpace::_bottom", "ImmutableSpace::_bottom"])?;
    Some(bottom..fields.word(space, &["MutableSpace::_top"])?)
}
