//! One file with code: opened when it is first seen, read when a stack first leads through it, closed then.

use std::{
    cell::{OnceCell, RefCell},
    fs::File,
    io,
    rc::Rc,
};

use object::{Object, ObjectSegment};

use super::{capture::Excerpt, rules::Rule, symbols::Symbols, unwind_table::UnwindTable};
use crate::target::elf_parts::{self, Parts};

/// A file (or the vdso) with code. It is opened when it is first seen, which is quick, and read when a stack leads
/// through it: a process that lives for a millisecond has its files opened in time.
#[derive(Debug)]
pub(super) struct Module {
    /// File name without directories, as it stands in `module+0x1a2b`.
    pub(super) name: String,
    /// Device, inode and path.
    pub(super) key: (u64, u64, Vec<u8>),
    source: RefCell<Source>,
    content: OnceCell<Content>,
}

/// Where a module's bytes are.
#[derive(Debug)]
pub(super) enum Source {
    /// The open file, so that a replaced or deleted one is still the right one.
    File(File),
    /// The vdso of memtrace itself: every 64-bit process has the same one.
    Vdso { start: u64, len: u64 },
    /// What a capture has of the file.
    Excerpt(Rc<Excerpt>),
    /// It could not be opened.
    Unreadable(String),
    /// It was read, and closed.
    Read,
}

/// What is read from a module.
#[derive(Debug, Default)]
struct Content {
    lookup: Lookup,
    /// Segments: (file offset, bytes, address).
    segments: Vec<(u64, u64, u64)>,
    error: Option<String>,
}

/// Rules and names by address.
#[derive(Debug, Default)]
enum Lookup {
    #[default]
    None,
    Elf(Box<(UnwindTable, Symbols)>),
    Excerpt(Rc<Excerpt>),
}

impl Module {
    /// A file that is not read yet.
    pub(super) fn new(key: (u64, u64, Vec<u8>), name: String, source: Source) -> Self {
        Self { name, key, source: RefCell::new(source), content: OnceCell::new() }
    }

    /// The rule at `address` of the file.
    pub(super) fn rule(&self, address: u64) -> Option<Rule> {
        match &self.content().lookup {
            Lookup::Elf(elf) => elf.0.rule(address),
            Lookup::Excerpt(excerpt) => excerpt.at(address)?.1,
            Lookup::None => None,
        }
    }

    /// The function at `address` of the file, or `module+0x1a2b`.
    pub(super) fn function(&self, address: u64) -> String {
        let name = match &self.content().lookup {
            Lookup::Elf(elf) => elf.1.name(address),
            Lookup::Excerpt(excerpt) => excerpt.at(address).map(|(_, _, name)| name.clone()),
            Lookup::None => None,
        };
        name.unwrap_or_else(|| format!("{}+{address:#x}", self.name))
    }

    /// Segments: (file offset, bytes, address).
    pub(super) fn segments(&self) -> &[(u64, u64, u64)] {
        &self.content().segments
    }

    /// The address, as the file has addresses, of what lies at `offset` of the file.
    pub(super) fn address(&self, offset: u64) -> u64 {
        let segment =
            self.segments().iter().find(|(start, len, _)| offset.wrapping_sub(*start) < *len);
        segment.map_or(offset, |(start, _, address)| offset - start + address)
    }

    /// Whether it holds a file descriptor.
    pub(super) fn is_open(&self) -> bool {
        matches!(*self.source.borrow(), Source::File(_))
    }

    /// Why it could not be read, if it could not.
    pub(super) fn error(&self) -> Option<String> {
        match &*self.source.borrow() {
            Source::Unreadable(error) => Some(error.clone()),
            _ => self.content.get()?.error.clone(),
        }
    }

    /// Reads the file now if it was not read yet.
    pub(super) fn prepare(&self) {
        self.content();
    }

    fn content(&self) -> &Content {
        self.content.get_or_init(|| {
            let content = self.read();
            // Once it is read, the file is not needed open any more: a build has thousands of them.
            if self.is_open() {
                self.source.replace(Source::Read);
            }
            content.unwrap_or_else(|error| Content {
                error: Some(error.to_string()),
                ..Content::default()
            })
        })
    }

    fn read(&self) -> io::Result<Content> {
        match &*self.source.borrow() {
            Source::File(file) => {
                Content::of_elf(&elf_parts::read(file, Parts::UnwindInformation)?)
            }
            &Source::Vdso { start, len } => {
                // SAFETY: the kernel keeps the vdso mapped, readable and unchanged as long as the process lives.
                Content::of_elf(unsafe {
                    std::slice::from_raw_parts(start as *const u8, len as usize)
                })
            }
            Source::Excerpt(excerpt) => Ok(Content {
                lookup: Lookup::Excerpt(excerpt.clone()),
                segments: excerpt.segments.clone(),
                error: None,
            }),
            Source::Unreadable(_) | Source::Read => Ok(Content::default()),
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
        let lookup = Lookup::Elf(Box::new((UnwindTable::of_elf(&elf), Symbols::of_elf(&elf))));
        Ok(Self { lookup, segments: segments.collect(), error: None })
    }
}
