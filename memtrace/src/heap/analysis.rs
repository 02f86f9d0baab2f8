//! Everything that is told of a dump at once.

use rustc_hash::FxHashMap;

use super::{
    dominators::Dominators,
    graph::Heap,
    histogram::{DumpFacts, HistogramRow, rows, rows_of},
    loaders::{self, LoaderReport},
    records::NoDump,
    retained::{NO_GROUP, by_group},
};

/// Sums over the whole dump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Objects, without classes.
    pub n_objects: u64,
    /// Classes.
    pub n_classes: u64,
    /// Class loaders that are reached.
    pub n_loaders: u64,
    /// Bytes of all objects.
    pub shallow_bytes: u64,
    /// Roots.
    pub n_roots: u64,
    /// Objects that no root reaches, though the dump has them; `None` where dominators are left out.
    pub unreached: Option<Unreached>,
}

/// Objects that no root reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unreached {
    /// How many.
    pub n: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// How much is to be found out.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Memory that may be taken, the dump itself apart: where it is too little for dominators, these are left out.
    pub max_bytes: u64,
    /// Whether what the objects of each class retain together is.
    pub retained_by_class: bool,
}

/// What was found in a dump.
#[derive(Clone, Debug)]
pub struct Analysis {
    /// What was read.
    pub facts: DumpFacts,
    /// Sums.
    pub totals: Totals,
    /// By class, the most bytes first.
    pub histogram: Vec<HistogramRow>,
    /// Class loaders, and those of them that should be gone.
    pub loaders: LoaderReport,
    /// Classes that several class loaders have defined, those of the most copies first.
    pub duplicated: Vec<HistogramRow>,
    /// Who retains the most; `None` where there was no room to find out.
    pub dominators: Option<Vec<Dominator>>,
}

/// An object that alone keeps others.
#[derive(Clone, Debug)]
pub struct Dominator {
    /// Its class, or the class that it is.
    pub class: String,
    /// Whether it is a class.
    pub is_class: bool,
    /// What it is called, where it is a thread.
    pub label: Option<String>,
    /// Its identifier.
    pub id: u64,
    /// Its own bytes.
    pub shallow_bytes: u64,
    /// Bytes that would go with it.
    pub retained_bytes: u64,
}

/// What an object takes at the most while dominators are found: as measured, of a heap with two references an object.
const DOMINATORS_BYTES: u64 = 42;
/// Dominators that are told of.
const MAX_DOMINATORS: usize = 1000;

impl Analysis {
    /// Reads a dump.
    ///
    /// # Errors
    ///
    /// Where it is none.
    pub fn read(dump: &[u8]) -> Result<Self, NoDump> {
        Self::read_as(dump, Wanted { max_bytes: u64::MAX, retained_by_class: true })
    }

    /// The same as far as it is wanted.
    ///
    /// # Errors
    ///
    /// Where it is no dump, or memory is too little for all but a [`Histogram`](super::Histogram).
    pub fn read_as(dump: &[u8], wanted: Wanted) -> Result<Self, NoDump> {
        let max_bytes = wanted.max_bytes;
        let (heap, edges) = Heap::read_within(dump, max_bytes)?;
        let mut histogram = rows(&heap.classes, &heap.sizes);
        let loaders = loaders::report(&heap, &edges);
        let mut totals = totals(&heap, &histogram, loaders.all.len());
        let is_room = heap.n_objects() as u64 * DOMINATORS_BYTES <= max_bytes;
        let dominators = is_room.then(|| Dominators::new(edges, |node| heap.bytes(node)));
        totals.unreached = dominators.as_ref().map(|found| unreached(&heap, &totals, found));
        if let Some(found) = dominators.as_ref().filter(|_| wanted.retained_by_class) {
            add_retained(&heap, found, &mut histogram);
        }
        let dominators = dominators.map(|found| biggest(&heap, &found));
        let duplicated = duplicated(&heap);
        Ok(Self { facts: heap.facts, totals, histogram, loaders, duplicated, dominators })
    }
}

fn unreached(heap: &Heap<'_>, totals: &Totals, found: &Dominators) -> Unreached {
    let alive = found.retained.first().copied().unwrap_or_default();
    let is_object = |node: &&u32| heap.as_class(**node).is_none();
    let n_reached = found.vertex.iter().skip(1).filter(is_object).count() as u64;
    Unreached { n: totals.n_objects - n_reached, bytes: totals.shallow_bytes.saturating_sub(alive) }
}

/// Adds to each row what its objects retain together.
fn add_retained(heap: &Heap<'_>, found: &Dominators, rows: &mut [HistogramRow]) {
    let by_name: FxHashMap<&str, u32> =
        rows.iter().map(|row| row.class.as_str()).zip(0..).collect();
    let group_of: Vec<u32> = (0..heap.classes.len() as u32)
        .map(|class| by_name.get(heap.classes.name(class)).copied().unwrap_or(NO_GROUP))
        .collect();
    let group = |node| heap.class_of(node).map_or(NO_GROUP, |class| group_of[class as usize]);
    let sums = by_group(found, rows.len(), group);
    drop(by_name);
    for (row, sum) in rows.iter_mut().zip(sums) {
        row.retained_bytes = Some(sum);
    }
}

fn totals(heap: &Heap<'_>, histogram: &[HistogramRow], n_loaders: usize) -> Totals {
    Totals {
        n_objects: heap.n_objects() as u64,
        n_classes: heap.classes.numbers().count() as u64,
        n_loaders: n_loaders as u64,
        shallow_bytes: histogram.iter().map(|row| row.shallow_bytes).sum(),
        n_roots: heap.roots.len() as u64,
        ..Totals::default()
    }
}

/// Classes of one name that several class loaders have defined, but for hidden classes and arrays.
fn duplicated(heap: &Heap<'_>) -> Vec<HistogramRow> {
    let numbers = heap.classes.numbers().filter(|&number| !heap.classes.get(number).is_array);
    let mut rows = rows_of(&heap.classes, &heap.sizes, numbers);
    rows.retain(|row| row.n_classes > 1 && !row.class.contains("$$"));
    rows.sort_by(|a, b| {
        (b.n_classes, b.shallow_bytes, &a.class).cmp(&(a.n_classes, a.shallow_bytes, &b.class))
    });
    rows
}

/// The largest of those that no single object keeps.
fn biggest(heap: &Heap<'_>, dominators: &Dominators) -> Vec<Dominator> {
    let mut places: Vec<usize> =
        (1..dominators.vertex.len()).filter(|&at| dominators.idom[at] == 0).collect();
    let by_bytes = |&at: &usize| std::cmp::Reverse(dominators.retained[at]);
    if places.len() > MAX_DOMINATORS {
        places.select_nth_unstable_by_key(MAX_DOMINATORS, by_bytes);
        places.truncate(MAX_DOMINATORS);
    }
    places.sort_unstable_by_key(by_bytes);
    places.iter().map(|&at| dominator(heap, dominators, at)).collect()
}

fn dominator(heap: &Heap<'_>, dominators: &Dominators, at: usize) -> Dominator {
    let node = dominators.vertex[at];
    let as_class = heap.as_class(node);
    let class = as_class.or_else(|| heap.class_of(node)).unwrap_or_default();
    Dominator {
        class: heap.classes.name(class).to_owned(),
        is_class: as_class.is_some(),
        label: is_thread(heap, node).then(|| heap.thread_name(node)),
        id: heap.id(node),
        shallow_bytes: heap.bytes(node),
        retained_bytes: dominators.retained[at],
    }
}

fn is_thread(heap: &Heap<'_>, node: u32) -> bool {
    heap.class_of(node).is_some_and(|class| heap.classes.is_a(class, "java.lang.Thread"))
}
