//! What a footprint says: rows that add up to what is resident, and what stands beside them.
//!
//! Plain data that a trace file can hold. Numbers are bytes unless their name says otherwise.

use serde::{Deserialize, Serialize};

pub use crate::target::Container;

/// What resident memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RowKind {
    /// The used parts of the Java heap's regions.
    JavaHeapUsed,
    /// The rest of the Java heap that is resident.
    JavaHeapUnused,
    /// Pages of the Java heap that the kernel counts again, because ZGC maps them several times.
    JavaHeapViews,
    /// Metaspace without class space.
    Metaspace,
    /// Compressed class space.
    ClassSpace,
    /// The archive of classes.
    Cds,
    /// The JVM's code cache.
    CodeCache,
    /// The collector's tables.
    Gc,
    /// Stacks of threads, also of those that have ended and whose stacks are kept.
    ThreadStacks,
    /// Blocks of the allocator that are in use.
    MallocLive,
    /// Whole free pages that a trim gives back.
    MallocReturnable,
    /// Whole free pages that a trim does not give back.
    MallocKept,
    /// Free parts of pages that blocks in use lie in, too.
    MallocFragments,
    /// Mappings of another allocator than glibc's.
    Allocator,
    /// Anonymous memory that the program has mapped for itself.
    Anonymous,
    /// Libraries and programs: their pages, those that the process has written to, and their variables.
    Library,
    /// Other files that are mapped.
    File,
    /// Memory that is shared with others, or might be.
    Shared,
    /// What the kernel has put there.
    Kernel,
    /// What could not be placed.
    Unexplained,
}

impl RowKind {
    /// All kinds, in the order in which they are shown.
    pub const ALL: [Self; 20] = [
        Self::JavaHeapUsed,
        Self::JavaHeapUnused,
        Self::JavaHeapViews,
        Self::Metaspace,
        Self::ClassSpace,
        Self::Cds,
        Self::CodeCache,
        Self::Gc,
        Self::ThreadStacks,
        Self::MallocLive,
        Self::MallocReturnable,
        Self::MallocKept,
        Self::MallocFragments,
        Self::Allocator,
        Self::Anonymous,
        Self::Library,
        Self::File,
        Self::Shared,
        Self::Kernel,
        Self::Unexplained,
    ];

    /// Its name for programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::JavaHeapUsed => "java_heap_used",
            Self::JavaHeapUnused => "java_heap_unused",
            Self::JavaHeapViews => "java_heap_views",
            Self::Metaspace => "metaspace",
            Self::ClassSpace => "class_space",
            Self::Cds => "cds",
            Self::CodeCache => "code_cache",
            Self::Gc => "gc",
            Self::ThreadStacks => "thread_stacks",
            Self::MallocLive => "malloc_live",
            Self::MallocReturnable => "malloc_returnable",
            Self::MallocKept => "malloc_kept",
            Self::MallocFragments => "malloc_fragments",
            Self::Allocator => "allocator",
            Self::Anonymous => "anonymous",
            Self::Library => "library",
            Self::File => "file",
            Self::Shared => "shared",
            Self::Kernel => "kernel",
            Self::Unexplained => "unexplained",
        }
    }
}

/// A row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// What it is.
    pub kind: RowKind,
    /// How much of it is resident.
    pub resident_bytes: u64,
    /// How much of it is in swap.
    pub swap_bytes: u64,
}

/// The Java heap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JavaHeap {
    /// Its collector, such as `G1`.
    pub collector: String,
    /// Bytes in the used parts of its regions, where the JVM tells.
    pub used_bytes: Option<u64>,
    /// Bytes that it has of the kernel.
    pub committed_bytes: u64,
    /// How much of it is resident, each page once.
    pub resident_bytes: u64,
}

/// What glibc's allocator holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Malloc {
    /// Bytes of blocks in use.
    pub live_bytes: u64,
    /// Bytes of free blocks, resident or not.
    pub free_bytes: u64,
    /// What a trim would give back.
    pub trim_returns_bytes: u64,
    /// Its arenas, the largest first.
    pub arenas: Vec<Arena>,
}

/// An arena of glibc's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arena {
    /// Where it is.
    pub address: u64,
    /// Threads that are attached to it.
    pub n_threads: u64,
    /// Heaps of 64 MiB.
    pub n_heaps: u64,
    /// Bytes of it that are resident.
    pub resident_bytes: u64,
    /// Bytes of blocks in use.
    pub live_bytes: u64,
    /// Whole free pages that a trim gives back.
    pub returnable_bytes: u64,
    /// Whole free pages that it does not.
    pub kept_bytes: u64,
    /// Whether it is the one that grows by `brk`.
    pub is_main: bool,
    /// Where whole free pages are that are resident, by address; a part of them where there are very many.
    pub free_pages: Vec<FreePages>,
    /// Of each heap, the highest block in use: below it nothing can be unmapped.
    pub pinned_by: Vec<Pin>,
}

/// Whole pages, one behind the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreePages {
    /// Where they begin.
    pub start: u64,
    /// How large they are.
    pub bytes: u64,
}

/// A block that keeps a heap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Where the heap begins.
    pub heap: u64,
    /// Where the block is, as malloc gave it out.
    pub address: u64,
    /// Its size.
    pub bytes: u64,
}

/// What a page holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ContentKind {
    /// Class files, or pieces of them.
    ClassFile,
    /// Headers of members of zip files.
    Zip,
    /// Text.
    Text,
    /// Addresses of the process's own memory.
    Pointers,
    /// What can hardly be packed any more: because it is, or because it is encrypted.
    Packed,
    /// Nothing but zeros, or nearly.
    Zeros,
    /// Anything else.
    #[default]
    Other,
}

impl ContentKind {
    /// All kinds, in the order in which they are shown.
    pub const ALL: [Self; 7] = [
        Self::ClassFile,
        Self::Zip,
        Self::Text,
        Self::Pointers,
        Self::Packed,
        Self::Zeros,
        Self::Other,
    ];

    /// Its name for programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ClassFile => "class_files",
            Self::Zip => "zip_members",
            Self::Text => "text",
            Self::Pointers => "pointers",
            Self::Packed => "packed_or_encrypted",
            Self::Zeros => "zeros",
            Self::Other => "other",
        }
    }
}

/// Pages of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// What they hold.
    pub kind: ContentKind,
    /// How many of the pages that were looked at.
    pub n_pages: u64,
    /// A few short pieces of them, printable but not escaped.
    pub samples: Vec<String>,
}

/// What lies in the pages that malloc holds and nobody uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Such pages: those of the rows [`RowKind::MallocReturnable`] and [`RowKind::MallocKept`].
    pub n_pages: u64,
    /// How many of them were looked at.
    pub n_looked_at: u64,
    /// What was found there.
    pub kinds: Vec<Content>,
}

impl Contents {
    /// How many bytes of all pages are like `content`, if those that were looked at are like all.
    #[must_use]
    pub fn bytes(&self, content: &Content) -> u64 {
        let bytes = u128::from(content.n_pages) * u128::from(self.n_pages) * 4096;
        let bytes = bytes.checked_div(self.n_looked_at.into()).unwrap_or_default();
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

/// Where the resident bytes of a process are at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footprint {
    /// When it was taken, in nanoseconds of the monotonic clock.
    pub time_ns: u64,
    /// What the page tables add up to.
    pub rss_bytes: u64,
    /// What is in swap.
    pub swap_bytes: u64,
    /// Pages of the pool of huge pages, which are no part of RSS.
    pub hugetlb_bytes: u64,
    /// RSS as the kernel's counters had it at about that time (`VmRSS`).
    pub kernel_rss_bytes: Option<u64>,
    /// The rows, which add up to `rss_bytes` and `swap_bytes`.
    pub rows: Vec<Row>,
    /// The Java heap, where there is one.
    pub java_heap: Option<JavaHeap>,
    /// What glibc's allocator holds, where that could be read.
    pub malloc: Option<Malloc>,
    /// What lies in the pages that it holds and nobody uses, where that was asked for. No trace file has it.
    #[serde(skip)]
    pub contents: Option<Contents>,
    /// The container.
    pub container: Option<Container>,
    /// What the user should know, a line each.
    pub notes: Vec<String>,
}

impl Footprint {
    /// The resident bytes of a row; 0 where there is none.
    #[must_use]
    pub fn resident(&self, kind: RowKind) -> u64 {
        self.rows.iter().find(|row| row.kind == kind).map_or(0, |row| row.resident_bytes)
    }
}
