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

/// What glibc's `malloc_info` says in all: bytes that it has of the kernel, free ones, and blocks that it has mapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeapInfo {
    /// Of all arenas.
    pub system_bytes: u64,
    /// In fastbins and bins, and tops.
    pub free_bytes: u64,
    /// Blocks with mappings of their own.
    pub mmapped_bytes: u64,
}

impl HeapInfo {
    /// From the text of `System.native_heap_info`.
    pub fn parse(text: &str) -> Option<Self> {
        // What stands behind the last heap is of all.
        let (_, all) = text.rsplit_once("</heap>")?;
        let size = |what: &str| {
            let line = all.lines().find(|line| line.starts_with(what))?;
            let (_, size) = line.rsplit_once("size=\"")?;
            size.split('"').next()?.parse::<u64>().ok()
        };
        let free_bytes = size("<total type=\"fast\"")? + size("<total type=\"rest\"")?;
        let mmapped_bytes = size("<total type=\"mmap\"")?;
        Some(Self { system_bytes: size("<system type=\"current\"")?, free_bytes, mmapped_bytes })
    }

    /// Bytes that are in use, headers and threads' caches included.
    pub fn in_use_bytes(&self) -> u64 {
        self.system_bytes - self.free_bytes + self.mmapped_bytes
    }
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

    /// The sums behind the last heap.
    #[test]
    fn heap_info() {
        let text = "<heap nr=\"0\">\n<total type=\"fast\" count=\"9\" size=\"99\"/>\n</heap>\n\
            <total type=\"fast\" count=\"1\" size=\"32\"/>\n<total type=\"rest\" count=\"27\" size=\"100\"/>\n\
            <total type=\"mmap\" count=\"9\" size=\"4096\"/>\n<system type=\"current\" size=\"8192\"/>\n";
        let info = HeapInfo::parse(text).unwrap();
        let want = HeapInfo { system_bytes: 8192, free_bytes: 132, mmapped_bytes: 4096 };
        assert_eq!((info, info.in_use_bytes()), (want, 8192 - 132 + 4096));
        assert_eq!(HeapInfo::parse("no malloc_info here"), None);
    }
}
