//! The code cache: which blocks of generated code there are, and which one an instruction lies in.
//!
//! A heap of the code cache is divided into segments. Its segment map has one byte for each: 0 where a block begins,
//! else how far to go back, 255 where nothing is.

use super::{
    memory::{Memory, Unreadable},
    vm_structs::{TablesError, VmStructs},
};

/// Heaps of a code cache; HotSpot has up to four.
const MAX_HEAPS: u32 = 16;
/// Bytes of all heaps together: more are no code cache (`CODE_CACHE_SIZE_LIMIT` in
/// share/utilities/globalDefinitions.hpp, JDK 11; 2 GiB in share/runtime/arguments.cpp, JDK 8).
const MAX_CACHE_BYTES: u64 = 2 << 30;
/// Bytes of a segment map that are read: that of 2 GiB in the smallest segments.
const MAX_MAP_BYTES: u64 = 32 << 20;
/// Steps back to a block's beginning.
const MAX_STEPS: usize = 100_000;
const PAGE_BYTES: u64 = 4096;
const FREE: u8 = 0xff;
/// Blocks of a heap that are looked at.
const MAX_BLOCKS: usize = 200_000;

/// How this JVM's code cache looks.
#[derive(Clone, Debug)]
pub(super) struct CodeCacheLayout {
    heaps: Heaps,
    memory: u64,
    segment_map: u64,
    log2_segment: u64,
    low: u64,
    high: u64,
    low_boundary: u64,
    high_boundary: u64,
    /// Bytes before a block's content.
    pub(super) header: u64,
    /// Where in a block it says whether it is used.
    pub(super) used: u64,
}

#[derive(Clone, Copy, Debug)]
enum Heaps {
    /// JDK 8.
    One {
        heap: u64,
    },
    Many {
        heaps: u64,
        len: u64,
        data: u64,
    },
}

/// A heap of the code cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CodeHeap {
    /// First address, and one past the last that may ever be used.
    pub(super) low: u64,
    pub(super) end: u64,
    /// One past the last address that is used now.
    pub(super) committed: u64,
    segment_map: u64,
    n_segments: u64,
    log2_segment: u32,
}

impl CodeCacheLayout {
    pub(super) fn of(structs: &VmStructs) -> Result<Self, TablesError> {
        let need = |names: &[&str]| structs.need_offset(names);
        let heaps = match structs.address("CodeCache::_heaps") {
            Some(heaps) => Heaps::Many {
                heaps,
                len: need(&["GrowableArrayBase::_len", "GenericGrowableArray::_len"])?,
                data: need(&["GrowableArray<int>::_data"])?,
            },
            None => Heaps::One { heap: structs.need_address(&["CodeCache::_heap"])? },
        };
        Ok(Self {
            heaps,
            memory: need(&["CodeHeap::_memory"])?,
            segment_map: need(&["CodeHeap::_segmap"])?,
            log2_segment: need(&["CodeHeap::_log2_segment_size"])?,
            low: need(&["VirtualSpace::_low"])?,
            high: need(&["VirtualSpace::_high"])?,
            low_boundary: need(&["VirtualSpace::_low_boundary"])?,
            high_boundary: need(&["VirtualSpace::_high_boundary"])?,
            header: structs.need_size("HeapBlock")?,
            used: need(&["HeapBlock::Header::_used"])?,
        })
    }

    /// The heaps there are now; none while the JVM is starting.
    pub(super) fn heaps(&self, memory: &dyn Memory) -> Result<Vec<CodeHeap>, Unreadable> {
        let mut heaps = Vec::new();
        match self.heaps {
            Heaps::One { heap } => heaps.push(memory.u64(heap)?),
            Heaps::Many { heaps: place, len, data } => {
                let array = memory.u64(place)?;
                if array == 0 {
                    return Ok(Vec::new());
                }
                let data = memory.u64(array.wrapping_add(data))?;
                for n in 0..memory.u32(array.wrapping_add(len))?.min(MAX_HEAPS) {
                    heaps.push(memory.u64(data.wrapping_add(8 * u64::from(n)))?);
                }
            }
        }
        let mut found = Vec::new();
        for heap in heaps {
            found.extend(self.heap(memory, heap)?);
        }
        Ok(apart(found))
    }

    /// The heap that the `CodeHeap` at `address` describes, if it makes sense.
    fn heap(&self, memory: &dyn Memory, address: u64) -> Result<Option<CodeHeap>, Unreadable> {
        if address == 0 {
            return Ok(None);
        }
        let (space, map) =
            (address.wrapping_add(self.memory), address.wrapping_add(self.segment_map));
        let map_low = memory.u64(map.wrapping_add(self.low))?;
        let map_bytes = memory.u64(map.wrapping_add(self.high))?.saturating_sub(map_low);
        let heap = CodeHeap {
            low: memory.u64(space.wrapping_add(self.low_boundary))?,
            end: memory.u64(space.wrapping_add(self.high_boundary))?,
            committed: memory.u64(space.wrapping_add(self.high))?,
            segment_map: map_low,
            n_segments: map_bytes.min(MAX_MAP_BYTES),
            log2_segment: memory.u32(address.wrapping_add(self.log2_segment))?,
        };
        let is_sound = heap.low == memory.u64(space.wrapping_add(self.low))?
            && heap.low < heap.end
            && (heap.low..=heap.end).contains(&heap.committed)
            && (4..=20).contains(&heap.log2_segment);
        Ok(is_sound.then_some(heap))
    }
}

/// By address, without those that overlap one before or make a code cache too large.
fn apart(mut heaps: Vec<CodeHeap>) -> Vec<CodeHeap> {
    heaps.sort_by_key(|heap| heap.low);
    let (mut end, mut left) = (0, MAX_CACHE_BYTES);
    heaps.retain(|heap| {
        let bytes = heap.end - heap.low;
        let fits = heap.low >= end && bytes <= left;
        if fits {
            (end, left) = (heap.end, left - bytes);
        }
        fits
    });
    heaps
}

impl CodeHeap {
    /// Where the segment map is, as far as it is used.
    pub(super) fn segment_map_range(&self) -> std::ops::Range<u64> {
        let start = self.segment_map & !(PAGE_BYTES - 1);
        start..self.segment_map.saturating_add(self.n_segments).next_multiple_of(PAGE_BYTES)
    }

    /// Where the block begins that `address` lies in.
    pub(super) fn block(
        &self,
        memory: &dyn Memory,
        address: u64,
    ) -> Result<Option<u64>, Unreadable> {
        if !(self.low..self.committed).contains(&address) {
            return Ok(None);
        }
        let mut segment = (address - self.low) >> self.log2_segment;
        for _ in 0..MAX_STEPS {
            if segment >= self.n_segments {
                break;
            }
            match memory.u8(self.segment_map.wrapping_add(segment))? {
                0 => return Ok(Some(self.low + (segment << self.log2_segment))),
                FREE => break,
                back => match segment.checked_sub(u64::from(back)) {
                    Some(before) => segment = before,
                    None => break,
                },
            }
        }
        Ok(None)
    }

    /// Where blocks begin, used ones and free ones, in the order of addresses.
    pub(super) fn blocks(&self, memory: &dyn Memory) -> Result<Vec<u64>, Unreadable> {
        let n_used = (self.committed - self.low) >> self.log2_segment;
        let map = memory.bytes(self.segment_map, self.n_segments.min(n_used) as usize)?;
        let starts = map.iter().enumerate().filter(|&(_, &back)| back == 0);
        let starts = starts.map(|(n, _)| self.low + ((n as u64) << self.log2_segment));
        Ok(starts.take(MAX_BLOCKS).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jvm::Capture;

    /// No code is looked at twice, and no more than a code cache can hold.
    #[test]
    fn heaps_apart() {
        const G: u64 = 1 << 30;
        let heap = |(low, end)| CodeHeap {
            low,
            end,
            committed: end,
            segment_map: 0,
            n_segments: 0,
            log2_segment: 7,
        };
        // (heaps, those that are taken)
        type Heaps = &'static [(u64, u64)];
        let cases: [(Heaps, Heaps); 6] = [
            (&[], &[]),
            (&[(20, 30), (10, 20)], &[(10, 20), (20, 30)]),
            (&[(10, 20), (10, 20), (19, 25), (25, 26)], &[(10, 20), (25, 26)]),
            (&[(G, 2 * G), (4 * G, 5 * G)], &[(G, 2 * G), (4 * G, 5 * G)]),
            (
                &[(G, 2 * G), (4 * G, 5 * G + 1), (7 * G, 7 * G + 1)],
                &[(G, 2 * G), (7 * G, 7 * G + 1)],
            ),
            (&[(1, u64::MAX)], &[]),
        ];
        for (heaps, want) in cases {
            let found = apart(heaps.iter().copied().map(heap).collect());
            let found: Vec<(u64, u64)> = found.iter().map(|heap| (heap.low, heap.end)).collect();
            assert_eq!(found, want, "{heaps:x?}");
        }
    }

    /// Blocks of 1, 4 and 2 segments of 128 bytes, free space between, a long one with steps of two sizes.
    #[test]
    fn blocks_of_a_segment_map() {
        let map = vec![0, 0, 1, 2, 3, FREE, 0, 1, 1, 1];
        let memory = Capture::of_ranges([(0x9000, map)]);
        let heap = CodeHeap {
            low: 0x1000,
            end: 0x2000,
            committed: 0x1000 + 9 * 128,
            segment_map: 0x9000,
            n_segments: 10,
            log2_segment: 7,
        };
        // (segment of the address, segment of the block)
        let cases = [
            (0, Some(0)),
            (1, Some(1)),
            (4, Some(1)),
            (5, None),
            (6, Some(6)),
            (8, Some(6)),
            (9, None),
        ];
        for (segment, block) in cases {
            let found = heap.block(&memory, 0x1000 + segment * 128 + 77).unwrap();
            assert_eq!(found, block.map(|block: u64| 0x1000 + block * 128), "{segment}");
        }
        assert_eq!(heap.blocks(&memory).unwrap(), [0x1000, 0x1080, 0x1300]);
        assert_eq!(heap.block(&memory, 0xfff), Ok(None));
    }
}
