//! Shenandoah's regions.

use std::ops::Range;

use super::fields::Fields;

/// Regions of a heap.
const MAX_REGIONS: u64 = 1 << 20;

/// The parts of all regions that hold objects; JDK 11 does not tell where they are.
pub(super) fn used(fields: Fields<'_>, heap: u64) -> Option<Vec<Range<u64>>> {
    let n_regions = fields.word(heap, &["ShenandoahHeap::_num_regions"])?.min(MAX_REGIONS);
    let regions = fields.word(heap, &["ShenandoahHeap::_regions"])?;
    let regions = fields.words(regions, n_regions as usize)?;
    let without_objects = [
        "ShenandoahHeapRegion::_empty_uncommitted",
        "ShenandoahHeapRegion::_empty_committed",
        "ShenandoahHeapRegion::_trash",
    ];
    let without_objects: Vec<u64> =
        without_objects.iter().filter_map(|name| fields.structs.constant(name)).collect();
    Some(regions.into_iter().filter_map(|region| part(fields, region, &without_objects)).collect())
}

fn part(fields: Fields<'_>, region: u64, without_objects: &[u64]) -> Option<Range<u64>> {
    let state = fields.half(region, &["ShenandoahHeapRegion::_state"])?;
    if without_objects.contains(&u64::from(state)) {
        return None;
    }
    let bottom = fields.word(region, &["ShenandoahHeapRegion::_bottom"])?;
    Some(bottom..fields.word(region, &["ShenandoahHeapRegion::_top"])?)
}
