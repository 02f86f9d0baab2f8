//! What allocators call their functions.

use std::sync::LazyLock;

use memtrace_common::Kind;
use rustc_hash::FxHashMap;

/// No name that is looked for is longer, with its prefix.
pub(super) const MAX_NAME_BYTES: usize = 32;

/// C++'s operator new of the Itanium ABI, `operator new(unsigned long)`.
pub(super) const OPERATOR_NEW: &[u8] = b"_Znwm";

/// Together only glibc has these, and since 2.34: then its pthread_create came into libc.so, and its malloc lost its hooks
/// (glibc 2.34, NEWS). Its malloc and calloc call no other function of its interface since (malloc/malloc.c, 2.34 to 2.42).
pub(super) const OF_GLIBC_WITHOUT_HOOKS: [&[u8]; 2] = [b"gnu_get_libc_version", b"pthread_create"];

type Names = &'static [(&'static str, Kind)];

/// The functions of the C library's interface (C23 7.24.3, POSIX.1-2024, malloc(3)). Of several names of one function the
/// first one counts.
const C: Names = &[
    ("malloc", Kind::MALLOC),
    ("calloc", Kind::CALLOC),
    ("realloc", Kind::REALLOC),
    ("reallocarray", Kind::REALLOCARRAY),
    ("posix_memalign", Kind::POSIX_MEMALIGN),
    ("aligned_alloc", Kind::ALIGNED_ALLOC),
    ("memalign", Kind::MEMALIGN),
    ("valloc", Kind::VALLOC),
    ("pvalloc", Kind::PVALLOC),
    ("free", Kind::FREE),
    ("cfree", Kind::FREE),
    ("free_sized", Kind::FREE),
    ("free_aligned_sized", Kind::FREE),
];

/// jemalloc's own interface, as far as it hands blocks out or takes them back (jemalloc(3), 5.3: "Non-standard API"). Flags
/// come last.
const JEMALLOC: Names = &[
    ("mallocx", Kind::MALLOC),
    ("rallocx", Kind::REALLOC),
    ("dallocx", Kind::FREE),
    ("sdallocx", Kind::FREE),
];

/// mimalloc's own interface, as far as the arguments that count stand where they do in the C library's (mimalloc 2.0,
/// include/mimalloc.h): alignment and offset come last. Its operators new throw, so that their returns can't be probed.
const MIMALLOC: Names = &[
    ("zalloc", Kind::MALLOC),
    ("malloc_small", Kind::MALLOC),
    ("zalloc_small", Kind::MALLOC),
    ("malloc_aligned", Kind::MALLOC),
    ("malloc_aligned_at", Kind::MALLOC),
    ("zalloc_aligned", Kind::MALLOC),
    ("zalloc_aligned_at", Kind::MALLOC),
    ("mallocn", Kind::CALLOC),
    ("calloc_aligned", Kind::CALLOC),
    ("calloc_aligned_at", Kind::CALLOC),
    ("rezalloc", Kind::REALLOC),
    ("realloc_aligned", Kind::REALLOC),
    ("realloc_aligned_at", Kind::REALLOC),
    ("rezalloc_aligned", Kind::REALLOC),
    ("rezalloc_aligned_at", Kind::REALLOC),
    ("reallocn", Kind::REALLOCARRAY),
    ("recalloc", Kind::REALLOCARRAY),
    ("recalloc_aligned", Kind::REALLOCARRAY),
    ("recalloc_aligned_at", Kind::REALLOCARRAY),
    ("free_size", Kind::FREE),
    ("free_size_aligned", Kind::FREE),
    ("free_aligned", Kind::FREE),
];

/// What names of an allocator begin with, and which there are. Those that are built into a program have prefixes, so that
/// the C library's stay beside them: jemalloc by itself and in Rust programs, mimalloc, tcmalloc.
const FAMILIES: [(&str, &[Names]); N_FAMILIES] = [
    ("", &[C, JEMALLOC]),
    ("je_", &[C, JEMALLOC]),
    ("_rjem_", &[C, JEMALLOC]),
    ("mi_", &[C, MIMALLOC]),
    ("tc_", &[C]),
];
/// Allocators that can be told apart in one file.
pub(super) const N_FAMILIES: usize = 5;

/// What a function of some name does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meant {
    /// Which allocator's it is.
    pub(super) family: usize,
    /// Of several names of one function the one with the lowest counts.
    pub(super) rank: usize,
    pub(super) kind: Kind,
}

static MEANINGS: LazyLock<FxHashMap<String, Meant>> = LazyLock::new(|| {
    let families = FAMILIES.iter().enumerate();
    let names = families.flat_map(|(family, (prefix, lists))| {
        lists.iter().copied().flatten().map(move |&(name, kind)| (family, prefix, name, kind))
    });
    let meant = names.enumerate().map(|(rank, (family, prefix, name, kind))| {
        (format!("{prefix}{name}"), Meant { family, rank, kind })
    });
    meant.collect()
});

/// What a function of this name does, if it is one of an allocator's.
pub(super) fn meant(name: &[u8]) -> Option<(&'static str, Meant)> {
    let (name, &meant) = MEANINGS.get_key_value(str::from_utf8(name).ok()?)?;
    Some((name, meant))
}

/// Whether there is no such allocator without a function of this name.
pub(super) fn is_malloc(name: &str) -> bool {
    FAMILIES.iter().any(|(prefix, _)| name.strip_prefix(prefix) == Some("malloc"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert!(MEANINGS.keys().all(|name| name.len() <= MAX_NAME_BYTES));
        let n_names: usize = FAMILIES.iter().flat_map(|it| it.1).map(|names| names.len()).sum();
        assert_eq!(MEANINGS.len(), n_names, "a name means two things");
        let kind = |name: &str| meant(name.as_bytes()).map(|(_, it)| it.kind);
        // (name, kind)
        let cases = [
            ("malloc", Some(Kind::MALLOC)),
            ("_rjem_mallocx", Some(Kind::MALLOC)),
            ("je_sdallocx", Some(Kind::FREE)),
            ("mi_realloc_aligned", Some(Kind::REALLOC)),
            ("tc_free", Some(Kind::FREE)),
            ("tc_mallocx", None),
            ("zalloc", None),
            ("mi_new", None),
            ("_Znwm", None),
            ("", None),
        ];
        for (name, want) in cases {
            assert_eq!(kind(name), want, "{name}");
        }
        let mallocs = ["malloc", "je_malloc", "_rjem_malloc", "mi_malloc", "tc_malloc"];
        assert!(mallocs.iter().all(|name| is_malloc(name)));
        assert!(!["mallocx", "mi_zalloc", "free"].iter().any(|name| is_malloc(name)));
    }
}
