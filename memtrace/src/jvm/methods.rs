//! The methods that stacks have led through: each read once, and looked at again from time to time.
//!
//! A class that is unloaded leaves its place to others. A method therefore has a number, a [`MethodId`], that no other
//! one gets; its place gets a new number when something else is found there.

use rustc_hash::FxHashMap;

use super::{
    java_frame::{Certainty, Execution, JavaFrame},
    memory::Memory,
    method::{Method, MethodReader},
    vm_structs::{TablesError, VmStructs},
};

/// Methods and bytes of what is known of them that are kept; beyond, all are read anew.
const MAX_METHODS: usize = 100_000;
const MAX_BYTES: usize = 64 << 20;
/// Methods that are looked at again in one go.
const CHECKED_AT_ONCE: usize = 2048;

/// The number of a method; none is given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MethodId(u32);

/// Where a method's bytecodes are.
#[derive(Clone, Copy, Debug)]
struct Place {
    id: MethodId,
    code: u64,
    code_size: u16,
    is_native: bool,
}

/// Methods by where they are.
#[derive(Debug)]
pub(super) struct Methods {
    reader: MethodReader,
    places: FxHashMap<u64, Place>,
    methods: FxHashMap<MethodId, Method>,
    next: u32,
    bytes: usize,
    /// Addresses that are still to be looked at again.
    unchecked: Vec<u64>,
}

impl Methods {
    pub(super) fn new(structs: &VmStructs, feature: Option<u32>) -> Result<Self, TablesError> {
        Ok(Self {
            reader: MethodReader::of(structs, feature)?,
            places: FxHashMap::default(),
            methods: FxHashMap::default(),
            next: 0,
            bytes: 0,
            unchecked: Vec::new(),
        })
    }

    /// The method at `address`, and the bytecode at `bcp` in it; that is `None` in a native method. Only if that is known already.
    pub(super) fn known_at_bytecode(
        &self,
        address: u64,
        bcp: u64,
    ) -> Option<(MethodId, Option<u16>)> {
        self.places.get(&address)?.at(bcp)
    }

    /// The same of a method that is unknown, or was redefined since.
    pub(super) fn at_bytecode(
        &mut self,
        memory: &dyn Memory,
        address: u64,
        bcp: u64,
    ) -> Option<(MethodId, Option<u16>)> {
        self.read(memory, address)?.at(bcp)
    }

    /// The method at `address`.
    pub(super) fn at(&mut self, memory: &dyn Memory, address: u64) -> Option<MethodId> {
        match self.places.get(&address) {
            Some(place) => Some(place.id),
            None => self.read(memory, address).map(|place| place.id),
        }
    }

    fn read(&mut self, memory: &dyn Memory, address: u64) -> Option<Place> {
        let method = self.reader.read(memory, address).ok()??;
        if let Some(place) = self.places.get(&address)
            && self.methods.get(&place.id) == Some(&method)
        {
            return Some(*place);
        }
        if self.methods.len() >= MAX_METHODS || self.bytes >= MAX_BYTES {
            self.places.clear();
            self.methods.clear();
            self.bytes = 0;
        }
        self.bytes += method.size_bytes();
        let id = MethodId(self.next);
        self.next = self.next.checked_add(1)?;
        let place = Place {
            id,
            code: method.code,
            code_size: method.identity.code_size,
            is_native: method.is_native,
        };
        self.places.insert(address, place);
        self.methods.insert(id, method);
        Some(place)
    }

    /// The number that the next method gets which is read.
    pub(super) fn next_id(&self) -> MethodId {
        MethodId(self.next)
    }

    /// Reads the methods that were read since the next one would have been `first` again when they are asked for again.
    pub(super) fn read_again_from(&mut self, first: MethodId) {
        self.places.retain(|_, place| place.id < first);
    }

    /// The frame of a method at one of its bytecodes.
    pub(super) fn frame(
        &self,
        id: MethodId,
        bci: Option<u32>,
        execution: Execution,
    ) -> Option<JavaFrame> {
        let Method { class, name, file, is_native, .. } = self.methods.get(&id)?;
        let line = bci.and_then(|bci| self.methods.get(&id)?.line(bci));
        Some(JavaFrame {
            class: class.clone(),
            method: name.clone(),
            file: file.clone(),
            line: line.filter(|_| !is_native),
            execution: if *is_native { Execution::Native } else { execution },
            certainty: Certainty::Exact,
        })
    }

    /// Looks at some of the known places again: where another method is now, the next stack will read it.
    pub(super) fn check_some(&mut self, memory: &dyn Memory) {
        if self.unchecked.is_empty() {
            self.unchecked = self.places.keys().copied().collect();
            // Methods of a class lie together: a page that is read serves several.
            self.unchecked.sort_unstable();
        }
        let n = self.unchecked.len().saturating_sub(CHECKED_AT_ONCE);
        for address in self.unchecked.split_off(n) {
            let Some(place) = self.places.get(&address) else { continue };
            let known = self.methods.get(&place.id).map(|method| method.identity);
            if self.reader.identity(memory, address).ok() != known {
                self.places.remove(&address);
            }
        }
    }
}

impl Place {
    fn at(self, bcp: u64) -> Option<(MethodId, Option<u16>)> {
        // A native method has no bytecode. Its frame has a 0 there, or what was left of the caller.
        if self.is_native {
            return Some((self.id, None));
        }
        // While JDK 8 collects garbage, the frames of all threads hold numbers of bytecodes instead.
        let start = if bcp <= u64::from(u16::MAX) { 0 } else { self.code };
        let bci = bcp.checked_sub(start).filter(|&bci| bci < u64::from(self.code_size))?;
        Some((self.id, Some(bci as u16)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands in the slot of the bytecode pointer.
    #[test]
    fn bytecodes() {
        let id = MethodId(3);
        let java = Place { id, code: 0x7f00_0000_1000, code_size: 20, is_native: false };
        let native = Place { is_native: true, ..java };
        // (place, word, bytecode)
        let cases: [(Place, u64, Option<Option<u16>>); 7] = [
            (java, 0x7f00_0000_1000, Some(Some(0))),
            (java, 0x7f00_0000_1013, Some(Some(19))),
            (java, 0x7f00_0000_1014, None),
            (java, 0x7f00_0000_0fff, None),
            (java, 7, Some(Some(7))),
            (java, 20, None),
            (native, 0x1234_5678, Some(None)),
        ];
        for (place, bcp, bci) in cases {
            assert_eq!(place.at(bcp), bci.map(|bci| (id, bci)), "{bcp:#x}");
        }
    }
}
