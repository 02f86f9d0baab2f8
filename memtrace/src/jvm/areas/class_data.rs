//! The archive of classes (CDS): mapped from a file, or copied to where there was room.

use std::ops::Range;

use super::fields::Fields;
use crate::target::maps::Mapping;

/// More than any archive.
const MAX_BYTES: u64 = 4 << 30;

/// Where it is.
pub(super) fn ranges(fields: Fields<'_>, maps: &[Mapping]) -> Vec<Range<u64>> {
    let mapped = maps.iter().filter(|mapping| mapping.inode != 0 && is_archive(mapping));
    let mut found: Vec<Range<u64>> = mapped.map(|mapping| mapping.start..mapping.end).collect();
    let start = fields.global(&["MetaspaceObj::_shared_metaspace_base"]).unwrap_or(0);
    let top = fields.global(&["MetaspaceObj::_shared_metaspace_top"]).unwrap_or(0);
    if start != 0 && start < top && top - start <= MAX_BYTES {
        found.push(start..top);
    }
    found
}

fn is_archive(mapping: &Mapping) -> bool {
    let name = mapping.file_name();
    name.strip_suffix(" (deleted)").unwrap_or(&name).ends_with(".jsa")
}
