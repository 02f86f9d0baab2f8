//! A process's memory map as the kernel prints it, `/proc/PID/maps`.
//!
//! File names are bytes that anyone may choose: a name that is not UTF-8 or holds a line break (the kernel writes it
//! as `\012`) must not spoil the rest.

use std::io;

use serde::{Deserialize, Serialize};

use super::proc;

/// What is read of a map: a kernel has room for hundreds of thousands of mappings, each with a long path.
const MAX_BYTES: u64 = 64 << 20;

/// One mapping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// One past the last address.
    pub end: u64,
    /// Whether it can be read, written or executed at all.
    pub access: bool,
    /// Whether it can be executed.
    pub exec: bool,
    /// Offset in the file.
    pub offset: u64,
    /// Device of the file, as major << 32 | minor.
    pub device: u64,
    /// Inode of the file, 0 for memory without one.
    pub inode: u64,
    /// Path of the file, a name in brackets, or nothing. A deleted file's ends in ` (deleted)`.
    pub path: Vec<u8>,
}

impl Mapping {
    /// Its size in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.end - self.start
    }

    /// The path without directories, bytes that are not UTF-8 replaced.
    pub fn file_name(&self) -> String {
        let name = self.path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        String::from_utf8_lossy(name).into_owned()
    }

    /// Whether the code in it was made by the process itself: no file and no name of the kernel's.
    pub fn is_anonymous(&self) -> bool {
        self.inode == 0 && !self.path.starts_with(b"[")
    }
}

/// The map of process `pid`, by address.
pub fn read(pid: u32) -> io::Result<Vec<Mapping>> {
    proc::read_up_to(pid, "maps", MAX_BYTES).map(|text| parse(&text))
}

/// The map that `text` is; lines that are not of the kernel's form are passed over.
pub fn parse(text: &[u8]) -> Vec<Mapping> {
    text.split(|&byte| byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Mapping> {
    let mut rest = line;
    let range = field(&mut rest)?;
    let (start, end) = range.split_at_checked(range.iter().position(|&byte| byte == b'-')?)?;
    let permissions = field(&mut rest)?;
    let offset = field(&mut rest)?;
    let device = field(&mut rest)?;
    let inode = field(&mut rest)?;
    let (start, end) = (hex(start)?, hex(&end[1..])?);
    Some(Mapping {
        start,
        end: Some(end).filter(|&end| end > start)?,
        access: permissions.iter().take(3).any(|&byte| byte != b'-'),
        exec: permissions.get(2) == Some(&b'x'),
        offset: hex(offset)?,
        device: device_number(device)?,
        inode: std::str::from_utf8(inode).ok()?.parse().ok()?,
        path: rest.trim_ascii_start().to_vec(),
    })
}

/// Takes what stands before the next space.
fn field<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let text = rest.trim_ascii_start();
    let end = text.iter().position(|&byte| byte == b' ').unwrap_or(text.len());
    let (field, after) = text.split_at(end);
    *rest = after;
    (!field.is_empty()).then_some(field)
}

/// `fe:00`.
fn device_number(text: &[u8]) -> Option<u64> {
    let (major, minor) = text.split_at_checked(text.iter().position(|&byte| byte == b':')?)?;
    Some(hex(major)? << 32 | hex(&minor[1..])?)
}

fn hex(digits: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        // (line, start, end, access, exec, offset, inode, file name)
        type Case = (&'static [u8], u64, u64, bool, bool, u64, u64, &'static str);
        let cases: [Case; 5] = [
            (
                b"1000-3000 r-xp 00002000 fe:00 77   /usr/lib/libz.so.1",
                0x1000,
                0x3000,
                true,
                true,
                0x2000,
                77,
                "libz.so.1",
            ),
            (b"7f00-8f00 ---p 00000000 00:00 0 ", 0x7f00, 0x8f00, false, false, 0, 0, ""),
            (
                b"1000-2000 rw-p 00000000 00:00 0  [heap]",
                0x1000,
                0x2000,
                true,
                false,
                0,
                0,
                "[heap]",
            ),
            (
                b"1000-2000 r--p 0 fe:00 5  /tmp/a b\xff (deleted)",
                0x1000,
                0x2000,
                true,
                false,
                0,
                5,
                "a b\u{fffd} (deleted)",
            ),
            (
                b"ffffffffff600000-ffffffffff601000 --xp 0 00:00 0 [vsyscall]",
                0xffff_ffff_ff60_0000,
                0xffff_ffff_ff60_1000,
                true,
                true,
                0,
                0,
                "[vsyscall]",
            ),
        ];
        for (line, start, end, access, exec, offset, inode, name) in cases {
            let mapping = parse_line(line).unwrap();
            let seen = (
                mapping.start,
                mapping.end,
                mapping.access,
                mapping.exec,
                mapping.offset,
                mapping.inode,
            );
            assert_eq!(seen, (start, end, access, exec, offset, inode), "{line:?}");
            assert_eq!(mapping.file_name(), name);
        }
    }

    /// What is not a mapping is passed over, what is one beside it is kept.
    #[test]
    fn other_lines() {
        let text = b"\nx\n2000-1000 rw-p 0 0:0 0\n1000-2000 rw-p\n1000-2000 rw-p 0 0:0 0\n-- -- -- -- --\n";
        assert_eq!(parse(text).len(), 1);
    }

    /// The test's own map holds its own code.
    #[test]
    fn own_map() {
        let here = own_map as fn() as usize as u64;
        let maps = read(std::process::id()).unwrap();
        assert!(
            maps.iter().any(|mapping| mapping.exec && (mapping.start..mapping.end).contains(&here))
        );
    }
}
