//! Parts of an ELF file, in memory of memtrace's own.
//!
//! In: an open file that someone else may change or cut at any time. Out: bytes as long as the file in which its headers,
//! its symbol tables and the sections that are wanted stand where they stand in the file; the rest is zeros that take no
//! memory. A file that is mapped instead ends memtrace (SIGBUS) when it is cut meanwhile; here reading it fails.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt};

use memmap2::{Advice, MmapMut, MmapOptions};
use object::{
    LittleEndian, elf,
    elf::FileHeader64,
    read::elf::{FileHeader, SectionHeader},
};

/// Files that are larger are not read; they need address space, not memory.
const MAX_FILE_BYTES: u64 = 64 << 30;

const HEADER_BYTES: u64 = size_of::<FileHeader64<LittleEndian>>() as u64;

type Header = FileHeader64<LittleEndian>;

/// What is wanted of a file besides its headers and its symbols with their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parts {
    /// How it is linked.
    Linkage,
    /// How to unwind its code.
    UnwindInformation,
    /// Its code, and how it is linked.
    Code,
}

impl Parts {
    /// What is read of a file at most: a browser's symbols are a hundred MiB, a zlib has 100 KiB in all.
    fn max_bytes(self) -> u64 {
        match self {
            Self::Linkage | Self::UnwindInformation => 512 << 20,
            Self::Code => 16 << 20,
        }
    }

    fn want(self, name: &[u8], section: &elf::SectionHeader64<LittleEndian>) -> bool {
        match self {
            Self::Linkage => {
                is_relocations(section) || section.sh_type(LittleEndian) == elf::SHT_DYNAMIC
            }
            Self::UnwindInformation => {
                matches!(name, b".eh_frame" | b".eh_frame_hdr" | b".init" | b".fini")
            }
            Self::Code => {
                section.sh_flags.get(LittleEndian) & u64::from(elf::SHF_EXECINSTR) != 0
                    || is_relocations(section)
            }
        }
    }
}

fn is_relocations(section: &elf::SectionHeader64<LittleEndian>) -> bool {
    matches!(section.sh_type(LittleEndian), elf::SHT_RELA | elf::SHT_REL)
}

/// Reads `parts` of `file`.
pub fn read(file: &File, parts: Parts) -> io::Result<MmapMut> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    if !(HEADER_BYTES..=MAX_FILE_BYTES).contains(&metadata.len()) {
        return Err(io::Error::other(format!("{} bytes are no library", metadata.len())));
    }
    let bytes = MmapOptions::new().len(metadata.len() as usize).no_reserve_swap().map_anon()?;
    let mut copy = Copy { file, parts, bytes, n_bytes: 0 };
    copy.range(0, HEADER_BYTES)?;
    copy.tables().and_then(|()| copy.sections())?;
    Ok(copy.bytes)
}

struct Copy<'f> {
    file: &'f File,
    parts: Parts,
    bytes: MmapMut,
    n_bytes: u64,
}

impl Copy<'_> {
    fn header(&self) -> io::Result<&Header> {
        let header = Header::parse(&self.bytes[..]).map_err(io::Error::other)?;
        if header.is_little_endian() {
            Ok(header)
        } else {
            Err(io::Error::other("its bytes are in another order"))
        }
    }

    /// The tables of segments and sections, and the sections' names.
    fn tables(&mut self) -> io::Result<()> {
        let header = self.header()?;
        let (segments, sections) =
            (header.e_phoff.get(LittleEndian), header.e_shoff.get(LittleEndian));
        let segment_bytes = u64::from(header.e_phentsize.get(LittleEndian));
        let section_bytes = u64::from(header.e_shentsize.get(LittleEndian));
        if sections != 0 {
            // Numbers that are too large for the header stand in the first section.
            self.range(sections, section_bytes)?;
        }
        let header = self.header()?;
        let n_segments = header.phnum(LittleEndian, &self.bytes[..]).map_err(io::Error::other)?;
        let n_sections = header.shnum(LittleEndian, &self.bytes[..]).map_err(io::Error::other)?;
        self.range(segments, segment_bytes.saturating_mul(n_segments as u64))?;
        self.range(sections, section_bytes.saturating_mul(n_sections as u64))?;
        let names = self.names()?;
        self.all(names.into_iter().collect())
    }

    fn names(&self) -> io::Result<Option<Range<u64>>> {
        let (header, bytes) = (self.header()?, &self.bytes[..]);
        let index = header.shstrndx(LittleEndian, bytes).map_err(io::Error::other)?;
        let sections = header.section_headers(LittleEndian, bytes).map_err(io::Error::other)?;
        Ok(sections.get(index as usize).and_then(range_of))
    }

    /// Symbols with their names, and what else is wanted.
    fn sections(&mut self) -> io::Result<()> {
        let bytes = &self.bytes[..];
        let sections = self.header()?.sections(LittleEndian, bytes).map_err(io::Error::other)?;
        let mut needed = Vec::new();
        for section in sections.iter() {
            let is_symbols =
                matches!(section.sh_type(LittleEndian), elf::SHT_SYMTAB | elf::SHT_DYNSYM);
            if is_symbols {
                needed.extend(sections.section(section.link(LittleEndian)).ok().and_then(range_of));
            }
            let name = sections.section_name(LittleEndian, section);
            if is_symbols || name.is_ok_and(|name| self.parts.want(name, section)) {
                needed.extend(range_of(section));
            }
        }
        self.all(needed)
    }

    fn all(&mut self, ranges: Vec<Range<u64>>) -> io::Result<()> {
        ranges.into_iter().try_for_each(|range| self.range(range.start, range.end - range.start))
    }

    fn range(&mut self, start: u64, len: u64) -> io::Result<()> {
        self.n_bytes = self.n_bytes.saturating_add(len);
        if self.n_bytes > self.parts.max_bytes() {
            return Err(io::Error::other("what is needed of it is too large"));
        }
        let end = start.checked_add(len).filter(|&end| end <= self.bytes.len() as u64);
        let range = start as usize..end.ok_or(io::ErrorKind::UnexpectedEof)? as usize;
        // All pages at once: a fault for each would be the larger part of the cost. Where the kernel can't, they fault.
        self.bytes.advise_range(Advice::PopulateWrite, range.start, range.len()).ok();
        self.file.read_exact_at(&mut self.bytes[range], start)
    }
}

fn range_of(section: &elf::SectionHeader64<LittleEndian>) -> Option<Range<u64>> {
    let (start, len) = section.file_range(LittleEndian)?;
    Some(start..start.checked_add(len)?)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use object::{Object, ObjectSection, ObjectSymbol};

    use super::*;

    fn own() -> File {
        File::open("/proc/self/exe").unwrap()
    }

    /// What is used of a file is as in the file, and it is a small part of it.
    #[test]
    fn the_same() {
        let whole = std::fs::read("/proc/self/exe").unwrap();
        let needed = read(&own(), Parts::UnwindInformation).unwrap();
        assert_eq!(needed.len(), whole.len());
        let [whole, needed] =
            [&whole[..], &needed].map(|bytes| object::File::parse(bytes).unwrap());
        let unwind = |elf: &object::File<'_>| {
            elf.section_by_name(".eh_frame").unwrap().data().unwrap().to_vec()
        };
        assert_eq!(unwind(&needed), unwind(&whole));
        let names = |elf: &object::File<'_>| -> Vec<(u64, Vec<u8>)> {
            let all = elf.symbols().chain(elf.dynamic_symbols());
            all.map(|symbol| (symbol.address(), symbol.name_bytes().unwrap().to_vec())).collect()
        };
        assert!(names(&whole).len() > 100);
        assert_eq!(names(&needed), names(&whole));
    }

    /// A library that is cut at any place, before or while it is read, is told as an error.
    #[test]
    fn cut() {
        let whole = std::fs::read("/proc/self/exe").unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&whole).unwrap();
        let n = whole.len() as u64;
        for len in [n - 1, n / 2, n / 10, 4096, 100, 64, 63, 0] {
            file.set_len(len).unwrap();
            assert!(read(&file, Parts::UnwindInformation).is_err(), "{len} of {n}");
        }
        // Cut between looking at its size and reading it.
        file.write_all_at(&whole, 0).unwrap();
        let bytes = MmapMut::map_anon(whole.len()).unwrap();
        let mut copy = Copy { file: &file, parts: Parts::Code, bytes, n_bytes: 0 };
        copy.range(0, HEADER_BYTES).unwrap();
        file.set_len(4096).unwrap();
        assert_eq!(copy.tables().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    /// Headers may claim anything: what is read is refused, or can be looked through, and never more than is allowed.
    #[test]
    fn hostile() {
        let whole = std::fs::read("/proc/self/exe").unwrap();
        let mut seed = 7_u64;
        let mut random = |below: usize| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % below
        };
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&whole).unwrap();
        let header = Header::parse(&whole[..]).unwrap();
        let (n, start) = (header.e_shnum.get(LittleEndian), header.e_shoff.get(LittleEndian));
        let entry_bytes = size_of::<elf::SectionHeader64<LittleEndian>>();
        let (mut n_read, mut n_refused) = (0, 0);
        for round in 0..60 {
            // The header of the file in every other round, otherwise one of a section.
            let at = match round % 2 {
                0 => random(HEADER_BYTES as usize) as u64,
                _ => start + (random(usize::from(n) * entry_bytes / 8) * 8) as u64,
            };
            let claimed = [random(256) as u8, 0xff, 0xff, random(256) as u8];
            file.write_all_at(&claimed[..1 + random(4)], at).unwrap();
            match read(&file, Parts::UnwindInformation) {
                Ok(bytes) => {
                    n_read += 1;
                    assert_eq!(bytes.len(), whole.len());
                    object::File::parse(&bytes[..]).map(|elf| elf.symbols().count()).ok();
                }
                Err(error) => {
                    n_refused += 1;
                    assert_ne!(error.kind(), io::ErrorKind::OutOfMemory, "{error}");
                }
            }
            file.write_all_at(&whole[at as usize..][..4], at).unwrap();
        }
        assert!(n_read > 5 && n_refused > 5, "{n_read} {n_refused}");
        file.set_len(1 << 40).unwrap();
        let error = read(&file, Parts::UnwindInformation).unwrap_err();
        assert_eq!(error.to_string(), "1099511627776 bytes are no library");
    }
}
