//! What rows are called for people.

use crate::footprint::RowKind;

/// A row's name, and what it is where the name does not tell.
pub(super) fn of(kind: RowKind) -> String {
    match explanation(kind) {
        "" => short(kind).to_owned(),
        explanation => format!("{}: {explanation}", short(kind)),
    }
}

/// A row's name.
pub(super) fn short(kind: RowKind) -> &'static str {
    match kind {
        RowKind::JavaHeapUsed => "Java heap, used",
        RowKind::JavaHeapUnused => "Java heap, not used",
        RowKind::JavaHeapViews => "Java heap, counted again",
        RowKind::Metaspace => "metaspace",
        RowKind::ClassSpace => "class space",
        RowKind::Cds => "class archive",
        RowKind::CodeCache => "code cache",
        RowKind::Gc => "garbage collector's tables",
        RowKind::ThreadStacks => "thread stacks",
        RowKind::MallocLive => "malloc, in use",
        RowKind::MallocReturnable => "malloc, returnable",
        RowKind::MallocKept => "malloc, kept",
        RowKind::MallocFragments => "malloc, fragments",
        RowKind::Allocator => "another allocator",
        RowKind::Anonymous => "anonymous memory",
        RowKind::Library => "libraries",
        RowKind::File => "mapped files",
        RowKind::Shared => "shared memory",
        RowKind::Kernel => "kernel's pages",
        RowKind::Unexplained => "unexplained",
    }
}

fn explanation(kind: RowKind) -> &'static str {
    match kind {
        RowKind::JavaHeapUsed => "objects, live or not collected yet",
        RowKind::JavaHeapUnused => "resident, but no object lies there now",
        RowKind::JavaHeapViews => "the same pages, mapped several times by ZGC",
        RowKind::Metaspace => "descriptions of classes and methods",
        RowKind::ClassSpace => "classes, by compressed pointers",
        RowKind::Cds => "classes that the JDK brings along (CDS)",
        RowKind::CodeCache => "compiled code and the interpreter",
        RowKind::Gc => "mark bitmaps, card tables and the like",
        RowKind::ThreadStacks | RowKind::Unexplained | RowKind::Allocator => "",
        RowKind::MallocLive => "blocks that were not freed",
        RowKind::MallocReturnable => "free whole pages that malloc_trim gives back",
        RowKind::MallocKept => "free whole pages that malloc_trim does not give back",
        RowKind::MallocFragments => "free bytes on pages with blocks in use",
        RowKind::Anonymous => "what the program has mapped for itself",
        RowKind::Library => "code, constants and variables",
        RowKind::File => "jars, data, what was mapped of files",
        RowKind::Shared => "with other processes, or mapped to be",
        RowKind::Kernel => "vdso and the like",
    }
}
