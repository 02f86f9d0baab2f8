//! Code that processes mapped, as perf tells of it.
//!
//! A process that lives for a millisecond is gone before its map can be read. The kernel tells of every mapping with
//! code, with the file's name, in records of its own (`PERF_RECORD_MMAP2`, include/uapi/linux/perf_event.h).

use crate::target::maps::Mapping;

/// What happened to the code of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeChange {
    /// When, in nanoseconds of the monotonic clock.
    pub time_ns: u64,
    /// The process.
    pub tgid: u32,
    /// The mapping that came; `None` for a new image, which has nothing of the old one.
    pub mapping: Option<Mapping>,
}

/// A record of a perf buffer, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CodeRecord {
    /// The code of a process changed.
    Change(CodeChange),
    /// So many records were lost.
    Lost(u64),
    /// Something else.
    Other,
}

const PERF_RECORD_LOST: u32 = 2;
const PERF_RECORD_COMM: u32 = 3;
const PERF_RECORD_MMAP2: u32 = 10;
const PERF_RECORD_MISC_COMM_EXEC: u16 = 1 << 13;
const PROT_ANY: u32 = 7;
const PROT_EXEC: u32 = 4;
/// Where the name stands in a mapping's record.
const MMAP2_NAME: usize = 72;

impl CodeRecord {
    /// Decodes one record, whose sample time stands at its end.
    pub fn decode(record: &[u8]) -> Option<Self> {
        let kind = u32_at(record, 0)?;
        let misc = u16::from_ne_bytes(record.get(4..6)?.try_into().ok()?);
        let time_ns = u64_at(record, record.len().checked_sub(8)?)?;
        let change =
            |mapping| Some(Self::Change(CodeChange { time_ns, tgid: u32_at(record, 8)?, mapping }));
        match kind {
            PERF_RECORD_LOST => Some(Self::Lost(u64_at(record, 16)?)),
            PERF_RECORD_COMM if misc & PERF_RECORD_MISC_COMM_EXEC != 0 => change(None),
            PERF_RECORD_MMAP2 => change(Some(mapping(record)?)),
            _ => Some(Self::Other),
        }
    }
}

fn mapping(record: &[u8]) -> Option<Mapping> {
    let (start, len) = (u64_at(record, 16)?, u64_at(record, 24)?);
    let prot = u32_at(record, 64)?;
    let name = record.get(MMAP2_NAME..record.len() - 8)?;
    let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
    // Memory without a file is called `//anon` here and nothing in the map.
    let path = if name == b"//anon" { Vec::new() } else { name.to_vec() };
    Some(Mapping {
        start,
        end: start.checked_add(len)?,
        access: prot & PROT_ANY != 0,
        exec: prot & PROT_EXEC != 0,
        offset: u64_at(record, 32)?,
        device: u64::from(u32_at(record, 40)?) << 32 | u64::from(u32_at(record, 44)?),
        inode: u64_at(record, 48)?,
        path,
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u32, misc: u16, body: &[u64]) -> Vec<u8> {
        let size = (8 + body.len() * 8) as u16;
        let head = [&kind.to_ne_bytes()[..], &misc.to_ne_bytes(), &size.to_ne_bytes()].concat();
        let body: Vec<u8> = body.iter().flat_map(|word| word.to_ne_bytes()).collect();
        [head, body].concat()
    }

    fn two(low: u32, high: u32) -> u64 {
        u64::from(low) | u64::from(high) << 32
    }

    #[test]
    fn records() {
        let name = u64::from_ne_bytes(*b"/lib/x\0\0");
        let anonymous = u64::from_ne_bytes(*b"//anon\0\0");
        let mmap = |name| {
            record(
                10,
                2,
                &[two(7, 8), 0x1000, 0x2000, 0x500, two(1, 2), 99, 0, two(5, 2), name, 77],
            )
        };
        let want = |path: &[u8]| {
            let path = path.to_vec();
            let mapping = Mapping {
                start: 0x1000,
                end: 0x3000,
                access: true,
                exec: true,
                offset: 0x500,
                device: 1 << 32 | 2,
                inode: 99,
                path,
            };
            CodeRecord::Change(CodeChange { time_ns: 77, tgid: 7, mapping: Some(mapping) })
        };
        assert_eq!(CodeRecord::decode(&mmap(name)), Some(want(b"/lib/x")));
        assert_eq!(CodeRecord::decode(&mmap(anonymous)), Some(want(b"")));
        let exec = record(3, 1 << 13, &[two(7, 8), 0, 0, 77]);
        let new_image = CodeChange { time_ns: 77, tgid: 7, mapping: None };
        assert_eq!(CodeRecord::decode(&exec), Some(CodeRecord::Change(new_image)));
        assert_eq!(
            CodeRecord::decode(&record(3, 0, &[two(7, 8), 0, 0, 77])),
            Some(CodeRecord::Other)
        );
        assert_eq!(CodeRecord::decode(&record(2, 0, &[1, 5, 77])), Some(CodeRecord::Lost(5)));
    }

    #[test]
    fn cut() {
        let whole = record(10, 2, &[0; 10]);
        for len in 0..whole.len() {
            CodeRecord::decode(&whole[..len]);
        }
    }
}
