//! Chunks that were freed and yet look as if in use: those of fastbins and of threads' caches.
//!
//! Their links may be disguised ("safe-linking", since 2.32): which it is each link tells itself, as only one of the two
//! leads to a place where a chunk may be.

use super::{
    chunk_set::ChunkSet,
    layout::{ALIGN, FLAGS, Layout, MIN_CHUNK, N_FASTBINS, TcacheLayout},
    space::Space,
    window::Window,
};

/// Chunks of one cache's list: a tunable allows 65,535.
const MAX_CACHED: usize = 65_535;
/// Blocks of bits for chunks of fastbins, and of caches, 8 KiB each: 8 GiB of memory that is full of them.
const MAX_BLOCKS: usize = 8192;

/// Windows that may be copied for few chunks each, and chunks that make it worth to copy one.
const MAX_IDLE_LOADS: u64 = 64;
const CHUNKS_PER_LOAD: u64 = 24;

/// Chunks of a list between two looks at the clock.
const LOOK_AT_CLOCK_EVERY: usize = 1024;

/// What lists hold, and what is wrong with them.
#[derive(Debug, Default)]
pub(super) struct Lists {
    pub(super) chunks: ChunkSet,
    /// Lists that end at something that is no chunk of theirs.
    pub(super) n_cut: u64,
}

/// Where a link leads that stands at `place`: `Some(0)` at the end, `None` where it makes no sense.
fn target(space: &Space, place: u64, link: u64) -> Option<u64> {
    let plain = link ^ (place >> 12);
    [plain, link].into_iter().find(|&to| to == 0 || space.is_chunk_place(to))
}

/// The chunks of an arena's fastbins.
///
/// Blocks that are freed one after the other are mostly neighbours, and their sizes differ: all lists lead through the
/// same memory in the same direction. So they are followed side by side, each page is read once.
pub(super) fn fastbins(space: &Space, arena: u64, layout: &Layout, lists: &mut Lists) {
    let Some(first) = layout.fastbins else { return };
    let head = |bin: u64| space.word(arena.wrapping_add(first + bin * 8)).unwrap_or_default();
    let mut heads: Vec<(u64, u64)> = (0..N_FASTBINS).map(|bin| (head(bin), bin)).collect();
    let (mut n_up, mut n_down) = (0_u64, 0_u64);
    let mut nodes = Nodes { space, window: Window::new(space), n_read: 0 };
    loop {
        heads.retain(|(chunk, _)| *chunk != 0);
        let order = |head: &&mut (u64, u64)| if n_up > n_down { !head.0 } else { head.0 };
        let Some(head) = heads.iter_mut().max_by_key(order) else { return };
        if nodes.n_read.is_multiple_of(LOOK_AT_CLOCK_EVERY as u64) && space.is_late() {
            lists.n_cut += 1;
            return;
        }
        match next_of_fastbin(&mut nodes, *head, lists) {
            Some(next) if next > head.0 => (n_up, head.0) = (n_up + 1, next),
            Some(next) => (n_down, head.0) = (n_down + 1, next),
            None => {
                lists.n_cut += 1;
                head.0 = 0;
            }
        }
    }
}

/// Takes note of a chunk of a fastbin; where its link leads, `None` if it is none.
fn next_of_fastbin(nodes: &mut Nodes, (chunk, bin): (u64, u64), lists: &mut Lists) -> Option<u64> {
    let is_place = nodes.space.is_chunk_place(chunk) && lists.chunks.n_blocks() < MAX_BLOCKS;
    let (head, link) = nodes.read(chunk).filter(|_| is_place)?;
    let is_one = head & !FLAGS == MIN_CHUNK + bin * ALIGN && lists.chunks.insert(chunk);
    target(nodes.space, chunk + 16, link).filter(|_| is_one)
}

/// Reads chunks of lists: through a window as long as they lie close together, else one by one.
struct Nodes<'a> {
    space: &'a Space<'a>,
    window: Window<'a>,
    n_read: u64,
}

impl Nodes<'_> {
    /// Size and link of the chunk at `chunk`.
    fn read(&mut self, chunk: u64) -> Option<(u64, u64)> {
        self.n_read += 1;
        // Some windows may be copied for nothing before it shows that the chunks are scattered.
        if self.window.n_loads < MAX_IDLE_LOADS + self.n_read / CHUNKS_PER_LOAD {
            return self.window.word(chunk + 8).zip(self.window.word(chunk + 16));
        }
        let mut words = [0; 16];
        let is_read = self.space.read(chunk + 8, &mut words);
        is_read.then(|| (word(&words, 0), word(&words, 8)))
    }
}

/// How the chunks of threads' caches are told in a walk.
#[derive(Debug)]
pub(super) enum CacheKey {
    /// There are none, or they can't be told.
    None,
    /// All bear the same word (since 2.34).
    Word(u64),
    /// Each bears the address of its cache (2.29 to 2.33).
    Caches(Vec<u64>),
    /// They bear nothing, and are known from the lists (to 2.28).
    Listed(ChunkSet),
}

/// The cache of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cache {
    /// Address of the structure, behind the header of its chunk.
    pub(super) address: u64,
    pub(super) layout: TcacheLayout,
}

/// The cache at `address`, if its chunk has the size of one.
pub(super) fn cache_at(space: &Space, address: u64) -> Option<Cache> {
    let chunk = address.checked_sub(16).filter(|&chunk| space.is_chunk_place(chunk))?;
    let size = space.word(chunk + 8)? & !FLAGS;
    let layout = super::layout::TCACHES.into_iter().find(|layout| layout.chunk == size)?;
    // Every list begins with nothing or a block.
    let is_list = |n: u64| {
        let first = space.word(address + layout.entries + n * 8);
        first.is_some_and(|first| first == 0 || space.is_chunk_place(first))
    };
    (0..layout.n_entries).all(is_list).then_some(Cache { address, layout })
}

/// Learns from the lists of `caches` how their chunks are told.
pub(super) fn cache_key(space: &Space, caches: &[Cache], n_cut: &mut u64) -> CacheKey {
    let mut listed = ChunkSet::default();
    let mut keys: Vec<u64> = Vec::new();
    let mut n_own = 0;
    for cache in caches {
        for n in 0..cache.layout.n_entries {
            let first =
                space.word(cache.address + cache.layout.entries + n * 8).unwrap_or_default();
            let seen = follow(space, first, n, &mut listed, n_cut);
            n_own += usize::from(seen == Some(cache.address));
            keys.extend(seen);
        }
    }
    if keys.is_empty() {
        return CacheKey::None;
    }
    if 2 * n_own > keys.len() {
        return CacheKey::Caches(caches.iter().map(|cache| cache.address).collect());
    }
    // The process goes on meanwhile: what most say.
    keys.sort_unstable();
    let middle = keys[keys.len() / 2];
    let n_same = keys.iter().filter(|&&key| key == middle).count();
    if middle != 0 && 2 * n_same > keys.len() && (n_same > 1 || keys.len() == 1) && is_new(caches) {
        CacheKey::Word(middle)
    } else {
        CacheKey::Listed(listed)
    }
}

/// Whether caches of this form may have a key: those before 2.30 hold counts of a byte.
fn is_new(caches: &[Cache]) -> bool {
    caches.iter().all(|cache| cache.layout != super::layout::TCACHES[0])
}

/// Follows list `n` of a cache from the block `first` on; the second word of that block.
fn follow(
    space: &Space,
    first: u64,
    n: u64,
    listed: &mut ChunkSet,
    n_cut: &mut u64,
) -> Option<u64> {
    let mut key = None;
    let mut block = first;
    for n_followed in 0..MAX_CACHED {
        if block == 0 {
            break;
        }
        if n_followed > 0 && n_followed % LOOK_AT_CLOCK_EVERY == 0 && space.is_late() {
            *n_cut += 1;
            break;
        }
        let mut words = [0; 24];
        let is_one = space.is_chunk_place(block) && space.read(block - 8, &mut words) && {
            let size = word(&words, 0) & !FLAGS;
            size == MIN_CHUNK + n * ALIGN || (n >= 64 && size > MIN_CHUNK + 63 * ALIGN)
        };
        let next = target(space, block, word(&words, 8)).filter(|_| is_one);
        let has_room = listed.n_blocks() < MAX_BLOCKS;
        let Some(next) = next.filter(|_| has_room && listed.insert(block - 16)) else {
            *n_cut += 1;
            break;
        };
        key = key.or(Some(word(&words, 16)));
        block = next;
    }
    key
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].iter().take(8).rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
}
