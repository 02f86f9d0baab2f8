//! How glibc's malloc lays out its structures, 64-bit.
//!
//! Which of them a process has is found by trying, never by its version: see [`super::main_arena`]. Source facts:
//! malloc/malloc.c and malloc/arena.c of the versions that are named.

/// Chunks begin and end at multiples of this.
pub(super) const ALIGN: u64 = 16;
/// The smallest chunk.
pub(super) const MIN_CHUNK: u64 = 0x20;
/// `struct malloc_chunk`, which a trim leaves alone at the start of a free chunk.
pub(super) const CHUNK_STRUCT: u64 = 48;
/// What a trim leaves of the top: `MINSIZE` and one byte.
pub(super) const TOP_REST: u64 = 33;

/// Bits of a size: the chunk before is in use.
pub(super) const PREV_INUSE: u64 = 1;
/// The chunk has a mapping of its own.
pub(super) const IS_MMAPPED: u64 = 2;
/// All bits that are no part of the size.
pub(super) const FLAGS: u64 = 7;

/// Pairs of links in an arena, one for each bin but the first number.
pub(super) const N_BINS: u64 = 127;
/// Lists of small chunks that look as if in use (`NFASTBINS`).
pub(super) const N_FASTBINS: u64 = 10;

/// Heaps of other arenas than the main one begin at multiples of this, unless huge pages were asked for.
pub(super) const HEAP_MAX: u64 = 64 << 20;
/// Sizes of `heap_info`: to 2.34, and since.
pub(super) const HEAP_INFOS: [u64; 2] = [0x20, 0x30];

/// Where the fields of `struct malloc_state` are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// The versions that have it.
    pub(super) versions: &'static str,
    pub(super) fastbins: Option<u64>,
    pub(super) top: u64,
    pub(super) bins: u64,
    pub(super) next: u64,
    pub(super) attached: Option<u64>,
    pub(super) system_mem: u64,
    pub(super) max_system_mem: u64,
    pub(super) size: u64,
}

/// All that there have been since 2.17; 2.27 added `have_fastchunks`, 2.43 has no fastbins.
pub(super) const LAYOUTS: [Layout; 4] = [
    Layout {
        versions: "2.27 to 2.42",
        fastbins: Some(0x10),
        top: 0x60,
        bins: 0x70,
        next: 0x870,
        attached: Some(0x880),
        system_mem: 0x888,
        max_system_mem: 0x890,
        size: 0x898,
    },
    Layout {
        versions: "2.43",
        fastbins: None,
        top: 0x8,
        bins: 0x18,
        next: 0x818,
        attached: Some(0x828),
        system_mem: 0x830,
        max_system_mem: 0x838,
        size: 0x840,
    },
    Layout {
        versions: "2.23 to 2.26",
        fastbins: Some(0x8),
        top: 0x58,
        bins: 0x68,
        next: 0x868,
        attached: Some(0x878),
        system_mem: 0x880,
        max_system_mem: 0x888,
        size: 0x890,
    },
    Layout {
        versions: "2.17 to 2.22",
        fastbins: Some(0x8),
        top: 0x58,
        bins: 0x68,
        next: 0x868,
        attached: None,
        system_mem: 0x878,
        max_system_mem: 0x880,
        size: 0x888,
    },
];

/// What a thread's cache looks like: the first chunk that it allocates holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TcacheLayout {
    /// Size of its chunk.
    pub(super) chunk: u64,
    /// Where its lists begin, from the start of the structure.
    pub(super) entries: u64,
    /// How many lists it has, the first of chunks of 0x20 bytes; those from 64 on hold chunks of several sizes.
    pub(super) n_entries: u64,
}

/// 2.26 to 2.29, 2.30 to 2.41, and since.
pub(super) const TCACHES: [TcacheLayout; 3] = [
    TcacheLayout { chunk: 0x250, entries: 64, n_entries: 64 },
    TcacheLayout { chunk: 0x290, entries: 128, n_entries: 64 },
    TcacheLayout { chunk: 0x300, entries: 152, n_entries: 76 },
];
