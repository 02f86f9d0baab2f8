//! From labelled ranges and resident pages to rows.
//!
//! In: disjoint labels and the page tables' word. Out: rows that add up to it, page by page: what no label covers is
//! [`RowKind::Unexplained`]. Of a file that is mapped several times as a Java heap each page counts once as heap, and
//! again as a view.

use std::{collections::BTreeMap, ops::Range};

use super::{
    Bytes, Kind, Resident,
    labels::Labels,
    snapshot::{Row, RowKind},
};

/// What a range of addresses is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Label {
    /// A row of its own.
    Row(RowKind),
    /// A view of the file that ZGC keeps its heap in, and what has to be added to an address to get the offset there.
    HeapView(u64),
    /// Memory of an allocator whose pages are told apart by what lies in them.
    Malloc,
}

/// Sums up what is resident by label; the rows with something in them.
///
/// Of the allocator's memory `malloc` tells how much belongs to which row; the rest is in use. Of ZGC's heap `z_used_bytes` are used, where the JVM tells.
pub(super) fn sum(
    resident: &Resident,
    labels: &Labels<Label>,
    malloc: &[(RowKind, u64)],
    z_used_bytes: Option<u64>,
) -> Vec<Row> {
    let mut sums = Sums::default();
    let mut views = Views::default();
    let mut malloc_bytes = Bytes::default();
    for (range, label) in labels.iter() {
        match label {
            Label::Row(kind) => sums.add(kind, resident.bytes_in(range)),
            Label::Malloc => add(&mut malloc_bytes, resident.bytes_in(range)),
            Label::HeapView(to_offset) => views.add(resident, range, to_offset),
        }
    }
    sums.add_malloc(malloc_bytes, malloc);
    let (view_bytes, again) = views.once_and_again();
    let used = z_used_bytes.map_or(view_bytes, |used| used.min(view_bytes));
    sums.add(RowKind::JavaHeapUsed, file(used));
    sums.add(RowKind::JavaHeapUnused, file(view_bytes - used));
    sums.add(RowKind::JavaHeapViews, file(again));
    sums.add(RowKind::JavaHeapUnused, Bytes { swapped: views.swapped, ..Bytes::default() });
    sums.add_rest(resident.total());
    sums.rows()
}

fn file(bytes: u64) -> Bytes {
    Bytes { file: bytes, ..Bytes::default() }
}

fn add(sum: &mut Bytes, bytes: Bytes) {
    sum.anonymous += bytes.anonymous;
    sum.file += bytes.file;
    sum.swapped += bytes.swapped;
    sum.hugetlb += bytes.hugetlb;
}

#[derive(Debug, Default)]
struct Sums(BTreeMap<RowKind, (u64, u64)>);

impl Sums {
    fn add(&mut self, kind: RowKind, bytes: Bytes) {
        let (resident, swapped) = self.0.entry(kind).or_default();
        *resident += bytes.resident();
        *swapped += bytes.swapped;
    }

    /// What is resident of the allocator's memory, in parts; what these leave is in use. They are of a moment later, so
    /// each is cut to what there is.
    fn add_malloc(&mut self, bytes: Bytes, parts: &[(RowKind, u64)]) {
        let mut left = bytes.resident();
        for &(kind, part) in parts {
            let part = part.min(left);
            left -= part;
            self.add(kind, Bytes { anonymous: part, ..Bytes::default() });
        }
        let swapped = bytes.swapped;
        self.add(RowKind::MallocLive, Bytes { anonymous: left, swapped, ..Bytes::default() });
    }

    /// What no label covers.
    fn add_rest(&mut self, total: Bytes) {
        let resident: u64 = self.0.values().map(|row| row.0).sum();
        let swapped: u64 = self.0.values().map(|row| row.1).sum();
        let rest = Bytes {
            anonymous: total.resident().saturating_sub(resident),
            swapped: total.swapped.saturating_sub(swapped),
            ..Bytes::default()
        };
        self.add(RowKind::Unexplained, rest);
    }

    fn rows(self) -> Vec<Row> {
        let rows =
            RowKind::ALL.into_iter().filter_map(|kind| {
                let &(resident_bytes, swap_bytes) = self.0.get(&kind)?;
                (resident_bytes > 0 || swap_bytes > 0 || kind == RowKind::Unexplained)
                    .then_some(Row { kind, resident_bytes, swap_bytes })
            });
        rows.collect()
    }
}

/// Pages of one file, seen in several places.
#[derive(Debug, Default)]
struct Views {
    /// Offsets in the file that are resident, of all views.
    offsets: Vec<Range<u64>>,
    swapped: u64,
}

impl Views {
    fn add(&mut self, resident: &Resident, range: Range<u64>, to_offset: u64) {
        for run in resident.runs_in(range) {
            match run.kind {
                Kind::Anonymous | Kind::File => {
                    let start = run.start.wrapping_add(to_offset);
                    self.offsets.push(start..start.wrapping_add(run.end - run.start));
                }
                Kind::Swapped => self.swapped += run.end - run.start,
                Kind::Hugetlb => {}
            }
        }
    }

    /// Bytes of the file that are resident somewhere, and what all views together have beyond that.
    fn once_and_again(&mut self) -> (u64, u64) {
        self.offsets.sort_unstable_by_key(|range| range.start);
        let (mut once, mut all, mut end) = (0, 0, 0);
        for range in &self.offsets {
            all += range.end.saturating_sub(range.start);
            let start = range.start.max(end);
            once += range.end.saturating_sub(start);
            end = end.max(range.end);
        }
        (once, all - once)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Run;
    use super::*;

    const P: u64 = 4096;

    fn run(start: u64, end: u64, kind: Kind) -> Run {
        Run { start: start * P, end: end * P, kind }
    }

    fn bytes_of(rows: &[Row], kind: RowKind) -> (u64, u64) {
        rows.iter()
            .find(|row| row.kind == kind)
            .map_or((0, 0), |row| (row.resident_bytes / P, row.swap_bytes / P))
    }

    /// Pages are cut at borders, swap stands beside, what has no label is unexplained, hugetlb is none of it.
    #[test]
    fn sums_by_label() {
        let resident = Resident::of_runs(&[
            run(10, 30, Kind::Anonymous),
            run(30, 34, Kind::Swapped),
            run(40, 45, Kind::File),
            run(50, 60, Kind::Hugetlb),
        ]);
        let mut labels = Labels::new();
        labels.add(5 * P..15 * P, Label::Row(RowKind::Metaspace));
        labels.add(20 * P..32 * P, Label::Row(RowKind::Gc));
        labels.add(40 * P..60 * P, Label::Row(RowKind::File));
        let rows = sum(&resident, &labels, &[], None);
        for (kind, want) in [
            (RowKind::Metaspace, (5, 0)),
            (RowKind::Gc, (10, 2)),
            (RowKind::File, (5, 0)),
            (RowKind::Unexplained, (5, 2)),
            (RowKind::MallocLive, (0, 0)),
        ] {
            assert_eq!(bytes_of(&rows, kind), want, "{kind:?}");
        }
        let sum: u64 = rows.iter().map(|row| row.resident_bytes).sum();
        assert_eq!(sum, resident.total().resident());
    }

    /// The allocator's parts never make more than there is.
    #[test]
    fn parts_of_the_allocator() {
        let resident = Resident::of_runs(&[run(10, 20, Kind::Anonymous)]);
        let mut labels = Labels::new();
        labels.add(10 * P..20 * P, Label::Malloc);
        // (returnable, kept, fragments) and what is shown, with what is live
        let cases =
            [((2, 3, 1), (2, 3, 1, 4)), ((8, 3, 1), (8, 2, 0, 0)), ((0, 0, 0), (0, 0, 0, 10))];
        for ((returnable, kept, fragments), want) in cases {
            let parts = [
                (RowKind::MallocReturnable, returnable * P),
                (RowKind::MallocKept, kept * P),
                (RowKind::MallocFragments, fragments * P),
            ];
            let rows = sum(&resident, &labels, &parts, None);
            let pages = |kind| bytes_of(&rows, kind).0;
            let found = (
                pages(RowKind::MallocReturnable),
                pages(RowKind::MallocKept),
                pages(RowKind::MallocFragments),
                pages(RowKind::MallocLive),
            );
            assert_eq!(found, want);
        }
    }

    /// Three views of one file: each page is heap once, and a view each further time.
    #[test]
    fn views_of_a_heap() {
        let resident = Resident::of_runs(&[
            run(100, 110, Kind::File),
            run(205, 220, Kind::File),
            run(330, 331, Kind::File),
        ]);
        let mut labels = Labels::new();
        for view in [100, 200, 300] {
            labels.add(view * P..(view + 50) * P, Label::HeapView((view * P).wrapping_neg()));
        }
        // Pages 0 to 9, 5 to 19, 30: 21 of them, 5 seen twice.
        let rows = sum(&resident, &labels, &[], Some(8 * P));
        let pages = |kind| bytes_of(&rows, kind).0;
        assert_eq!(pages(RowKind::JavaHeapUsed), 8);
        assert_eq!(pages(RowKind::JavaHeapUnused), 13);
        assert_eq!(pages(RowKind::JavaHeapViews), 5);
        assert_eq!(pages(RowKind::Unexplained), 0);
    }
}
