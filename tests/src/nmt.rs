//! What a JVM says of its own memory: `jcmd PID VM.native_memory detail`, of one that was started with
//! `-XX:NativeMemoryTracking=detail`, and `System.native_heap_info`.

use std::{collections::BTreeMap, ops::Range, process::Command};

/// The answer to a command of jcmd's.
pub fn jcmd(pid: u32, command: &[&str]) -> String {
    let output = Command::new("jcmd").arg(pid.to_string()).args(command).output();
    let output = output.expect("jcmd is on the PATH");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "jcmd {pid} {command:?}: {said} {errors}");
    said
}

/// Ranges that are reserved, by category.
pub fn reserved(detail: &str) -> BTreeMap<String, Vec<Range<u64>>> {
    let mut ranges: BTreeMap<String, Vec<Range<u64>>> = BTreeMap::new();
    for line in detail.lines() {
        if let Some((range, category)) = reserved_in(line) {
            ranges.entry(category).or_default().push(range);
        }
    }
    ranges
}

/// Of `[0x… - 0x…] reserved 1024KB for Thread Stack from`, or `reserved and committed`; lines that are indented are parts.
fn reserved_in(line: &str) -> Option<(Range<u64>, String)> {
    let (range, rest) = line.strip_prefix('[')?.split_once("] reserved")?;
    let (start, end) = range.split_once(" - ")?;
    let number = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    let category = rest.split_once(" for ")?.1;
    let category = category.strip_suffix(" from").unwrap_or(category);
    Some((number(start)?..number(end)?, category.trim().to_owned()))
}

/// What glibc's `malloc_info` says: bytes that are in use in each arena, headers and threads' caches included, and in blocks
/// with mappings of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeapInfo {
    /// The main arena first.
    pub arenas: Vec<u64>,
    /// Blocks with mappings of their own.
    pub mmapped_bytes: u64,
}

impl HeapInfo {
    /// From the text of `System.native_heap_info`.
    pub fn parse(text: &str) -> Option<Self> {
        let (heaps, all) = text.rsplit_once("</heap>")?;
        let heaps = heaps.split("</heap>");
        let in_use = |heap: &str| {
            let free = size(heap, "<total type=\"fast\"")? + size(heap, "<total type=\"rest\"")?;
            size(heap, "<system type=\"current\"")?.checked_sub(free)
        };
        let arenas = heaps.map(in_use).collect::<Option<_>>()?;
        Some(Self { arenas, mmapped_bytes: size(all, "<total type=\"mmap\"")? })
    }
}

/// The size on the line of `text` that begins with `what`.
fn size(text: &str, what: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(what))?;
    let (_, size) = line.rsplit_once("size=\"")?;
    size.split('"').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ranges of a category, not their committed parts, not the frames that asked for them.
    #[test]
    fn ranges() {
        let text = "[0x00007f0010000000 - 0x00007f0010001000] reserved and committed 4KB for Internal from\n    \
            [0x00007ff8692039c3]VirtualMemoryTracker::add_reserved_region(unsigned char*)+0x263\n\n\
            [0x00007f0000000000 - 0x00007f0000100000] reserved 1024KB for Thread Stack from\n\n\t\
            [0x00007f00000f0000 - 0x00007f0000100000] committed 64KB from\n\
            [0x00007f0001000000 - 0x00007f0001100000] reserved 1024KB for Thread Stack\n";
        let found = reserved(text);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["Internal", "Thread Stack"]);
        let stacks = [0x7f00_0000_0000..0x7f00_0010_0000, 0x7f00_0100_0000..0x7f00_0110_0000];
        assert_eq!(found["Thread Stack"], stacks);
    }

    /// What is in use of each arena, and the blocks that the sums behind the last one tell of.
    #[test]
    fn heap_info() {
        let heap = |n: u64, rest: u64| {
            format!(
                "<heap nr=\"{n}\">\n<sizes>\n  <size from=\"33\" to=\"33\" total=\"99\" count=\"3\"/>\n</sizes>\n\
                 <total type=\"fast\" count=\"1\" size=\"32\"/>\n<total type=\"rest\" count=\"9\" size=\"{rest}\"/>\n\
                 <system type=\"current\" size=\"8192\"/>\n</heap>\n"
            )
        };
        let all = "<total type=\"mmap\" count=\"9\" size=\"4096\"/>\n</malloc>\n";
        let text = [&heap(0, 1000), &heap(1, 8000), all].concat();
        let want = HeapInfo { arenas: vec![7160, 160], mmapped_bytes: 4096 };
        assert_eq!(HeapInfo::parse(&text), Some(want));
        assert_eq!(HeapInfo::parse("no malloc_info here"), None);
    }
}
