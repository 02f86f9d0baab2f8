//! G1's regions.

use std::ops::Range;

use super::{fields::Fields, heap::Ages};

/// Regions of a heap: 4 TiB in regions of 4 MiB.
const MAX_REGIONS: u64 = 1 << 20;
/// Pointers that are read at once.
const BATCH: u64 = 1 << 13;

/// A region that is not free.
pub(super) struct Region {
    /// From its bottom to its top.
    used: Range<u64>,
    age: Age,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Age {
    Eden,
    Survivor,
    /// Old, humongous, or of the archive.
    Old,
}

/// The parts of all regions that hold objects.
pub(super) fn used(regions: &[Region]) -> Vec<Range<u64>> {
    regions.iter().map(|region| region.used.clone()).collect()
}

/// How old is what they hold.
pub(super) fn ages(fields: Fields<'_>, regions: &[Region]) -> Ages {
    let sum = |age| {
        let of_age = regions.iter().filter(|region| region.age == age);
        of_age.map(|region| region.used.end.saturating_sub(region.used.start)).sum()
    };
    Ages {
        eden_bytes: sum(Age::Eden),
        survivor_bytes: sum(Age::Survivor),
        old_bytes: sum(Age::Old),
        region_bytes: fields.global(&["G1HeapRegion::GrainBytes", "HeapRegion::GrainBytes"]),
    }
}

/// All regions that are not free, whose tops would mean nothing.
pub(super) fn regions(fields: Fields<'_>, heap: u64) -> Option<Vec<Region>> {
    let manager = fields.place(heap, &["G1CollectedHeap::_hrm"])?;
    let table =
        fields.place(manager, &["G1HeapRegionManager::_regions", "HeapRegionManager::_regions"])?;
    let base = fields.word(table, &["G1HeapRegionTable::_base"])?;
    let n_regions = fields.word(table, &["G1HeapRegionTable::_length"])?.min(MAX_REGIONS);
    let constant = |name: &str| {
        let names = [format!("G1HeapRegionType::{name}"), format!("HeapRegionType::{name}")];
        names.iter().find_map(|name| fields.structs.constant(name))
    };
    let tags = Tags {
        free: constant("FreeTag").unwrap_or(0),
        eden: constant("EdenTag"),
        survivor: constant("SurvTag"),
    };
    let mut parts = Vec::new();
    for first in (0..n_regions).step_by(BATCH as usize) {
        let n = (n_regions - first).min(BATCH);
        let regions = fields.words(base.wrapping_add(8 * first), n as usize)?;
        // A region that was never used has no description.
        let used = regions.into_iter().filter(|&region| region != 0);
        parts.extend(used.filter_map(|region| one(fields, region, &tags)));
    }
    Some(parts)
}

/// What types of regions this JVM has.
struct Tags {
    free: u64,
    eden: Option<u64>,
    survivor: Option<u64>,
}

fn one(fields: Fields<'_>, region: u64, tags: &Tags) -> Option<Region> {
    let kind = fields.place(region, &["G1HeapRegion::_type", "HeapRegion::_type"])?;
    let tag = fields.half(kind, &["G1HeapRegionType::_tag", "HeapRegionType::_tag"])?;
    let age = match Some(u64::from(tag)) {
        tag if tag == Some(tags.free) => return None,
        tag if tag == tags.eden => Age::Eden,
        tag if tag == tags.survivor => Age::Survivor,
        _ => Age::Old,
    };
    let bottom = ["G1HeapRegion::_bottom", "HeapRegion::_bottom", "Space::_bottom"];
    let top = ["G1HeapRegion::_top", "HeapRegion::_top", "G1ContiguousSpace::_top"];
    Some(Region { used: fields.word(region, &bottom)?..fields.word(region, &top)?, age })
}
