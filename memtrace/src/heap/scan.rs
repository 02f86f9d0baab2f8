//! The first look at every object: how many there are of each class, and where.
//!
//! In: the segments of a dump. Out: parts of about the same size, in the order of the file, with what was counted in each.
//! Parts are independent of each other, so that each processor can take the next one.

use std::sync::{Mutex, PoisonError};

use super::{
    bytes::Bytes,
    objects::{Entry, Root, entry},
    parallel::in_parallel,
    records::{Records, Segment},
    tally::Tally,
};

/// What one processor takes at a time.
const PART_BYTES: usize = 8 << 20;
/// Of so many objects the place of one is kept; the others are found from there.
pub(super) const SAMPLE_EVERY: usize = 64;

/// A part of the dump, cut between objects.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) ranges: Vec<Segment>,
    pub(super) n_objects: usize,
    /// Elements of all arrays of references.
    pub(super) n_elements: u64,
    /// Where the objects 0, 64, 128... of the part begin.
    pub(super) samples: Vec<usize>,
    /// Their identifiers, where these were asked for.
    pub(super) ids: Vec<u64>,
    pub(super) roots: Vec<Root>,
    pub(super) classes: Vec<usize>,
    tally: Tally,
    /// Bytes behind something that can't be.
    pub(super) unreadable_bytes: u64,
}

/// Looks at every object.
pub(super) fn scan(dump: &[u8], records: &Records, keeps_ids: bool) -> (Vec<Part>, Tally) {
    let units = units(&records.segments);
    let sum = Mutex::new(Tally::default());
    let scanned = in_parallel(units.len(), |unit| {
        let segments = &records.segments[units[unit].clone()];
        let mut parts = scan_unit(dump, segments, records.id_bytes, keeps_ids);
        let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
        parts.iter_mut().for_each(|part| sum.add(&std::mem::take(&mut part.tally)));
        parts
    });
    let sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    (scanned.into_iter().flatten().collect(), sum)
}

/// Segments that are scanned together.
fn units(segments: &[Segment]) -> Vec<std::ops::Range<usize>> {
    let mut units = Vec::new();
    let mut begin = 0;
    let mut n_bytes = 0;
    for (at, segment) in segments.iter().enumerate() {
        n_bytes += segment.end - segment.at;
        if n_bytes >= PART_BYTES || at + 1 == segments.len() {
            units.push(begin..at + 1);
            (begin, n_bytes) = (at + 1, 0);
        }
    }
    units
}

fn scan_unit(dump: &[u8], segments: &[Segment], id_bytes: usize, keeps_ids: bool) -> Vec<Part> {
    let mut parts = vec![Part::default()];
    for &Segment { mut at, end } in segments {
        let mut bytes = Bytes::new(dump, at, end, id_bytes);
        // A whole dump may be one segment.
        while let Some(part) = parts.last_mut() {
            let whole = part.scan(&mut bytes, at, keeps_ids);
            part.ranges.push(Segment { at, end: bytes.at() });
            if whole {
                break;
            }
            at = bytes.at();
            parts.push(Part::default());
        }
    }
    parts
}

impl Part {
    /// Goes on until the end (`true`), or until the part is large enough.
    fn scan(&mut self, bytes: &mut Bytes<'_>, begin: usize, keeps_ids: bool) -> bool {
        let enough = begin.saturating_add(2 * PART_BYTES);
        loop {
            let at = bytes.at();
            if at >= enough && !bytes.is_at_end() {
                return false;
            }
            let Some(entry) = entry(bytes) else {
                self.unreadable_bytes += bytes.skip_rest(at) as u64;
                return true;
            };
            let id = match entry {
                Entry::Root(root) => {
                    self.roots.push(root);
                    continue;
                }
                Entry::Class(place) => {
                    self.classes.push(place);
                    continue;
                }
                Entry::Instance { id, class, .. } => {
                    self.tally.instance(id, class);
                    id
                }
                Entry::Objects { id, class, elements } => {
                    let n = elements.len() / bytes.id_bytes();
                    self.n_elements += n as u64;
                    self.tally.objects(id, class, n as u64);
                    id
                }
                Entry::Primitives { id, kind, elements } => {
                    self.tally.primitives(id, kind, elements.len() as u64);
                    id
                }
            };
            if self.n_objects.is_multiple_of(SAMPLE_EVERY) {
                self.samples.push(at);
            }
            if keeps_ids {
                self.ids.push(id);
            }
            self.n_objects += 1;
        }
    }
}
