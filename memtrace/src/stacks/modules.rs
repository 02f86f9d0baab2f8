//! The code of one process: which file or memory an instruction lies in, and how to unwind from there.
//!
//! The map is read again when an instruction lies nowhere, or when the process mapped code. A module that is gone
//! stays known until its addresses are used again: events of it may still be on their way.

use std::{
    cell::OnceCell,
    ffi::OsStr,
    fs::File,
    io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
    rc::Rc,
};

use memmap2::Mmap;
use object::{Object, ObjectSegment};
use rustc_hash::FxHashMap;

use super::{rules::Rule, symbols::Symbols, unwind_table::UnwindTable};
use crate::target::maps::{self, Mapping};

/// A file (or the vdso) with code. It is opened when it is first seen, which is quick, and read when a stack leads
/// through it: a process that lives for a millisecond has its files opened in time.
#[derive(Debug)]
pub(super) struct Module {
    /// File name without directories, as it stands in `module+0x1a2b`.
    pub(super) name: String,
    source: Source,
    content: OnceCell<Content>,
}

/// Where a module's bytes are.
#[derive(Debug)]
enum Source {
    /// The open file, so that a replaced or deleted one is still the right one.
    File(File),
    /// The vdso of memtrace itself: every 64-bit process has the same one.
    Vdso { start: u64, len: u64 },
    /// It could not be opened.
    Unreadable(String),
}

/// What is read from a module.
#[derive(Debug, Default)]
struct Content {
    table: UnwindTable,
    symbols: Symbols,
    /// Segments: (file offset, bytes, address).
    segments: Vec<(u64, u64, u64)>,
    error: Option<String>,
}

/// What lies at an instruction.
#[derive(Debug)]
pub(super) enum Code<'a> {
    /// Code of a file: the module and the address as the file has addresses.
    Module(&'a Rc<Module>, u64),
    /// Code that the process made itself: a JIT compiler's.
    Anonymous,
    /// The kernel's return probe trampoline.
    ReturnProbe,
    /// Nothing that is known.
    Nowhere,
}

/// The executable mappings of one process.
#[derive(Debug, Default)]
pub(super) struct Modules {
    areas: Vec<Area>,
    by_file: FxHashMap<(u64, Vec<u8>), Rc<Module>>,
    /// Whether a JVM's library is among the modules.
    pub(super) has_jvm: bool,
}

#[derive(Clone, Debug)]
struct Area {
    start: u64,
    end: u64,
    offset: u64,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Module(Rc<Module>),
    Anonymous,
    ReturnProbe,
}

impl Modules {
    /// What lies at `address`.
    pub(super) fn at(&self, address: u64) -> Code<'_> {
        let index = self.areas.partition_point(|area| area.end <= address);
        match self.areas.get(index).filter(|area| area.start <= address) {
            None => Code::Nowhere,
            Some(Area { what: What::Anonymous, .. }) => Code::Anonymous,
            Some(Area { what: What::ReturnProbe, .. }) => Code::ReturnProbe,
            Some(Area { start, offset, what: What::Module(module), .. }) => {
                Code::Module(module, module.address(address - start + offset))
            }
        }
    }

    /// Reads the map of process `pid` again.
    pub(super) fn refresh(&mut self, pid: u32) -> io::Result<()> {
        for mapping in maps::read(pid)?.iter().filter(|mapping| mapping.exec) {
            self.add(pid, mapping);
        }
        Ok(())
    }

    /// Process `pid` has mapped code, in place of what was there.
    pub(super) fn add(&mut self, pid: u32, mapping: &Mapping) {
        let Some(new) = self.area(pid, mapping) else { return };
        let first = self.areas.partition_point(|old| old.end <= new.start);
        let n_replaced = self.areas[first..].partition_point(|old| old.start < new.end);
        self.areas.splice(first..first + n_replaced, [new]);
    }

    /// Reads every file now, so that no stack has to wait for it.
    pub(super) fn prepare(&self) {
        self.by_file.values().for_each(|module| {
            module.content();
        });
    }

    /// The code of a child, which has its parent's mappings.
    pub(super) fn inherited(&self) -> Self {
        Self { areas: self.areas.clone(), by_file: self.by_file.clone(), has_jvm: self.has_jvm }
    }

    /// Files that could not be read, by name and reason.
    pub(super) fn unreadable(&self) -> impl Iterator<Item = (&str, &str)> {
        self.by_file.values().filter_map(|module| Some((module.name.as_str(), module.error()?)))
    }

    fn area(&mut self, pid: u32, mapping: &Mapping) -> Option<Area> {
        let what = match mapping.path.as_slice() {
            b"[uprobes]" => What::ReturnProbe,
            b"[vdso]" => What::Module(self.vdso()?),
            b"[vsyscall]" => return None,
            _ if mapping.is_anonymous() => What::Anonymous,
            _ => What::Module(self.module(pid, mapping)?),
        };
        let offset = if mapping.path == b"[vdso]" { 0 } else { mapping.offset };
        Some(Area { start: mapping.start, end: mapping.end, offset, what })
    }

    fn module(&mut self, pid: u32, mapping: &Mapping) -> Option<Rc<Module>> {
        let key = (mapping.inode, mapping.path.clone());
        self.has_jvm |= is_jvm(mapping);
        if let Some(module) = self.by_file.get(&key) {
            return Some(module.clone());
        }
        let source = open_mapped(pid, mapping)
            .map_or_else(|error| Source::Unreadable(error.to_string()), Source::File);
        let module = Rc::new(Module::new(mapping.file_name(), source));
        self.by_file.insert(key, module.clone());
        Some(module)
    }

    fn vdso(&mut self) -> Option<Rc<Module>> {
        let key = (0, b"[vdso]".to_vec());
        if let Some(module) = self.by_file.get(&key) {
            return Some(module.clone());
        }
        let own = maps::read(std::process::id()).ok()?;
        let mapping = own.iter().find(|mapping| mapping.path == b"[vdso]")?;
        let source = Source::Vdso { start: mapping.start, len: mapping.size_bytes() };
        let module = Rc::new(Module::new("[vdso]".into(), source));
        self.by_file.insert(key, module.clone());
        Some(module)
    }
}

impl Module {
    fn new(name: String, source: Source) -> Self {
        Self { name, source, content: OnceCell::new() }
    }

    /// The rule at `address` of the file.
    pub(super) fn rule(&self, address: u64) -> Option<Rule> {
        self.content().table.rule(address)
    }

    /// The function at `address` of the file, or `module+0x1a2b`.
    pub(super) fn function(&self, address: u64) -> String {
        self.content()
            .symbols
            .name(address)
            .unwrap_or_else(|| format!("{}+{address:#x}", self.name))
    }

    /// The address, as the file has addresses, of what lies at `offset` of the file.
    fn address(&self, offset: u64) -> u64 {
        let segment = self
            .content()
            .segments
            .iter()
            .find(|(start, len, _)| offset.wrapping_sub(*start) < *len);
        segment.map_or(offset, |(start, _, address)| offset - start + address)
    }

    fn error(&self) -> Option<&str> {
        match &self.source {
            Source::Unreadable(error) => Some(error),
            _ => self.content.get()?.error.as_deref(),
        }
    }

    fn content(&self) -> &Content {
        self.content.get_or_init(|| {
            self.read().unwrap_or_else(|error| Content {
                error: Some(error.to_string()),
                ..Content::default()
            })
        })
    }

    fn read(&self) -> io::Result<Content> {
        match &self.source {
            Source::File(file) => {
                // SAFETY: the file is only read; should it be truncated meanwhile the process gets SIGBUS, as with any
                // mapped library.
                let bytes = unsafe { Mmap::map(file) }?;
                Content::of_elf(&bytes)
            }
            &Source::Vdso { start, len } => {
                // SAFETY: the kernel keeps the vdso mapped, readable and unchanged as long as the process lives.
                Content::of_elf(unsafe {
                    std::slice::from_raw_parts(start as *const u8, len as usize)
                })
            }
            Source::Unreadable(_) => Ok(Content::default()),
        }
    }
}

impl Content {
    fn of_elf(bytes: &[u8]) -> io::Result<Self> {
        let elf = object::File::parse(bytes).map_err(io::Error::other)?;
        let segments = elf.segments().map(|segment| {
            let (offset, len) = segment.file_range();
            (offset, len, segment.address())
        });
        let (table, symbols) = (UnwindTable::of_elf(&elf), Symbols::of_elf(&elf));
        Ok(Self { table, symbols, segments: segments.collect(), error: None })
    }
}

/// Opens the file behind a mapping: by the mapping itself, which is right in every namespace and for deleted files, or
/// by its path under the process's root. A process that is gone has neither; then its path may be memtrace's, too.
fn open_mapped(pid: u32, mapping: &Mapping) -> io::Result<File> {
    let Mapping { start, end, path, inode, .. } = mapping;
    let relative = Path::new(OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(path)));
    let is_the_one = |file: &File| file.metadata().is_ok_and(|metadata| metadata.ino() == *inode);
    File::open(format!("/proc/{pid}/map_files/{start:x}-{end:x}"))
        .or_else(|_| {
            File::open(Path::new("/proc").join(pid.to_string()).join("root").join(relative))
        })
        .or_else(|error| {
            File::open(Path::new("/").join(relative)).ok().filter(is_the_one).ok_or(error)
        })
}

fn is_jvm(mapping: &Mapping) -> bool {
    mapping.file_name().starts_with("libjvm.so")
}
