//! What of a footprint is the allocator's: glibc's heap chunk by chunk, or another allocator by its name.

use std::ops::Range;

use super::{
    Kind, PageTables, Resident,
    glibc::{self, NoMalloc},
    snapshot::{Arena, FreePages, Malloc, Pin, RowKind},
};
use crate::target::maps::Mapping;

/// Arenas that are told of; a process has eight for each processor.
const MAX_ARENAS: usize = 1024;
/// Heaps of an arena that are told of.
const MAX_PINS: usize = 4096;

/// Who has a process's heap.
pub(super) enum Heap {
    /// glibc's allocator, and it was read.
    Glibc(Box<glibc::Malloc>),
    /// Another one, by its name.
    Other(String),
    /// Nobody that is known.
    Unknown,
}

/// Reads the heap of process `pid`.
pub(super) fn read(pid: u32, maps: &[Mapping], resident: &Resident, tables: &PageTables) -> Heap {
    match glibc::Malloc::of(pid, maps, resident, tables) {
        Ok(malloc) => Heap::Glibc(Box::new(malloc)),
        Err(NoMalloc::NotInUse(Some(name))) if !name.starts_with("glibc") => Heap::Other(name),
        Err(NoMalloc::NotInUse(_)) => Heap::Unknown,
    }
}

impl Heap {
    /// What of its resident bytes is not simply in use.
    pub(super) fn parts(&self) -> Vec<(RowKind, u64)> {
        let Self::Glibc(malloc) = self else { return Vec::new() };
        let split = malloc.resident();
        vec![
            (RowKind::Unexplained, split.unknown),
            (RowKind::Anonymous, split.foreign),
            (RowKind::MallocReturnable, split.returnable),
            (RowKind::MallocKept, split.kept),
            (RowKind::MallocFragments, split.fragments),
        ]
    }

    /// Its numbers; `None` where it is not glibc's.
    pub(super) fn summary(&self, resident: &Resident) -> Option<Malloc> {
        let Self::Glibc(malloc) = self else { return None };
        let arena = |it: &glibc::Arena| arena(it, &malloc.free_pages, resident);
        let mut arenas: Vec<Arena> = malloc.arenas.iter().map(arena).collect();
        arenas.sort_by_key(|arena| std::cmp::Reverse(arena.resident_bytes));
        arenas.truncate(MAX_ARENAS);
        Some(Malloc {
            live_bytes: malloc.live_bytes(),
            free_bytes: malloc.free_bytes(),
            trim_returns_bytes: malloc.trim_returns_bytes(),
            arenas,
        })
    }

    /// glibc's heap; `None` where it is another's.
    pub(super) fn glibc(&self) -> Option<&glibc::Malloc> {
        let Self::Glibc(malloc) = self else { return None };
        Some(malloc)
    }

    /// What went wrong, a line each.
    pub(super) fn notes(&self) -> Vec<String> {
        match self {
            Self::Glibc(malloc) => losses(&malloc.losses),
            Self::Other(name) => vec![format!(
                "the allocator is {name}: its mappings can't be told from others, all anonymous memory counts as its"
            )],
            Self::Unknown => Vec::new(),
        }
    }
}

/// Those of the whole free pages `free` that lie in `heap` and are resident.
fn free_pages(heap: &glibc::Heap, free: &[Range<u64>], resident: &Resident) -> Vec<FreePages> {
    let first = free.partition_point(|range| range.end <= heap.range.start);
    let in_heap = free[first..].iter().take_while(|range| range.start < heap.range.end);
    let runs = in_heap.flat_map(|range| resident.runs_in(range.clone()));
    let runs = runs.filter(|run| run.kind == Kind::Anonymous);
    runs.map(|run| FreePages { start: run.start, bytes: run.end - run.start }).collect()
}

fn arena(arena: &glibc::Arena, free: &[Range<u64>], resident: &Resident) -> Arena {
    let pin = |heap: &glibc::Heap| {
        let pin = heap.pinned_by?;
        Some(Pin { heap: heap.range.start, address: pin.address, bytes: pin.chunk_bytes })
    };
    Arena {
        address: arena.address,
        n_threads: arena.attached_threads.unwrap_or(arena.threads.len() as u64),
        n_heaps: arena.heaps.len() as u64,
        resident_bytes: arena.resident.total(),
        live_bytes: arena.chunks.live_bytes,
        returnable_bytes: arena.resident.returnable,
        kept_bytes: arena.resident.kept,
        is_main: arena.is_main,
        free_pages: arena.heaps.iter().flat_map(|it| free_pages(it, free, resident)).collect(),
        pinned_by: arena.heaps.iter().filter_map(pin).take(MAX_PINS).collect(),
    }
}

/// What was not read, and what had to be passed over.
fn losses(losses: &glibc::Losses) -> Vec<String> {
    let counted = [
        (losses.n_skips, "places in malloc's heap made no sense and were passed over"),
        (losses.unknown_bytes, "bytes of malloc's heap belong to no block"),
        (losses.swapped_unread_bytes, "bytes of malloc's heap are swapped out and were not read"),
        (losses.n_lists_cut, "lists of free blocks lead to something else"),
        (losses.n_lying_heaps, "heaps of malloc's say a size that can't be"),
        (losses.mmapped_missing_bytes.unsigned_abs(), MISSING),
        (losses.n_other_libcs, "further copies of libc have a heap that was not read"),
    ];
    let counted = counted.into_iter().filter(|&(n, _)| n > 0);
    let mut notes: Vec<String> = counted.map(|(n, what)| format!("{n} {what}")).collect();
    if losses.is_ring_broken {
        notes.push("malloc's list of arenas is broken: some may be missing".to_owned());
    }
    if losses.is_late {
        notes.push(
            "malloc's heap is too large to be read in time: the rest counts as in use".to_owned(),
        );
    }
    notes
}

const MISSING: &str =
    "bytes that malloc has mapped block by block were not found, or more than it counts were";
