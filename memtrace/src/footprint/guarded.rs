//! A process's memory, read without making any of it resident: to read a page of another process maps it there.
//!
//! Pages that were resident when residency was read are read from the process. What else is mapped of a file is read from
//! the file, which is what the process would find. Pages of its own that were not there, and those in swap, can't be read.

use std::{cell::RefCell, fs::File, ops::Range, os::unix::fs::FileExt, rc::Rc};

use rustc_hash::FxHashMap;

use super::{Kind, Resident};
use crate::{
    jvm::{LiveMemory, Memory, Unreadable},
    target::{self, maps::Mapping},
};

const PAGE_BYTES: u64 = 4096;
/// Pages of files that are kept; beyond, the cache starts anew.
const MAX_PAGES: usize = 4096;

type Page = Box<[u8; PAGE_BYTES as usize]>;

pub(super) struct Guarded {
    pid: u32,
    memory: LiveMemory,
    resident: Rc<Resident>,
    /// What is mapped of files, by address.
    files: Vec<Mapping>,
    /// The file that was read last, by where it is mapped.
    open: RefCell<Option<(u64, Option<File>)>>,
    /// Pages of files, by address; `None` for those that can't be read.
    pages: RefCell<FxHashMap<u64, Option<Page>>>,
}

impl Guarded {
    pub(super) fn new(pid: u32, maps: &[Mapping], resident: Rc<Resident>) -> Self {
        let files = maps.iter().filter(|mapping| mapping.inode != 0).cloned().collect();
        let (open, pages) = (RefCell::default(), RefCell::default());
        Self { pid, memory: LiveMemory::new(pid), resident, files, open, pages }
    }

    /// Whether all pages of `range` were resident.
    fn is_resident(&self, range: &Range<u64>) -> bool {
        let pages = range.start & !(PAGE_BYTES - 1)..range.end.next_multiple_of(PAGE_BYTES);
        let runs = self.resident.runs_in(pages.clone());
        let there = runs.filter(|run| run.kind != Kind::Swapped);
        there.map(|run| run.end - run.start).sum::<u64>() == pages.end - pages.start
    }

    /// A piece of a page that was not resident.
    fn read_of_file(&self, address: u64, bytes: &mut [u8]) -> Option<()> {
        let page = address & !(PAGE_BYTES - 1);
        let mut pages = self.pages.borrow_mut();
        if pages.len() >= MAX_PAGES {
            pages.clear();
        }
        let content = pages.entry(page).or_insert_with(|| self.page_of_file(page)).as_ref()?;
        let start = (address - page) as usize;
        bytes.copy_from_slice(content.get(start..start + bytes.len())?);
        Some(())
    }

    fn page_of_file(&self, page: u64) -> Option<Page> {
        let at = self.files.partition_point(|mapping| mapping.end <= page);
        let mapping = self.files.get(at).filter(|mapping| mapping.start <= page)?;
        // One that was written and swapped out is not what the file has.
        if self.resident.runs_in(page..page + PAGE_BYTES).next().is_some() {
            return None;
        }
        let mut open = self.open.borrow_mut();
        if open.as_ref().is_none_or(|(start, _)| *start != mapping.start) {
            *open = Some((mapping.start, target::open_mapped(self.pid, mapping).ok()));
        }
        let file = open.as_ref()?.1.as_ref()?;
        let mut content = Box::new([0; PAGE_BYTES as usize]);
        let offset = mapping.offset.checked_add(page - mapping.start)?;
        // Behind the file's end a page has zeros.
        let n = file.read_at(&mut content[..], offset).ok()?;
        (n > 0).then_some(content)
    }
}

impl Memory for Guarded {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        let unreadable = Unreadable { address, len: bytes.len() };
        let end = address.checked_add(bytes.len() as u64).ok_or(unreadable)?;
        if end > u64::MAX - PAGE_BYTES {
            return Err(unreadable);
        }
        if self.is_resident(&(address..end)) {
            return self.memory.read(address, bytes);
        }
        let (mut at, mut rest) = (address, bytes);
        while !rest.is_empty() {
            let len = ((PAGE_BYTES - at % PAGE_BYTES) as usize).min(rest.len());
            let (piece, behind) = rest.split_at_mut(len);
            if self.is_resident(&(at..at + len as u64)) {
                self.memory.read(at, piece)?;
            } else {
                self.read_of_file(at, piece).ok_or(unreadable)?;
            }
            (at, rest) = (at + len as u64, behind);
        }
        Ok(())
    }

    fn forget(&self) {
        self.memory.forget();
    }
}
