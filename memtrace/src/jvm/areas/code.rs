//! The heaps of the code cache, and the maps of their segments.

use std::ops::Range;

use super::{super::code_cache::CodeCacheLayout, fields::Fields};

/// Where code is, and what tells its blocks apart.
pub(super) fn ranges(fields: Fields<'_>) -> Option<Vec<Range<u64>>> {
    let layout = CodeCacheLayout::of(fields.structs).ok()?;
    let heaps = layout.heaps(fields.memory).ok()?;
    Some(heaps.iter().flat_map(|heap| [heap.low..heap.end, heap.segment_map_range()]).collect())
}
