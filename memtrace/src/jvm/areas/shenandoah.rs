//! Shenandoah's regions.

use std::ops::Range;

use super::fields::Fields;

/// Regions of a heap.
const MAX_REGIONS: u64 = 1 << 20;
/// Bytes from one description of a region to the next.
const MAX_STRIDE: u64 = 4096;

/// The parts of all regions that hold objects; JDK 11 does not tell where they are.
pub(super) fn used(fields: Fields<'_>, heap: u64) -> Option<Vec<Range<u64>>> {
    let regions = regions(fields, heap)?;
    let without_objects = [
        "ShenandoahHeapRegion::_empty_uncommitted",
        "ShenandoahHeapRegion::_empty_committed",
        "ShenandoahHeapRegion::_trash",
    ];
    let without_objects: Vec<u64> =
        without_objects.iter().filter_map(|name| fields.structs.constant(name)).collect();
    Some(regions.into_iter().filter_map(|region| part(fields, region, &without_objects)).collect())
}

/// How many bytes of the heap's `reserved` ones hold objects.
pub(super) fn used_bytes(fields: Fields<'_>, heap: u64, reserved: &Range<u64>) -> Option<u64> {
    let used = fields.word(heap, &["ShenandoahHeap::_used"])?;
    (used <= reserved.end - reserved.start).then_some(used)
}

/// Where the descriptions of all regions lie: since JDK 17 one behind the other, in memory of their own.
pub(super) fn region_table(fields: Fields<'_>, heap: u64) -> Option<Range<u64>> {
    let regions = regions(fields, heap)?;
    let (first, second) = (*regions.first()?, *regions.get(1)?);
    let stride = second.checked_sub(first).filter(|stride| (1..=MAX_STRIDE).contains(stride))?;
    let is_in_place = |(n, region)| first.checked_add(n * stride) == Some(region);
    if !(0..).zip(regions.iter().copied()).all(is_in_place) {
        return None;
    }
    Some(first..first.checked_add(stride.checked_mul(regions.len() as u64)?)?)
}

fn regions(fields: Fields<'_>, heap: u64) -> Option<Vec<u64>> {
    let n_regions = fields.word(heap, &["ShenandoahHeap::_num_regions"])?.min(MAX_REGIONS);
    let regions = fields.word(heap, &["ShenandoahHeap::_regions"])?;
    fields.words(regions, n_regions as usize)
}

fn part(fields: Fields<'_>, region: u64, without_objects: &[u64]) -> Option<Range<u64>> {
    let state = fields.half(region, &["ShenandoahHeapRegion::_state"])?;
    if without_objects.contains(&u64::from(state)) {
        return None;
    }
    let bottom = fields.word(region, &["ShenandoahHeapRegion::_bottom"])?;
    Some(bottom..fields.word(region, &["ShenandoahHeapRegion::_top"])?)
}
