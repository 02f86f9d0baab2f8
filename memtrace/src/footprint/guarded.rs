//! A process's memory, but for what is not resident: to read a page makes it resident.
//!
//! Pages of a process's own that were not there when residency was read, and those in swap, can't be read through this;
//! pages of files can, as another process may have them, too.

use std::rc::Rc;

use super::{Kind, Resident};
use crate::{
    jvm::{LiveMemory, Memory, Unreadable},
    target::maps::Mapping,
};

pub(super) struct Guarded {
    memory: LiveMemory,
    resident: Rc<Resident>,
    /// Private memory without a file, by address.
    own: Vec<(u64, u64)>,
}

impl Guarded {
    pub(super) fn new(pid: u32, maps: &[Mapping], resident: Rc<Resident>) -> Self {
        let own = maps.iter().filter(|mapping| mapping.inode == 0);
        let own = own.map(|mapping| (mapping.start, mapping.end)).collect();
        Self { memory: LiveMemory::new(pid), resident, own }
    }

    /// Whether all of `address` and the `len` bytes there may be read.
    fn may_read(&self, address: u64, len: usize) -> bool {
        let Some(end) = address.checked_add(len as u64) else { return false };
        let first = self.own.partition_point(|&(_, end)| end <= address);
        let own = self.own[first..].iter().take_while(|&&(start, _)| start < end);
        own.into_iter().all(|&(start, until)| {
            let (start, until) = (start.max(address), until.min(end));
            let there = self.resident.runs_in(start..until);
            let there = there.filter(|run| run.kind != Kind::Swapped);
            there.map(|run| run.end - run.start).sum::<u64>() == until - start
        })
    }
}

impl Memory for Guarded {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        if !self.may_read(address, bytes.len()) {
            return Err(Unreadable { address, len: bytes.len() });
        }
        self.memory.read(address, bytes)
    }

    fn read_each(&self, addresses: &[u64], len: usize, bytes: &mut Vec<u8>) -> Vec<bool> {
        let may_read: Vec<bool> =
            addresses.iter().map(|&address| self.may_read(address, len)).collect();
        // The first page of no process can be read.
        let allowed: Vec<u64> = addresses
            .iter()
            .zip(&may_read)
            .map(|(&address, &may_read)| if may_read { address } else { 0 })
            .collect();
        self.memory.read_each(&allowed, len, bytes)
    }

    fn forget(&self) {
        self.memory.forget();
    }
}
