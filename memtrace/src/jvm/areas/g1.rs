//! G1's regions.

use std::ops::Range;

use super::fields::Fields;

/// Regions of a heap: 4 TiB in regions of 4 MiB.
const MAX_REGIONS: u64 = 1 << 20;
/// Pointers that are read at once.
const BATCH: u64 = 1 << 13;

/// The parts of all regions that hold objects.
pub(super) fn used(fields: Fields<'_>, heap: u64) -> Option<Vec<Range<u64>>> {
    let manager = fields.place(heap, &["G1CollectedHeap::_hrm"])?;
    let table =
        fields.place(manager, &["G1HeapRegionManager::_regions", "HeapRegionManager::_regions"])?;
    let base = fields.word(table, &["G1HeapRegionTable::_base"])?;
    let n_regions = fields.word(table, &["G1HeapRegionTable::_length"])?.min(MAX_REGIONS);
    let free = ["G1HeapRegionType::FreeTag", "HeapRegionType::FreeTag"];
    let free = free.iter().find_map(|name| fields.structs.constant(name)).unwrap_or(0);
    let mut parts = Vec::new();
    for first in (0..n_regions).step_by(BATCH as usize) {
        let n = (n_regions - first).min(BATCH);
        let regions = fields.words(base.wrapping_add(8 * first), n as usize)?;
        // A region that was never used has no description.
        let used = regions.into_iter().filter(|&region| region != 0);
        parts.extend(used.filter_map(|region| part(fields, region, free)));
    }
    Some(parts)
}

/// From a region's bottom to its top; nothing of a free one, whose top means nothing.
fn part(fields: Fields<'_>, region: u64, free: u64) -> Option<Range<u64>> {
    let kind = fields.place(region, &["G1HeapRegion::_type", "HeapRegion::_type"])?;
    let tag = fields.half(kind, &["G1HeapRegionType::_tag", "HeapRegionType::_tag"])?;
    if u64::from(tag) == free {
        return None;
    }
    let bottom = ["G1HeapRegion::_bottom", "HeapRegion::_bottom", "Space::_bottom"];
    let top = ["G1HeapRegion::_top", "HeapRegion::_top", "G1ContiguousSpace::_top"];
    Some(fields.word(region, &bottom)?..fields.word(region, &top)?)
}
