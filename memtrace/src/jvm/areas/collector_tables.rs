//! The collector's tables: card table, mark bitmaps, region tables, mark stacks.
//!
//! The tables of the VM name few of them. But the collector's objects point at all of them: from the heap and the barrier
//! set on, objects are looked through for a first address with an end or a size behind it, as `VirtualSpace`,
//! `ReservedSpace` and `MemRegion` have them, and for the members of a mark bitmap. Such a pair counts only if all of it
//! lies in memory that was reserved in one piece. What covers the heap and is no part of these objects, as Parallel's mark
//! bitmap, is a variable of libjvm's that begins with where the heap begins.

use std::{collections::VecDeque, ops::Range};

use rustc_hash::FxHashSet;

use super::{
    fields::Fields,
    heap::{Collector, Heap},
    runs::Runs,
    shenandoah,
};
use crate::{jvm::library::Library, target::maps::Mapping};

const PAGE_BYTES: u64 = 4096;
/// Objects that are looked through, addresses that may be one, how far from the first ones, and bytes of the first ones and the others.
const MAX_OBJECTS: usize = 1600;
const MAX_SEEN: usize = 16_384;
const MAX_DEPTH: u8 = 2;
const FIRST_BYTES: usize = 4096;
const OTHER_BYTES: usize = 1024;
/// Bytes of a variable that begins with the heap's first address, how many of them, and bytes of libjvm's variables.
const VARIABLE_BYTES: usize = 128;
const MAX_VARIABLES: usize = 64;
const MAX_DATA_BYTES: u64 = 16 << 20;
/// JDK 11's mark stack lies here (`ZMarkStackSpaceStart`, share/gc/z/zGlobals_linux_x86.hpp): 32 MiB of it are touched.
const Z_MARK_STACK: u64 = 0x1500_0000_0000;

/// Where they are.
pub(super) fn ranges(
    fields: Fields<'_>,
    library: &Library,
    maps: &[Mapping],
    heap: Option<&Heap>,
) -> Vec<Range<u64>> {
    let barrier_set = fields.global(&["BarrierSet::_barrier_set", "BarrierSet::_bs"]).unwrap_or(0);
    let runs = Runs::reserved(maps);
    // Not each barrier set has a card table: then there is anything.
    let card_table = card_table(fields, barrier_set)
        .filter(|table| runs.at(table.start).is_some_and(|run| table.end <= run.end));
    let mut found: Vec<Range<u64>> = card_table.into_iter().collect();
    let Some(heap) = heap else { return found };
    let search = Search { fields, runs, heap: heap.reserved.clone() };
    let collected = fields.global(&["Universe::_collectedHeap"]).unwrap_or(0);
    let object = |object| Object { object, len: FIRST_BYTES, depth: 0 };
    let variables = search.variables(library.data());
    let variable =
        |object| Object { object, len: VARIABLE_BYTES, depth: MAX_DEPTH.saturating_sub(1) };
    let first = [collected, barrier_set].map(object);
    found.extend(search.from(first.into_iter().chain(variables.into_iter().map(variable))));
    if heap.collector == Collector::Shenandoah {
        let table = shenandoah::region_table(fields, collected);
        let in_run = |table: &Range<u64>| {
            search.runs.at(table.start).is_some_and(|run| table.end <= run.end)
        };
        found.extend(
            table.filter(in_run).map(|table| {
                table.start & !(PAGE_BYTES - 1)..table.end.next_multiple_of(PAGE_BYTES)
            }),
        );
    }
    if heap.collector == Collector::Z {
        found.extend(search.runs.at(Z_MARK_STACK).cloned());
    }
    found
}

/// `BarrierSet::_barrier_set` → `CardTableBarrierSet::_card_table` → `CardTable::_byte_map`.
fn card_table(fields: Fields<'_>, barrier_set: u64) -> Option<Range<u64>> {
    let table = fields.word(barrier_set, &["CardTableBarrierSet::_card_table"])?;
    let start = fields.word(table, &["CardTable::_byte_map"])?;
    let size = fields.word(table, &["CardTable::_byte_map_size"])?;
    (start != 0).then(|| Some(start..start.checked_add(size)?))?
}

/// Where something is that is looked through.
#[derive(Clone, Copy, Debug)]
struct Object {
    object: u64,
    len: usize,
    depth: u8,
}

struct Search<'a> {
    fields: Fields<'a>,
    runs: Runs,
    heap: Range<u64>,
}

impl Search<'_> {
    /// The addresses in `data` that hold the heap's first address.
    fn variables(&self, data: &[(u64, u64)]) -> Vec<u64> {
        let pages = data.iter().flat_map(|&(start, end)| {
            (start & !(PAGE_BYTES - 1)..end).step_by(PAGE_BYTES as usize)
        });
        let start = self.heap.start;
        let holds_start = |page: u64| {
            // A page that was never written holds nothing.
            let words = self.fields.words(page, PAGE_BYTES as usize / 8).unwrap_or_default();
            let places = (page..).step_by(8).zip(words);
            places.filter(move |&(_, word)| word == start && start != 0).map(|(place, _)| place)
        };
        pages
            .take((MAX_DATA_BYTES / PAGE_BYTES) as usize)
            .flat_map(holds_start)
            .take(MAX_VARIABLES)
            .collect()
    }

    fn from(&self, first: impl Iterator<Item = Object>) -> Vec<Range<u64>> {
        let mut waiting: VecDeque<Object> = first.collect();
        let (mut seen, mut found) = (FxHashSet::default(), Vec::new());
        let mut n_read = 0;
        while n_read < MAX_OBJECTS
            && seen.len() < MAX_SEEN
            && let Some(Object { object, len, depth }) = waiting.pop_front()
        {
            if object < PAGE_BYTES || object % 8 != 0 || object >> 47 != 0 || !seen.insert(object) {
                continue;
            }
            let words = self.words(object, len);
            n_read += usize::from(!words.is_empty());
            found.extend(self.tables_in(&words));
            if depth < MAX_DEPTH {
                let next = |object| Object { object, len: OTHER_BYTES, depth: depth + 1 };
                waiting.extend(words.into_iter().map(next));
            }
        }
        found
    }

    /// The words of an object, as far as they can be read.
    fn words(&self, object: u64, len: usize) -> Vec<u64> {
        let (mut words, mut at, mut left) = (Vec::new(), object, len as u64);
        while left > 0 {
            let n = left.min(PAGE_BYTES - at % PAGE_BYTES);
            // What lies behind an object may be a page that was never touched.
            let Some(piece) = self.fields.words(at, n as usize / 8) else { break };
            words.extend(piece);
            (at, left) = (at.wrapping_add(n), left - n);
        }
        words
    }

    fn tables_in(&self, words: &[u64]) -> Vec<Range<u64>> {
        let pairs = words.windows(2).filter_map(|pair| self.table(pair[0], pair[1]));
        let bitmaps = words.windows(5).filter_map(|words| {
            let &[a, b, c, d, e] = words else { return None };
            self.bitmap([a, b, d, e]).or_else(|| self.bitmap([a, b, c, d]))
        });
        pairs.chain(bitmaps).collect()
    }

    /// A first address and an end, a size in bytes, or one in words that has to do with the heap's.
    fn table(&self, start: u64, behind: u64) -> Option<Range<u64>> {
        if start == 0 || !start.is_multiple_of(PAGE_BYTES) || self.heap.contains(&start) {
            return None;
        }
        let run = self.runs.at(start)?;
        let in_run = |end: u64| (start < end && end <= run.end).then_some(start..end);
        if behind > start
            && behind.is_multiple_of(PAGE_BYTES)
            && let Some(found) = in_run(behind)
        {
            return Some(found);
        }
        if behind >= PAGE_BYTES
            && behind.is_multiple_of(PAGE_BYTES)
            && let Some(found) = in_run(start.checked_add(behind)?)
        {
            return Some(found);
        }
        let bytes = behind.checked_mul(8)?;
        self.is_part_of_heap(bytes).then(|| in_run(start.checked_add(bytes)?))?
    }

    /// `MarkBitMap { MemRegion _covered; int _shifter; BitMapView { bm_word_t* _map; idx_t _size; } }`, in Shenandoah's
    /// without what stands between.
    fn bitmap(&self, words: [u64; 4]) -> Option<Range<u64>> {
        let [heap, heap_words, map, n_bits] = words;
        let covers = self.heap.start != 0
            && heap == self.heap.start
            && heap_words == (self.heap.end - self.heap.start) / 8;
        let end = map.checked_add((n_bits / 8).checked_next_multiple_of(PAGE_BYTES)?)?;
        let run = self.runs.at(map)?;
        (covers && map < end && end <= run.end).then_some(map..end)
    }

    /// Whether a table of so many bytes may cover the heap: one for 8, 16 … 4,096 bytes each.
    fn is_part_of_heap(&self, bytes: u64) -> bool {
        let heap_bytes = self.heap.end - self.heap.start;
        bytes >= PAGE_BYTES
            && heap_bytes.is_multiple_of(bytes)
            && (heap_bytes / bytes).is_power_of_two()
            && (8..=4096).contains(&(heap_bytes / bytes))
    }
}
