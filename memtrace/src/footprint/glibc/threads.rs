//! Which thread uses which arena, and where its cache is.
//!
//! Both are variables of libc's that every thread has at the same distance from its thread block, and the distance is
//! voted on: it is where the word of every thread is an arena or nothing. The thread blocks are in glibc's own lists,
//! which it describes for debuggers (`_thread_db_…`); where it does not, they are looked for at the ends of stacks.

use std::collections::BTreeMap;

use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    libc_file::ThreadDb,
    lists::{Cache, cache_at},
    space::{PAGE_BYTES, Space, is_malloc_like},
};

/// Threads of a process.
const MAX_THREADS: usize = 65_536;
/// Threads that vote, chosen evenly: each takes 32 KiB meanwhile.
const MAX_VOTERS: usize = 256;
/// Where a thread variable of libc's may be, before the thread block: beyond those of the program and its libraries.
const MAX_TLS_BYTES: u64 = 4 * PAGE_BYTES;
/// The end of a stack in which the thread block lies.
const TAIL_BYTES: u64 = 32 << 10;
/// Where `struct pthread` has the thread's id, 2.17 to 2.43.
const TID: u64 = 0x2d0;

/// A thread, and what it allocates from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ThreadHeap {
    /// As the process itself numbers it.
    pub(super) tid: u32,
    /// Its thread block: in its stack, at the end.
    pub(super) block: u64,
    /// 0 as long as it has none.
    pub(super) arena: u64,
    pub(super) cache: Option<Cache>,
}

/// The threads among `tids` with their arenas, of `arenas`.
pub(super) fn find(
    space: &Space,
    db: Option<&ThreadDb>,
    tids: &FxHashSet<u32>,
    arenas: &FxHashSet<u64>,
) -> Vec<ThreadHeap> {
    let mut blocks = db.map(|db| from_lists(space, db, tids)).unwrap_or_default();
    if blocks.is_empty() {
        blocks = from_stacks(space, tids);
    }
    let every = blocks.len().div_ceil(MAX_VOTERS).max(1);
    let voters = blocks.values().step_by(every);
    let tls: Vec<Words> = voters.map(|&block| variables(space, block)).collect();
    let Some(arena_at) = arena_variable(&tls, arenas) else { return Vec::new() };
    let cache_at = cache_variable(space, &tls);
    let word = |block: u64, at: usize| space.word(block.wrapping_sub(8 * (at as u64 + 1)));
    blocks
        .iter()
        .map(|(&tid, &block)| ThreadHeap {
            tid,
            block,
            // One that was voted on without this thread may be something else here.
            arena: word(block, arena_at).filter(|arena| arenas.contains(arena)).unwrap_or_default(),
            cache: cache_at.and_then(|at| cache(space, word(block, at)?)),
        })
        .collect()
}

/// The words before a thread block, the nearest first; `None` for those that can't be read.
type Words = Vec<Option<u64>>;

/// Thread blocks by thread, from glibc's lists of stacks.
fn from_lists(space: &Space, db: &ThreadDb, tids: &FxHashSet<u32>) -> BTreeMap<u32, u64> {
    let mut blocks = BTreeMap::new();
    let Some(global) = space.word(db.rtld_global_pointer) else { return blocks };
    for list in db.lists {
        let head = global.wrapping_add(list);
        let mut at = space.word(head).unwrap_or_default();
        for _ in 0..MAX_THREADS {
            if at == head || at == 0 {
                break;
            }
            let block = at.wrapping_sub(db.link);
            if let Some(tid) =
                tid_at(space, block.wrapping_add(db.tid)).filter(|tid| tids.contains(tid))
            {
                blocks.insert(tid, block);
            }
            let Some(next) = space.word(at) else { break };
            at = next;
        }
    }
    blocks
}

fn tid_at(space: &Space, address: u64) -> Option<u32> {
    space.word(address).map(|word| word as u32).filter(|&tid| tid != 0)
}

/// Thread blocks by thread, from what the ends of mappings look like: a thread block begins with its own address, twice.
fn from_stacks(space: &Space, tids: &FxHashSet<u32>) -> BTreeMap<u32, u64> {
    let mut blocks = BTreeMap::new();
    for mapping in space.maps.iter().filter(|mapping| is_malloc_like(mapping)) {
        let tail = mapping.start.max(mapping.end.saturating_sub(TAIL_BYTES))..mapping.end;
        // Without a loader the first thread's is where the heap begins.
        let is_heap = mapping.path == b"[heap]";
        let head = mapping.start..(mapping.start + TAIL_BYTES).min(tail.start);
        let head = Some(head).filter(|head| is_heap && !head.is_empty());
        let pages = head.into_iter().chain([tail]).flat_map(|range| space.pages_of(range));
        for (page, words) in pages {
            for (at, pair) in (page..).step_by(64).zip(words.chunks_exact(8)) {
                let is_block = pair[0] == at && pair[2] == at;
                if let Some(tid) =
                    tid_at(space, at + TID).filter(|tid| is_block && tids.contains(tid))
                {
                    blocks.insert(tid, at);
                }
            }
        }
    }
    blocks
}

fn variables(space: &Space, block: u64) -> Words {
    let mut words = vec![None; (MAX_TLS_BYTES / 8) as usize];
    let start = block.saturating_sub(MAX_TLS_BYTES);
    for (page, content) in space.pages_of(start & !(PAGE_BYTES - 1)..block) {
        for (at, word) in (page..).step_by(8).zip(content) {
            if (start..block).contains(&at) {
                words[((block - at) / 8 - 1) as usize] = Some(word);
            }
        }
    }
    words
}

/// The variable that is an arena, or nothing, in every thread, and an arena in most.
fn arena_variable(tls: &[Words], arenas: &FxHashSet<u64>) -> Option<usize> {
    let score = |at: usize| {
        let mut n = 0;
        for words in tls {
            match words[at] {
                Some(0) | None => {}
                Some(word) if arenas.contains(&word) => n += 1,
                Some(_) => return 0,
            }
        }
        n
    };
    best((0..(MAX_TLS_BYTES / 8) as usize).map(score))
}

/// The variable that is a cache in every thread, or nothing: 0, or one and the same place that stands for none (2.43). A
/// thread that just ends, or that has just begun, has none.
fn cache_variable(space: &Space, tls: &[Words]) -> Option<usize> {
    let mut known: FxHashMap<u64, bool> = FxHashMap::default();
    let mut is_cache = |word: u64| {
        *known
            .entry(word)
            .or_insert_with(|| space.is_chunk_place(word) && cache(space, word).is_some())
    };
    let mut score = |at: usize| {
        let (mut n, mut none) = (0, 0);
        for word in tls.iter().filter_map(|words| words[at]).filter(|&word| word != 0) {
            if is_cache(word) {
                n += 1;
            } else if none == 0 || none == word {
                none = word;
            } else {
                return 0;
            }
        }
        n
    };
    let scores: Vec<usize> = (0..(MAX_TLS_BYTES / 8) as usize).map(&mut score).collect();
    best(scores.into_iter())
}

fn cache(space: &Space, address: u64) -> Option<Cache> {
    (address != 0).then(|| cache_at(space, address)).flatten()
}

/// The first place of the highest score above 0.
fn best(scores: impl Iterator<Item = usize>) -> Option<usize> {
    let (at, score) =
        scores.enumerate().fold((0, 0), |best, next| if next.1 > best.1 { next } else { best });
    (score > 0).then_some(at)
}
