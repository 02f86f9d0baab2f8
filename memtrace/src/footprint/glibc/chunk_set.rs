//! A set of chunks, a bit for each place where one may be.

use rustc_hash::FxHashMap;

/// Bytes of memory that one block of bits stands for.
const BLOCK_BYTES: u64 = 1 << 20;
const N_WORDS: usize = (BLOCK_BYTES / 16 / 64) as usize;

pub(super) type Block = [u64; N_WORDS];

/// Addresses that are multiples of 16. It takes 8 KiB for each MiB of memory that it has chunks of.
#[derive(Debug, Default)]
pub(super) struct ChunkSet {
    blocks: FxHashMap<u64, Box<Block>>,
}

impl ChunkSet {
    /// Adds a chunk; says whether it is new.
    pub(super) fn insert(&mut self, chunk: u64) -> bool {
        let block =
            self.blocks.entry(chunk / BLOCK_BYTES).or_insert_with(|| Box::new([0; N_WORDS]));
        let (word, bit) = place(chunk);
        let is_new = block[word] & bit == 0;
        block[word] |= bit;
        is_new
    }

    /// Whether it has this chunk.
    pub(super) fn contains(&self, chunk: u64) -> bool {
        self.blocks.get(&(chunk / BLOCK_BYTES)).is_some_and(|block| {
            let (word, bit) = place(chunk);
            block[word] & bit != 0
        })
    }

    /// Whether it has none.
    pub(super) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// How many blocks of bits it takes.
    pub(super) fn n_blocks(&self) -> usize {
        self.blocks.len()
    }
}

fn place(chunk: u64) -> (usize, u64) {
    let slot = chunk % BLOCK_BYTES / 16;
    ((slot / 64) as usize, 1 << (slot % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks() {
        let mut set = ChunkSet::default();
        assert!(set.is_empty());
        for chunk in [0x10, 0x20, 0xf_fff0, 0x10_0000, !15] {
            assert!(!set.contains(chunk) && set.insert(chunk), "{chunk:x}");
            assert!(set.contains(chunk) && !set.insert(chunk), "{chunk:x}");
        }
        assert!(!set.contains(0x30) && !set.contains(0));
        assert_eq!(set.n_blocks(), 3);
    }
}
