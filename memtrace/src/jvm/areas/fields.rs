//! Values of HotSpot's structures by the names of their fields.
//!
//! A field that this JVM does not have, and one that can't be read, are both `None`: what is read here is wanted, not
//! needed.

use super::super::{Memory, VmStructs};

/// A JVM's memory with the tables that describe it.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    pub(super) memory: &'a dyn Memory,
    pub(super) structs: &'a VmStructs,
}

impl Fields<'_> {
    /// Where the first of the fields `names` that this JVM has lies in `object`.
    pub(super) fn place(self, object: u64, names: &[&str]) -> Option<u64> {
        if object == 0 {
            return None;
        }
        let offset = names.iter().find_map(|name| self.structs.offset(name))?;
        Some(object.wrapping_add(offset))
    }

    /// The 64 bits of that field.
    pub(super) fn word(self, object: u64, names: &[&str]) -> Option<u64> {
        self.memory.u64(self.place(object, names)?).ok()
    }

    /// The 32 bits of that field.
    pub(super) fn half(self, object: u64, names: &[&str]) -> Option<u32> {
        self.memory.u32(self.place(object, names)?).ok()
    }

    /// The 64 bits of a static field.
    pub(super) fn global(self, names: &[&str]) -> Option<u64> {
        let place = names.iter().find_map(|name| self.structs.address(name))?;
        self.memory.u64(place).ok()
    }

    /// The words of an array at `start`, `len` of them; the caller has bounded `len`.
    pub(super) fn words(self, start: u64, len: usize) -> Option<Vec<u64>> {
        let bytes = self.memory.bytes(start, len.checked_mul(8)?).ok()?;
        Some(bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect())
    }
}
