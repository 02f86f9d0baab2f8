//! Variables of libraries that no file holds (`.bss`): anonymous memory behind a library's mappings.
//!
//! In: the map, and the first page of each file with code. Out: the ranges of the segments that can be written to, as the
//! program headers have them: never more than they claim.

use std::ops::Range;

use super::mappings::CodeFiles;
use crate::target::maps::Mapping;

/// Bytes of a file that are looked at: the header and the program headers behind it.
pub(super) const HEAD_BYTES: usize = 4096;
const HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;
/// More than any library's variables.
const MAX_SEGMENT_BYTES: u64 = 4 << 30;
const PAGE_BYTES: u64 = 4096;
const PT_LOAD: u32 = 1;
const PF_W: u32 = 2;
/// Files that are looked at.
const MAX_FILES: usize = 4096;

/// The ranges of all libraries; `head` gives the first bytes of a mapped file.
pub(super) fn ranges(
    maps: &[Mapping],
    code: &CodeFiles,
    mut head: impl FnMut(&Mapping) -> Option<Vec<u8>>,
) -> Vec<Range<u64>> {
    let begins = maps.iter().filter(|mapping| mapping.offset == 0 && code.has(mapping));
    let mut found = Vec::new();
    for mapping in begins.take(MAX_FILES) {
        found.extend(head(mapping).iter().flat_map(|head| segments(head, mapping.start)));
    }
    found
}

/// The segments that can be written to, of an ELF file whose first byte lies at `start`.
fn segments(head: &[u8], start: u64) -> Vec<Range<u64>> {
    let number = |at: usize, len: usize| {
        let bytes = head.get(at..at.checked_add(len)?)?;
        Some(bytes.iter().rev().fold(0, |n, &byte| n << 8 | u64::from(byte)))
    };
    let headers = || {
        // 64 bits, little-endian.
        head.starts_with(b"\x7fELF\x02\x01").then_some(())?;
        Some((usize::try_from(number(32, 8)?).ok()?, number(56, 2)? as usize))
    };
    let Some((first, n)) = headers().filter(|_| head.len() >= HEADER_BYTES) else {
        return Vec::new();
    };
    let mut bias = None;
    let mut found = Vec::new();
    for n in 0..n {
        let Some(at) = first.checked_add(n * PROGRAM_HEADER_BYTES) else { break };
        let fields = (number(at, 4), number(at.saturating_add(4), 4));
        let (Some(kind), Some(flags)) = fields else { break };
        let place = (number(at + 16, 8), number(at + 40, 8));
        let (Some(address), Some(bytes)) = place else { break };
        if kind as u32 != PT_LOAD {
            continue;
        }
        let bias = *bias.get_or_insert(start.wrapping_sub(address & !(PAGE_BYTES - 1)));
        if flags as u32 & PF_W != 0 && bytes <= MAX_SEGMENT_BYTES {
            let begin = bias.wrapping_add(address);
            let end =
                begin.checked_add(bytes).and_then(|end| end.checked_next_multiple_of(PAGE_BYTES));
            found.extend(end.map(|end| (begin & !(PAGE_BYTES - 1))..end));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::maps;

    /// The test's own variables lie where its program header says.
    #[test]
    fn own_variables() {
        static COUNTER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let pid = std::process::id();
        let maps = maps::read(pid).unwrap();
        let code = CodeFiles::of(&maps);
        let head = |mapping: &Mapping| {
            let path = format!("/proc/self/map_files/{:x}-{:x}", mapping.start, mapping.end);
            let file = std::fs::read(path)
                .or_else(|_| std::fs::read(String::from_utf8_lossy(&mapping.path).into_owned()));
            file.ok().map(|bytes| bytes[..bytes.len().min(HEAD_BYTES)].to_vec())
        };
        let found = ranges(&maps, &code, head);
        let address = &raw const COUNTER as u64;
        assert!(found.iter().any(|range| range.contains(&address)), "{address:#x} {found:x?}");
        let local = 0_u8;
        let on_stack = &raw const local as u64;
        assert!(!found.iter().any(|range| range.contains(&on_stack)));
    }

    /// Nothing that a file claims makes more than its segments, or an endless loop.
    #[test]
    fn lies() {
        let mut head = vec![0_u8; HEAD_BYTES];
        head[..6].copy_from_slice(b"\x7fELF\x02\x01");
        head[32..40].copy_from_slice(&64_u64.to_le_bytes());
        head[56..58].copy_from_slice(&u16::MAX.to_le_bytes());
        assert!(segments(&head, 0x1000).is_empty());
        let segment = |head: &mut Vec<u8>, address: u64, bytes: u64| {
            head[64..72].copy_from_slice(&[1, 0, 0, 0, 6, 0, 0, 0]);
            head[80..88].copy_from_slice(&address.to_le_bytes());
            head[104..112].copy_from_slice(&bytes.to_le_bytes());
        };
        // (address, size, range found)
        let cases = [
            (0x2010, 0x100, Some(0x1000..0x2000)),
            (0x2010, u64::MAX, None),
            (0x2010, MAX_SEGMENT_BYTES + 1, None),
        ];
        for (address, bytes, want) in cases {
            segment(&mut head, address, bytes);
            assert_eq!(segments(&head, 0x1000).first().cloned(), want, "{bytes:#x}");
        }
        for len in [0, 5, 40, 63, 80, 100] {
            segments(&head[..len], 0x1000);
        }
    }
}
