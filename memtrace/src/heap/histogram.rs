//! Instances and bytes by class, from one look at every object.

use super::{
    classes::{ClassNumber, Classes},
    records::{NoDump, Records},
    scan::{Part, scan},
    sizes::{HeapLayout, Sizes},
    tally::Tally,
};

/// What the file is, and what of it could be read.
#[derive(Clone, Debug)]
pub struct DumpFacts {
    /// Such as `1.0.2`.
    pub format: String,
    /// Bytes of an identifier.
    pub id_bytes: usize,
    /// Bytes of the file.
    pub bytes: u64,
    /// Whether the file ends before the dump does.
    pub is_truncated: bool,
    /// Bytes behind something that can't be.
    pub unreadable_bytes: u64,
    /// How many dumps the file holds; the last one is read.
    pub n_dumps: u32,
    /// How objects lie in the heap.
    pub layout: HeapLayout,
}

/// A class and its instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistogramRow {
    /// The class's name.
    pub class: String,
    /// How many classes of this name there are.
    pub n_classes: u64,
    /// How many instances.
    pub n: u64,
    /// Bytes that they take.
    pub shallow_bytes: u64,
    /// Bytes that would go with all of them, where that was found out.
    pub retained_bytes: Option<u64>,
}

/// All classes with their instances.
#[derive(Clone, Debug)]
pub struct Histogram {
    /// What was read.
    pub facts: DumpFacts,
    /// The most bytes first.
    pub rows: Vec<HistogramRow>,
}

impl Histogram {
    /// Reads a dump.
    ///
    /// # Errors
    ///
    /// Where it is none.
    pub fn read(dump: &[u8]) -> Result<Self, NoDump> {
        let records = Records::read(dump)?;
        let (parts, tally) = scan(dump, &records, false);
        let classes = classes(dump, &records, &parts, &tally);
        let sizes = Sizes::infer(&tally, &classes, records.id_bytes);
        Ok(Self { facts: facts(dump, &records, &parts, &sizes), rows: rows(&classes, &sizes) })
    }
}

/// The classes of a dump, and those that its instances say that they are of.
pub(super) fn classes(dump: &[u8], records: &Records, parts: &[Part], tally: &Tally) -> Classes {
    let places: Vec<usize> = parts.iter().flat_map(|part| part.classes.iter().copied()).collect();
    let mut classes = Classes::read(dump, records, &places);
    let ids: Vec<u64> = tally.by_class().map(|(id, _)| id).collect();
    classes.add_missing(dump, records, &ids);
    classes
}

pub(super) fn facts(dump: &[u8], records: &Records, parts: &[Part], sizes: &Sizes) -> DumpFacts {
    let unread = (dump.len() - records.bytes_read) as u64;
    DumpFacts {
        format: records.version.clone(),
        id_bytes: records.id_bytes,
        bytes: dump.len() as u64,
        is_truncated: records.is_truncated,
        unreadable_bytes: unread + parts.iter().map(|part| part.unreadable_bytes).sum::<u64>(),
        n_dumps: records.n_dumps.max(1),
        layout: sizes.layout,
    }
}

/// A row for each name that has instances, the most bytes first.
pub(super) fn rows(classes: &Classes, sizes: &Sizes) -> Vec<HistogramRow> {
    let mut rows = rows_of(classes, sizes, 0..classes.len() as ClassNumber);
    rows.retain(|row| row.n > 0);
    rows.sort_by(|a, b| b.shallow_bytes.cmp(&a.shallow_bytes).then(a.class.cmp(&b.class)));
    rows
}

/// A row for each name.
pub(super) fn rows_of(
    classes: &Classes,
    sizes: &Sizes,
    numbers: impl Iterator<Item = ClassNumber>,
) -> Vec<HistogramRow> {
    let mut by_name: Vec<(&str, u64, u64, u64)> = numbers
        .map(|number| {
            let (n, bytes) = sizes.sums[number as usize];
            (classes.name(number), 1, n, bytes)
        })
        .collect();
    by_name.sort_unstable();
    by_name.dedup_by(|next, kept| {
        let is_same = next.0 == kept.0;
        if is_same {
            (kept.1, kept.2) = (kept.1 + next.1, kept.2 + next.2);
            kept.3 = kept.3.saturating_add(next.3);
        }
        is_same
    });
    let row = |&(class, n_classes, n, shallow_bytes): &(&str, u64, u64, u64)| HistogramRow {
        class: class.to_owned(),
        n_classes,
        n,
        shallow_bytes,
        retained_bytes: None,
    };
    by_name.iter().map(row).collect()
}
