//! The JVM's library as it lies in a target's memory: where it is, and the addresses of what it exports.
//!
//! A map or a [`Memory`] goes in, addresses come out. No file is opened: the dynamic symbols are read as the loader
//! left them in memory, so a library that was deleted, replaced by an upgrade or lies in another root is the right one.

use super::memory::{Memory, Unreadable};
use crate::target::maps::Mapping;

/// What the library of HotSpot is called.
const FILE_NAME: &str = "libjvm.so";
/// Program headers, entries of the dynamic section and steps along a hash chain that are looked at.
const MAX_SEGMENTS: u64 = 64;
const MAX_DYNAMIC: u64 = 256;
const MAX_CHAIN: u32 = 4096;

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const DT_HASH: u64 = 4;
const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;
const DT_GNU_HASH: u64 = 0x6fff_fef5;
const PROGRAM_HEADER_BYTES: u64 = 56;
const SYMBOL_BYTES: u64 = 24;

/// A shared library in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    /// What is added to an address of the file to get one in memory.
    bias: u64,
    symbols: u64,
    strings: u64,
    hash: Hash,
    /// Its segments that can be written to, data and bss: first address and one past the last.
    data: Vec<(u64, u64)>,
}

/// Which table of hashes a library has. Old builds have only the old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hash {
    Gnu(u64),
    SysV(u64),
    None,
}

/// The address of a symbol, `None` if there is none of its name.
type Found = Result<Option<u64>, Unreadable>;

/// Where HotSpot's library begins in a process with these mappings.
#[must_use]
pub fn libjvm(maps: &[Mapping]) -> Option<u64> {
    let is_libjvm = |mapping: &&Mapping| {
        mapping.offset == 0 && mapping.inode != 0 && {
            let name = mapping.file_name();
            name.strip_suffix(" (deleted)").unwrap_or(&name) == FILE_NAME
        }
    };
    maps.iter().find(is_libjvm).map(|mapping| mapping.start)
}

impl Library {
    /// The library whose first byte lies at `start`; `None` when no library with exports lies there.
    pub fn at(memory: &dyn Memory, start: u64) -> Result<Option<Self>, Unreadable> {
        if memory.u32(start)? != u32::from_le_bytes(*b"\x7fELF") {
            return Ok(None);
        }
        let headers = start.wrapping_add(memory.u64(start.wrapping_add(32))?);
        let n_headers = u64::from(memory.u16(start.wrapping_add(56))?).min(MAX_SEGMENTS);
        let (mut first, mut dynamic, mut data) = (None, None, Vec::new());
        for n in 0..n_headers {
            let header = headers.wrapping_add(n * PROGRAM_HEADER_BYTES);
            let address = memory.u64(header.wrapping_add(16))?;
            match memory.u32(header)? {
                PT_LOAD => {
                    first = first.or(Some(address & !0xfff));
                    if memory.u32(header.wrapping_add(4))? & 2 != 0 {
                        data.push((address, memory.u64(header.wrapping_add(40))?));
                    }
                }
                PT_DYNAMIC => dynamic = Some(address),
                _ => {}
            }
        }
        let (Some(first), Some(dynamic)) = (first, dynamic) else { return Ok(None) };
        let bias = start.wrapping_sub(first);
        let data = data
            .into_iter()
            .map(|(address, len)| {
                (bias.wrapping_add(address), bias.wrapping_add(address).wrapping_add(len))
            })
            .collect();
        Self::of_dynamic(memory, bias, bias.wrapping_add(dynamic), data)
    }

    fn of_dynamic(
        memory: &dyn Memory,
        bias: u64,
        dynamic: u64,
        data: Vec<(u64, u64)>,
    ) -> Result<Option<Self>, Unreadable> {
        let mut library = Self { bias, symbols: 0, strings: 0, hash: Hash::None, data };
        for n in 0..MAX_DYNAMIC {
            let entry = dynamic.wrapping_add(n * 16);
            let value = memory.u64(entry.wrapping_add(8))?;
            // glibc has replaced these by addresses in memory, musl leaves them as they were.
            let address = if value < bias { value.wrapping_add(bias) } else { value };
            match memory.u64(entry)? {
                0 => break,
                DT_SYMTAB => library.symbols = address,
                DT_STRTAB => library.strings = address,
                DT_GNU_HASH => library.hash = Hash::Gnu(address),
                DT_HASH if library.hash == Hash::None => library.hash = Hash::SysV(address),
                _ => {}
            }
        }
        let is_whole = library.symbols != 0 && library.strings != 0;
        Ok(is_whole.then_some(library))
    }

    /// The segments that can be written to: first address and one past the last.
    pub(super) fn data(&self) -> &[(u64, u64)] {
        &self.data
    }

    /// The address of what the library exports as `name`.
    pub fn symbol(&self, memory: &dyn Memory, name: &str) -> Found {
        match self.hash {
            Hash::Gnu(table) => self.find_gnu(memory, table, name),
            Hash::SysV(table) => self.find_sysv(memory, table, name),
            Hash::None => Ok(None),
        }
    }

    fn find_gnu(&self, memory: &dyn Memory, table: u64, name: &str) -> Found {
        let n_buckets = memory.u32(table)?;
        let first_hashed = memory.u32(table.wrapping_add(4))?;
        let n_bloom = memory.u32(table.wrapping_add(8))?;
        if n_buckets == 0 {
            return Ok(None);
        }
        let buckets = table.wrapping_add(16 + 8 * u64::from(n_bloom));
        let chains = buckets.wrapping_add(4 * u64::from(n_buckets));
        let wanted = gnu_hash(name);
        let start = memory.u32(buckets.wrapping_add(4 * u64::from(wanted % n_buckets)))?;
        if start < first_hashed {
            return Ok(None);
        }
        for index in start..start.saturating_add(MAX_CHAIN) {
            let hash = memory.u32(chains.wrapping_add(4 * u64::from(index - first_hashed)))?;
            if (hash | 1) == (wanted | 1)
                && let Some(address) = self.symbol_named(memory, index, name)?
            {
                return Ok(Some(address));
            }
            if hash & 1 != 0 {
                break;
            }
        }
        Ok(None)
    }

    fn find_sysv(&self, memory: &dyn Memory, table: u64, name: &str) -> Found {
        let n_buckets = memory.u32(table)?;
        if n_buckets == 0 {
            return Ok(None);
        }
        let word = |n: u64| memory.u32(table.wrapping_add(8).wrapping_add(4 * n));
        let mut index = word(u64::from(sysv_hash(name) % n_buckets))?;
        for _ in 0..MAX_CHAIN {
            if index == 0 {
                break;
            }
            if let Some(address) = self.symbol_named(memory, index, name)? {
                return Ok(Some(address));
            }
            index = word(u64::from(n_buckets) + u64::from(index))?;
        }
        Ok(None)
    }

    /// The address of symbol `index` if that is its name and it is defined.
    fn symbol_named(&self, memory: &dyn Memory, index: u32, name: &str) -> Found {
        let symbol = self.symbols.wrapping_add(SYMBOL_BYTES * u64::from(index));
        let text = self.strings.wrapping_add(u64::from(memory.u32(symbol)?));
        let is_it = memory.text(text)? == name.as_bytes();
        let is_defined = memory.u16(symbol.wrapping_add(6))? != 0;
        let value = memory.u64(symbol.wrapping_add(8))?;
        Ok((is_it && is_defined).then(|| self.bias.wrapping_add(value)))
    }
}

/// The hash of a name in a `DT_GNU_HASH` table.
fn gnu_hash(name: &str) -> u32 {
    name.bytes().fold(5381, |hash: u32, byte| hash.wrapping_mul(33).wrapping_add(u32::from(byte)))
}

/// The hash of a name in a `DT_HASH` table.
fn sysv_hash(name: &str) -> u32 {
    name.bytes().fold(0, |hash: u32, byte| {
        let hash = (hash << 4).wrapping_add(u32::from(byte));
        let high = hash & 0xf000_0000;
        (hash ^ high >> 24) & !high
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{jvm::LiveMemory, target::maps};

    /// What the C library of the test exports lies where the linker has put it.
    #[test]
    fn own_libc() {
        let pid = std::process::id();
        let memory = LiveMemory::new(pid);
        let maps = maps::read(pid).unwrap();
        let libc =
            maps.iter().find(|map| map.offset == 0 && map.file_name().starts_with("libc.so"));
        let library = Library::at(&memory, libc.unwrap().start).unwrap().unwrap();
        // Both are functions of one version and no ifunc.
        for (name, address) in [
            ("getpid", libc::getpid as *const () as u64),
            ("abort", libc::abort as *const () as u64),
        ] {
            assert_eq!(library.symbol(&memory, name), Ok(Some(address)), "{name}");
        }
        assert_eq!(library.symbol(&memory, "gHotSpotVMStructs"), Ok(None));
        assert!(!library.data().is_empty());
    }

    /// Which mapping is the library's beginning.
    #[test]
    fn the_first_mapping_of_libjvm() {
        let mapping = |start: u64, offset, path: &str| Mapping {
            start,
            end: start + 0x1000,
            access: true,
            exec: false,
            offset,
            device: 1,
            inode: 7,
            path: path.as_bytes().to_vec(),
        };
        let maps = [
            mapping(0x1000, 0, "/usr/lib/libjvmti.so"),
            mapping(0x2000, 0, "/jdk/lib/server/libjvm.so (deleted)"),
            mapping(0x3000, 0x1000, "/jdk/lib/server/libjvm.so (deleted)"),
        ];
        assert_eq!(libjvm(&maps), Some(0x2000));
        assert_eq!(libjvm(&maps[..1]), None);
    }

    /// What is no library is none.
    #[test]
    fn no_library() {
        let memory = crate::jvm::Capture::of_ranges([(0x1000, vec![0; 4096])]);
        assert_eq!(Library::at(&memory, 0x1000), Ok(None));
        assert!(Library::at(&memory, 0x9000).is_err());
    }
}
