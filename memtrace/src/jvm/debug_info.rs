//! What a compiled method says of its instructions: which methods were inlined there, and at which bytecode.

use super::{
    code_blob::DebugPlaces,
    memory::Memory,
    unsigned5::{Base, Numbers},
};

/// Bytes that are read of each part.
const MAX_PCS_BYTES: u64 = 2 << 20;
const MAX_SCOPES_BYTES: u64 = 4 << 20;
const MAX_METADATA_BYTES: u64 = 256 << 10;
const PC_DESC_BYTES: usize = 16;
/// Methods inlined into each other.
const MAX_INLINED: usize = 256;

/// A compiled method's debug information, copied: it outlives the method.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DebugInfo {
    /// Instructions (offsets from the code's beginning, ascending) and where their scope is described.
    pcs: Box<[(i32, u32)]>,
    scopes: Box<[u8]>,
    /// `Method*`s that scopes refer to by number.
    metadata: Box<[u64]>,
}

/// A method at one of its bytecodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) method: u64,
    /// `None` at the entry.
    pub(super) bci: Option<u32>,
}

impl DebugInfo {
    /// `None` where it can't be read, or is not whole yet: the code cache shows a method before it is all written.
    pub(super) fn read(memory: &dyn Memory, places: &DebugPlaces) -> Option<Self> {
        let bytes =
            |(start, len): (u64, u64), max: u64| memory.bytes(start, len.min(max) as usize).ok();
        let word = |piece: &[u8], at: usize| {
            u32::from_le_bytes([piece[at], piece[at + 1], piece[at + 2], piece[at + 3]])
        };
        let pcs = bytes(places.pcs, MAX_PCS_BYTES)?;
        let pcs: Vec<(i32, u32)> = pcs
            .chunks_exact(PC_DESC_BYTES)
            .map(|desc| (word(desc, 0).cast_signed(), word(desc, 4)))
            .collect();
        // The first and the last are no instructions but marks. They are written after the scopes, in this order
        // (share/code/debugInfoRec.cpp, `copy_to`).
        let is_whole = pcs.first().is_some_and(|&(pc, _)| pc == -1)
            && pcs.last().is_some_and(|&(pc, _)| pc > 0)
            && pcs.is_sorted_by_key(|&(pc, _)| pc);
        let metadata = bytes(places.metadata, MAX_METADATA_BYTES)?;
        is_whole.then_some(Self {
            pcs: pcs.into_iter().filter(|&(pc, _)| pc >= 0).collect(),
            scopes: bytes(places.scopes, MAX_SCOPES_BYTES)?.into(),
            metadata: metadata.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect(),
        })
    }

    /// Bytes that it takes.
    pub(super) fn size_bytes(&self) -> usize {
        8 * self.pcs.len() + self.scopes.len() + 8 * self.metadata.len()
    }

    /// Whether there is a scope for exactly this instruction: a call returns there.
    pub(super) fn is_exact(&self, offset: u32) -> bool {
        self.pcs.binary_search_by_key(&offset.cast_signed(), |&(pc, _)| pc).is_ok()
    }

    /// The methods at the instruction at `offset`, or at the next one that is described; innermost first. Empty where
    /// nothing is said, `None` where what is said makes no sense.
    pub(super) fn scopes(&self, offset: u32, base: Base) -> Option<Vec<Scope>> {
        let next = self.pcs.partition_point(|&(pc, _)| pc < offset.cast_signed());
        let mut at = self.pcs.get(next).map_or(0, |&(_, at)| at);
        let mut found = Vec::new();
        while at != 0 && found.len() < MAX_INLINED {
            let (scope, sender) = self.scope(at, base)?;
            found.push(scope);
            // Scopes are written before those that are inlined into them.
            if sender >= at {
                break;
            }
            at = sender;
        }
        Some(found)
    }

    /// The scope that is described at `at`, and where that of its caller is.
    fn scope(&self, at: u32, base: Base) -> Option<(Scope, u32)> {
        let mut numbers = Numbers::new(self.scopes.get(at as usize..)?, base);
        let (sender, method, bci) = (numbers.next()?, numbers.next()?, numbers.next()?);
        let method = *self.metadata.get((method as usize).checked_sub(1)?)?;
        Some((Scope { method, bci: bci.checked_sub(1) }, sender))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jvm::Capture;

    /// Two methods, one inlined into the other, and a chain that would not end.
    #[test]
    fn inlined() {
        let pcs: Vec<u8> =
            [[-1, 0, 0, 0], [10, 4, 0, 0], [20, 1, 0, 0], [30, 8, 0, 0], [i32::MAX, 0, 0, 0]]
                .concat()
                .iter()
                .flat_map(|word: &i32| word.to_le_bytes())
                .collect();
        let scopes = vec![0, 0, 1, 6, 1, 2, 9, 0, 8, 1, 1];
        let metadata = [0x100_u64, 0x200].iter().flat_map(|word| word.to_le_bytes()).collect();
        let len = pcs.len() as u64;
        let memory = Capture::of_ranges([(0x1000, pcs), (0x2000, scopes), (0x3000, metadata)]);
        let places =
            DebugPlaces { pcs: (0x1000, len), scopes: (0x2000, 11), metadata: (0x3000, 16) };
        let debug = DebugInfo::read(&memory, &places).unwrap();
        let outer = Scope { method: 0x100, bci: Some(5) };
        let inner = Scope { method: 0x200, bci: Some(8) };
        // (offset, exact, scopes)
        let cases: [(u32, bool, &[Scope]); 5] = [
            (10, true, &[inner, outer]),
            (11, false, &[outer]),
            (20, true, &[outer]),
            (30, true, &[Scope { method: 0x100, bci: Some(0) }]),
            (31, false, &[]),
        ];
        for (offset, is_exact, expected) in cases {
            assert_eq!(debug.is_exact(offset), is_exact, "{offset}");
            assert_eq!(debug.scopes(offset, Base::Zero).unwrap(), expected, "{offset}");
        }
        // While it is being written, the end is missing.
        for n_written in 0..5 {
            let (mut memory, mut pcs) = (memory.clone(), memory.bytes(0x1000, 80).unwrap());
            pcs[n_written * PC_DESC_BYTES..].fill(0);
            memory.insert(0x1000, &pcs);
            assert_eq!(DebugInfo::read(&memory, &places), None, "{n_written}");
        }
    }
}
