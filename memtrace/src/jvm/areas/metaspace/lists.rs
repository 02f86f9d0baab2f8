//! The VM's lists of metaspace nodes.
//!
//! `MetaspaceContext { const char* _name; VirtualSpaceList* _vslist; ChunkManager* _cm; }`,
//! `VirtualSpaceList { [vtable]; const char* _name; VirtualSpaceNode* _first_node; … }` and
//! `VirtualSpaceNode { VirtualSpaceNode* _next; ReservedSpace | MetaWord* _base; size_t … }` (share/memory/metaspace,
//! JDK 16 to 25). The offsets of the last two are found by what must hold: a node's base lies in a stretch that was
//! reserved, and its size, in bytes and again in words, keeps it there.

use std::ops::Range;

use rustc_hash::FxHashSet;

use super::super::runs::Runs;
use crate::jvm::{Memory, library::Library};

/// What the two are called.
const CLASS_SPACE: &[u8] = b"class-space";
const OTHER: &[u8] = b"non-class-space";
/// Bytes of the library's data that are searched; libjvm has about 2 MiB.
const MAX_DATA_BYTES: u64 = 16 << 20;
const PAGE_BYTES: u64 = 4096;
/// Nodes of a list: 64 MiB each, so 256 GiB.
const MAX_NODES: usize = 4096;
/// Words of a list and of a node that are looked at.
const LIST_WORDS: usize = 4;
const NODE_WORDS: usize = 14;

/// The stretches that were reserved for each.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Lists {
    pub(super) class_space: Vec<Range<u64>>,
    pub(super) other: Vec<Range<u64>>,
}

/// Both lists; `None` where the one that every JVM has was not found.
pub(super) fn find(memory: &dyn Memory, library: &Library, runs: &Runs) -> Option<Lists> {
    let mut lists = Lists::default();
    for context in contexts(memory, library) {
        let Ok(name) = memory.u64(context).and_then(|name| memory.text(name)) else { continue };
        let list = match &name[..] {
            CLASS_SPACE => &mut lists.class_space,
            OTHER => &mut lists.other,
            _ => continue,
        };
        if let Ok(nodes) = memory.u64(context.wrapping_add(8)) {
            list.extend(nodes_of(memory, nodes, runs));
        }
    }
    (!lists.other.is_empty()).then_some(lists)
}

/// What the library's variables point at and begins with a pointer at one of the two names.
fn contexts(memory: &dyn Memory, library: &Library) -> Vec<u64> {
    let mut words = FxHashSet::default();
    for &(start, end) in library.data() {
        let end = end.min(start.saturating_add(MAX_DATA_BYTES));
        let mut page = Vec::new();
        for at in ((start & !7)..end).step_by(PAGE_BYTES as usize) {
            page.resize((end - at).min(PAGE_BYTES) as usize, 0);
            if memory.read(at, &mut page).is_ok() {
                words.extend(page.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)));
            }
        }
    }
    let is_inside =
        |word: u64| library.data().iter().any(|&(start, end)| (start..end).contains(&word));
    let candidates: Vec<u64> = words
        .into_iter()
        .filter(|&word| word >= PAGE_BYTES && word % 8 == 0 && word >> 47 == 0 && !is_inside(word))
        .collect();
    let mut bytes = Vec::new();
    memory.read_each(&candidates, 8, &mut bytes);
    let names: Vec<u64> =
        bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
    // Text is constant, and lies in the library before its data.
    let first_data = library.data().iter().map(|&(start, _)| start).min().unwrap_or(0);
    let is_text = |name: u64| name < first_data && first_data - name < MAX_LIBRARY_BYTES;
    let named = candidates.into_iter().zip(names).filter(|&(_, name)| is_text(name));
    let mut found: Vec<u64> = named
        .filter(|&(_, name)| {
            memory.text(name).is_ok_and(|text| text == CLASS_SPACE || text == OTHER)
        })
        .map(|(context, _)| context)
        .collect();
    found.sort_unstable();
    found
}

/// Bytes before a library's data.
const MAX_LIBRARY_BYTES: u64 = 256 << 20;

/// The nodes of the `VirtualSpaceList` at `list`.
fn nodes_of(memory: &dyn Memory, list: u64, runs: &Runs) -> Vec<Range<u64>> {
    let first = (0..LIST_WORDS as u64).find_map(|n| {
        let node = memory.u64(list.wrapping_add(8 * n)).ok()?;
        range_of_node(memory, node, runs).map(|_| node)
    });
    let (mut node, mut found) = (first.unwrap_or(0), Vec::new());
    while found.len() < MAX_NODES
        && let Some(range) = range_of_node(memory, node, runs)
        && !found.contains(&range)
    {
        found.push(range);
        node = memory.u64(node).unwrap_or(0);
    }
    found
}

/// What the `VirtualSpaceNode` at `node` has reserved.
fn range_of_node(memory: &dyn Memory, node: u64, runs: &Runs) -> Option<Range<u64>> {
    if node < PAGE_BYTES || !node.is_multiple_of(8) {
        return None;
    }
    let bytes = memory.bytes(node, 8 * NODE_WORDS).ok()?;
    let words: Vec<u64> =
        bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
    let base = words[1];
    let run = runs.at(base)?;
    // `_base` comes once more, before its size in words.
    let again = (2..NODE_WORDS - 1).find(|&n| words[n] == base)?;
    let size = words[again + 1].checked_mul(8)?;
    let end = base.checked_add(size)?;
    let is_told_twice = words[2] == size || words[2] == size / 8 || words[2] == end;
    (size != 0 && end <= run.end && is_told_twice).then_some(base..end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{jvm::Capture, target::maps::parse};

    /// Two nodes that lead to each other, one that lies, and one outside of what is mapped.
    #[test]
    fn nodes() {
        let maps = parse(b"100000-200000 rw-p 0 00:00 0\n300000-400000 ---p 0 00:00 0\n");
        let runs = Runs::reserved(&maps);
        let node = |next: u64, base: u64, bytes: u64, words: u64| {
            let mut node = [0_u64; NODE_WORDS];
            (node[0], node[1], node[2]) = (next, base, bytes);
            (node[7], node[8]) = (base, words);
            node.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>()
        };
        let memory = Capture::of_ranges([
            (
                0x8000,
                [0x9999_u64, 0x1234, 0x9000, 2].iter().flat_map(|w| w.to_le_bytes()).collect(),
            ),
            (0x9000, node(0x9100, 0x100000, 0x80000, 0x10000)),
            (0x9100, node(0x9000, 0x300000, 0x100000, 0x20000)),
            (0x9200, node(0, 0x100000, 0x200000, 0x40000)),
            (0x9300, node(0, 0x500000, 0x1000, 0x200)),
            (0x9400, node(0, 0x100000, 0x1000, 0x300)),
        ]);
        assert_eq!(nodes_of(&memory, 0x8000, &runs), [0x100000..0x180000, 0x300000..0x400000]);
        for node in [0x9200, 0x9300, 0x9400, 0, 7, u64::MAX - 7] {
            assert_eq!(range_of_node(&memory, node, &runs), None, "{node:#x}");
        }
    }
}
