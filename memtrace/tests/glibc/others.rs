//! Processes with other allocators than the system's glibc.

use memtrace::footprint::glibc::NoMalloc;
use memtrace_tests::allocators::{STRIPPED, all};

use super::Scan;

/// A glibc inside the program is found without a symbol; where another allocator serves, that is said, with its name
/// where its file tells.
#[test]
fn whose_heap_it_is() {
    let names = [
        ("jemalloc", "jemalloc"),
        ("tcmalloc", "tcmalloc"),
        ("mimalloc", "mimalloc"),
        ("musl", "musl"),
    ];
    for allocator in all("glibc::others::whose_heap_it_is").into_iter().chain([STRIPPED]) {
        let mut subject = allocator.subject("heap_busy", &["2", "256", "100"]);
        subject.finish();
        let found = Scan::try_of(subject.pid());
        let name = allocator.name;
        if name.starts_with("glibc") {
            let malloc = found.unwrap().malloc;
            // Of 20,000 slots all have blocks.
            assert!(malloc.live_bytes() > 50 << 20, "{name}: {malloc:#x?}");
            assert_eq!(malloc.losses.unknown_bytes, 0, "{name}: {malloc:#x?}");
            assert!(malloc.arenas.len() >= 2, "{name}");
            let n_threads: usize = malloc.arenas.iter().map(|arena| arena.threads.len()).sum();
            assert_eq!(n_threads, 3, "{name}: {:#x?}", malloc.arenas);
            continue;
        }
        let NoMalloc::NotInUse(said) = found.unwrap_err();
        let want = names.iter().find(|(start, _)| name.starts_with(start)).map(|(_, said)| *said);
        // A library with the C library in it has no file to tell; nor has one that nobody knows.
        let want = want.filter(|_| !name.ends_with("static"));
        if let Some(want) = want {
            assert_eq!(said.as_deref(), Some(want), "{name}");
        }
    }
}
