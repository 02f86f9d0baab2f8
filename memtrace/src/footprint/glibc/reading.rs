//! All of malloc's memory, one arena after the other.

use std::ops::Range;

use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    Arena, Block, Heap, Losses, Malloc, NoMalloc, Process, Settings,
    free_pages::FreePages,
    heaps::{self, HeapInfo},
    layout::{ALIGN, FLAGS},
    lists::{self, Cache, CacheKey, Lists},
    main_arena::{self, MainArena},
    mmapped, settings,
    space::{PAGE_BYTES, Space, is_malloc_like},
    tally::{Tally, TopTrim},
    threads::{self, ThreadHeap},
    walk::{Bounds, Budget, Marks, Region, Walk},
};
use crate::target::maps::Mapping;

/// Times that bytes may be read again in all.
const MAX_RESYNCS: u64 = 20_000;
/// Bytes that may be searched for chunks in all.
const MAX_SEARCH_BYTES: u64 = 256 << 20;

/// Times that an arena's fastbins are looked at, if they change meanwhile.
const MAX_LOOKS_AT_FASTBINS: u32 = 4;
/// The part of its time that a reading may rest.
const REST_PART: u32 = 100;

pub(super) fn read(process: &Process<'_>) -> Result<Malloc, NoMalloc> {
    let Process { memory, resident, pages, .. } = *process;
    let maps = &disjoint(process.maps);
    let space = Space::new(memory, maps, resident, pages, process.max_time);
    let data = main_arena::data_of_libc(maps);
    let mains = main_arena::find(&space, &data);
    let main = mains.first().ok_or_else(|| NoMalloc::NotInUse(process.allocator.clone()))?;
    let mut reading = Reading::new(&space, process, main, &data);
    let mut malloc = Malloc {
        version: process.libc.version.clone(),
        layout: main.layout.versions,
        thread_blocks: reading.threads.iter().map(|thread| thread.block).collect(),
        settings: reading.settings,
        ..Malloc::default()
    };
    for address in reading.arena_addresses() {
        malloc.arenas.push(reading.arena(address));
    }
    malloc.mmapped = reading.mmapped(&malloc.arenas);
    malloc.losses = reading.losses(&malloc);
    malloc.free_pages = reading.free_pages.sorted();
    malloc.losses.n_other_libcs = mains.len() as u64 - 1;
    Ok(malloc)
}

/// `maps` without those that overlap one before them: read from a text, they may be anything.
fn disjoint(maps: &[Mapping]) -> Vec<Mapping> {
    let mut end = 0;
    let mut is_behind = |mapping: &&Mapping| {
        let is_behind = mapping.start >= end;
        end = end.max(mapping.end);
        is_behind
    };
    maps.iter().filter(|mapping| is_behind(mapping)).cloned().collect()
}

struct Reading<'a> {
    space: &'a Space<'a>,
    main: &'a MainArena,
    settings: Option<Settings>,
    heaps: Vec<HeapInfo>,
    main_heap: Option<Range<u64>>,
    /// By the process's own thread ids.
    threads: Vec<ThreadHeap>,
    outer_tids: FxHashMap<u32, u32>,
    cache_key: CacheKey,
    budget: Budget,
    free_pages: FreePages,
    n_lists_cut: u64,
}

impl<'a> Reading<'a> {
    fn new(
        space: &'a Space<'a>,
        process: &Process<'_>,
        main: &'a MainArena,
        data: &[Range<u64>],
    ) -> Self {
        let heap = space.maps.iter().find(|mapping| is_heap(mapping));
        let settings = settings::find(space, data, heap, process.start_brk);
        let huge = settings.map_or(0, |settings| settings.huge_page_bytes);
        let heaps = heaps::find(space, main, heaps::heap_max(huge));
        let outer_tids: FxHashMap<u32, u32> =
            process.tids.iter().map(|&(outer, own)| (own, outer)).collect();
        let mut reading = Self {
            space,
            main,
            settings,
            heaps,
            main_heap: main_heap(space),
            threads: Vec::new(),
            outer_tids,
            cache_key: CacheKey::None,
            budget: Budget {
                n_resyncs: 0,
                n_skips: 0,
                tries_left: MAX_RESYNCS,
                search_left: MAX_SEARCH_BYTES,
                rest_left: process.max_time / REST_PART,
                is_late: false,
            },
            free_pages: FreePages::new(),
            n_lists_cut: 0,
        };
        let tids: FxHashSet<u32> = reading.outer_tids.keys().copied().collect();
        let arenas = reading.arena_addresses().into_iter().collect();
        reading.threads = threads::find(space, process.libc.thread_db.as_ref(), &tids, &arenas);
        let caches = reading.caches();
        reading.cache_key = lists::cache_key(space, &caches, &mut reading.n_lists_cut);
        reading
    }

    /// The main arena, those of its ring, and those that heaps name.
    fn arena_addresses(&self) -> Vec<u64> {
        let mut addresses = self.main.ring.clone();
        let known: FxHashSet<u64> = addresses.iter().copied().collect();
        let mut others: Vec<u64> = self.heaps.iter().map(|heap| heap.arena).collect();
        others.sort_unstable();
        others.dedup();
        addresses.extend(others.into_iter().filter(|arena| !known.contains(arena)));
        addresses
    }

    /// The caches of threads: as their variables tell, and where the first block of each arena is one.
    fn caches(&self) -> Vec<Cache> {
        let firsts =
            self.heaps.iter().filter(|heap| self.is_first(heap)).map(|heap| self.first_of(heap));
        let firsts = firsts.chain([self.first_of_main()]);
        let firsts = firsts.filter_map(|first| lists::cache_at(self.space, first + 16));
        let mut caches: Vec<Cache> =
            self.threads.iter().filter_map(|thread| thread.cache).chain(firsts).collect();
        caches.sort_unstable_by_key(|cache| cache.address);
        caches.dedup();
        caches
    }

    /// Whether the arena lies in this heap of it.
    fn is_first(&self, heap: &HeapInfo) -> bool {
        (heap.start..heap.end).contains(&heap.arena)
    }

    /// The first chunk of a heap.
    fn first_of(&self, heap: &HeapInfo) -> u64 {
        if self.is_first(heap) {
            (heap.arena + self.main.layout.size).next_multiple_of(ALIGN)
        } else {
            heap.start + heaps::info_bytes(heap.arena)
        }
    }

    fn first_of_main(&self) -> u64 {
        let start = self.main_heap.as_ref().map_or(0, |heap| heap.start);
        let base = self.settings.map_or(start, |settings| settings.sbrk_base);
        base.max(start).next_multiple_of(ALIGN)
    }

    /// The fastbins of an arena, of several looks the one in which they changed the least.
    fn fastbins(&self, arena: u64) -> Lists {
        let look = || {
            self.space.memory.forget();
            let mut lists = Lists::default();
            lists::fastbins(self.space, arena, &self.main.layout, &mut lists);
            lists
        };
        let mut best = look();
        for _ in 1..MAX_LOOKS_AT_FASTBINS {
            if best.n_cut == 0 {
                break;
            }
            best = [best, look()].into_iter().min_by_key(|lists| lists.n_cut).unwrap_or_default();
        }
        best
    }

    fn arena(&mut self, address: u64) -> Arena {
        let lists = self.fastbins(address);
        self.n_lists_cut += lists.n_cut;
        let is_main = address == self.main.address;
        let heaps = if is_main {
            self.main_heaps(&lists)
        } else {
            let own: Vec<HeapInfo> =
                self.heaps.iter().copied().filter(|heap| heap.arena == address).collect();
            own.iter().map(|heap| self.other_heap(heap, &lists)).collect()
        };
        let word = |offset: u64| self.space.word(address.wrapping_add(offset));
        let layout = &self.main.layout;
        let mut arena = Arena {
            address,
            is_main,
            heaps: Vec::new(),
            threads: self.threads_of(address),
            attached_threads: layout.attached.and_then(word),
            system_bytes: word(layout.system_mem).unwrap_or_default(),
            top: word(layout.top).unwrap_or_default(),
            ..Arena::default()
        };
        for (heap, returnable_swapped_bytes) in heaps {
            arena.chunks.add(&heap.chunks);
            arena.resident.add(&heap.resident);
            arena.returnable_swapped_bytes += returnable_swapped_bytes;
            arena.heaps.push(heap);
        }
        arena
    }

    fn threads_of(&self, arena: u64) -> Vec<u32> {
        let own = self.threads.iter().filter(|thread| thread.arena == arena);
        own.filter_map(|thread| self.outer_tids.get(&thread.tid).copied()).collect()
    }

    /// The heap that `brk` made, and the mapping of the top where that is elsewhere: `brk` may fail.
    fn main_heaps(&mut self, lists: &Lists) -> Vec<(Heap, u64)> {
        let mut ranges: Vec<Range<u64>> = self.main_heap.iter().cloned().collect();
        let top = self.space.word(self.main.address + self.main.layout.top).unwrap_or_default();
        let mut taken: Vec<Range<u64>> =
            self.heaps.iter().map(|heap| heap.start..heap.accessible_end).collect();
        taken.extend(ranges.iter().cloned());
        taken.sort_unstable_by_key(|range| range.start);
        if let Some(mapping) = self.space.mapping_at(top).filter(|mapping| is_malloc_like(mapping))
        {
            let gaps = mmapped::gaps(mapping.start..mapping.end, &taken);
            ranges.extend(gaps.into_iter().find(|gap| gap.contains(&top)));
        }
        ranges.into_iter().map(|range| self.main_part(range, lists)).collect()
    }

    fn main_part(&mut self, range: Range<u64>, lists: &Lists) -> (Heap, u64) {
        let (space, top_at) = (self.space, self.main.address + self.main.layout.top);
        let is_brk = self.main_heap.as_ref() == Some(&range);
        let bounds = || {
            // The heap may have grown.
            let top = space.word(top_at);
            let top = top.filter(|&top| is_brk && top >= range.start || range.contains(&top));
            let Some(top) = top else { return Bounds { end: range.end, top: u64::MAX } };
            let end = space.word(top + 8).and_then(|head| top.checked_add(head & !FLAGS));
            let is_last = end.is_some_and(|end| end.next_multiple_of(PAGE_BYTES) == range.end);
            // Where the top does not end with the heap, the heap may have changed since the map was read.
            let end = if is_last { None } else { space.pages.heap_end() };
            let most = range.start.saturating_add(1 << 46);
            let end = end.filter(|&end| end > top && end <= most).unwrap_or(range.end);
            // It may also be elsewhere: `brk` fails where something is in its way.
            Bounds { end, top: if top < end { top } else { u64::MAX } }
        };
        let thp = self.settings.map_or(0, |settings| settings.thp_page_bytes);
        let trim = TopTrim { page_bytes: thp.max(PAGE_BYTES) };
        let first = if is_brk { self.first_of_main() } else { range.start };
        let region = Region {
            first,
            bounds: &bounds,
            is_main: true,
            was_end: range.end,
            top_trim: Some(trim).filter(|_| is_brk),
        };
        let (end, mut tally) = self.walk(&region, lists);
        let base = self.settings.map_or(range.start, |settings| settings.sbrk_base);
        let base = base.clamp(range.start, first);
        tally.chunks.foreign_bytes += base - range.start;
        tally.chunks.overhead_bytes += first - base;
        tally.split.foreign += space.resident.bytes_in(range.start..base).resident();
        let range = range.start..end.max(range.end);
        let top = Some(bounds().top).filter(|&top| top != u64::MAX);
        self.heap(range, top, tally)
    }

    fn other_heap(&mut self, info: &HeapInfo, lists: &Lists) -> (Heap, u64) {
        let (space, top_at) = (self.space, info.arena + self.main.layout.top);
        let bounds = || {
            let end = heaps::end_now(space, info);
            let top = space.word(top_at).filter(|top| (info.start..end).contains(top));
            Bounds { end, top: top.unwrap_or(u64::MAX) }
        };
        let first = self.first_of(info);
        let was_end = info.end;
        let region = Region { first, bounds: &bounds, is_main: false, was_end, top_trim: None };
        let (end, mut tally) = self.walk(&region, lists);
        tally.chunks.overhead_bytes += first - info.start;
        let range = info.start..info.accessible_end.max(end);
        // What the heap has shrunk by may still be resident.
        tally.add_kept(space.resident, end..range.end);
        self.free_pages.add(end.next_multiple_of(PAGE_BYTES)..range.end);
        let top = Some(bounds().top).filter(|&top| top != u64::MAX);
        self.heap(range, top, tally)
    }

    fn walk(&mut self, region: &Region<'_>, lists: &Lists) -> (u64, Tally) {
        let marks = Marks { fastbins: &lists.chunks, cache_key: &self.cache_key };
        Walk::new(self.space, region, &marks, &mut self.budget, &mut self.free_pages).run()
    }

    fn heap(&mut self, range: Range<u64>, top: Option<u64>, tally: Tally) -> (Heap, u64) {
        let resident = self.space.resident;
        let mut tally = tally.finish(resident, range.clone());
        if let Some(pages) = tally.take_free_pages() {
            self.free_pages.add(pages);
        }
        let heap = Heap {
            top,
            pinned_by: tally.pin,
            chunks: tally.chunks,
            resident: tally.split,
            swapped_bytes: resident.bytes_in(range.clone()).swapped,
            range,
        };
        (heap, tally.returnable_swapped)
    }

    fn mmapped(&self, arenas: &[Arena]) -> Vec<Block> {
        let mut taken: Vec<Range<u64>> =
            arenas.iter().flat_map(|arena| &arena.heaps).map(|heap| heap.range.clone()).collect();
        taken.sort_unstable_by_key(|range| range.start);
        let mut blocks = mmapped::find(self.space, &taken);
        blocks.extend(self.hidden(&taken, &blocks));
        blocks.sort_unstable_by_key(|block| block.start);
        blocks
            .into_iter()
            .map(|range| {
                let bytes = self.space.resident.bytes_in(range.clone());
                Block { range, resident_bytes: bytes.resident(), swapped_bytes: bytes.swapped }
            })
            .collect()
    }

    /// Blocks that malloc counts, and that are not among those that were found.
    fn hidden(&self, taken: &[Range<u64>], found: &[Range<u64>]) -> Vec<Range<u64>> {
        let Some(settings) = self.settings else { return Vec::new() };
        let bytes: u64 = found.iter().map(|block| block.end - block.start).sum();
        let n = u64::from(settings.n_mmaps).checked_sub(found.len() as u64);
        let bytes = settings.mmapped_bytes.checked_sub(bytes);
        let (Some(n @ 1..), Some(bytes @ 1..)) = (n, bytes) else { return Vec::new() };
        let mut taken = [taken, found].concat();
        taken.sort_unstable_by_key(|range| range.start);
        mmapped::find_hidden(self.space, &taken, mmapped::Missing { n, bytes })
    }

    fn losses(&self, malloc: &Malloc) -> Losses {
        let heaps = malloc.arenas.iter().flat_map(|arena| &arena.heaps);
        let counted = self.settings.map(|settings| settings.mmapped_bytes.cast_signed());
        let found = malloc.mmapped_bytes().cast_signed();
        Losses {
            n_resyncs: self.budget.n_resyncs,
            n_skips: self.budget.n_skips,
            unknown_bytes: malloc.chunks().unknown_bytes,
            swapped_unread_bytes: heaps.map(|heap| heap.swapped_bytes).sum(),
            n_lists_cut: self.n_lists_cut,
            n_lying_heaps: self.heaps.iter().filter(|heap| heap.is_lying).count() as u64,
            is_ring_broken: !self.main.is_closed,
            mmapped_missing_bytes: counted.map_or(0, |counted| counted.wrapping_sub(found)),
            n_other_libcs: 0,
            is_late: self.budget.is_late,
        }
    }
}

fn is_heap(mapping: &Mapping) -> bool {
    mapping.path == b"[heap]"
}

/// The mappings of the heap that `brk` made, as one.
fn main_heap(space: &Space) -> Option<Range<u64>> {
    let mut heaps = space.maps.iter().filter(|mapping| is_heap(mapping) && mapping.access);
    let first = heaps.next()?;
    let end = heaps.fold(first.end, |end, next| if next.start == end { next.end } else { end });
    Some(first.start..end)
}
