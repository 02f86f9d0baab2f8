//! The live blocks of one process, packed: 16 bytes each, and as good as no room between them.
//!
//! In: addresses with what is known of their blocks. Out: the same again, once. A table knows nothing of time or owners
//! but their numbers. It grows shard by shard, so that what is there twice meanwhile is small.
//!
//! A shard is an array in the order of the keys, which are spread evenly, with gaps: a block lies where its key would be
//! if keys were spread exactly, or as near behind that as there is room. So it can be nine tenths full and found within a
//! cache line or two, and to grow is to copy once from begin to end.

use std::{iter, mem};

use rustc_hash::FxHashMap;

const SHARD_BITS: u32 = 8;
/// Addresses of user space (x86-64 with five-level page tables).
const ADDRESS_BITS: u32 = 56;
const KEY_BITS: u32 = ADDRESS_BITS - SHARD_BITS;
const OWNER_BITS: u32 = 20;
const SIZE_BITS: u32 = 32;
const TIME_BITS: u32 = 28;
const _: () = assert!(KEY_BITS + OWNER_BITS + SIZE_BITS + TIME_BITS == u128::BITS);

/// The latest time that a block can have.
pub(super) const MAX_TIME: u32 = mask(TIME_BITS) as u32 - 1;
/// Blocks too large for the packed form that are kept: in an address space of 2^47 bytes there can't be more.
const MAX_HUGE: usize = 1 << (47 - SIZE_BITS);
/// Stands for the size of a huge block.
const HUGE: u64 = mask(SIZE_BITS);

/// Odd, so that to multiply by it modulo a power of two loses nothing; the bits are those of the golden ratio.
const SPREAD: u64 = 0x9e_3779_b97f_4a7d;

/// How full a shard gets.
const MAX_LOAD: (u64, u64) = (29, 32);
const MIN_HOMES: u32 = 4;
/// Up to here a shard doubles; from here on it grows by a sixteenth.
const SMALL_SHARD: u32 = 64;

/// What is known of a live block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// Index into the ledger's totals.
    pub(super) owner: u32,
    /// Bytes that were asked for.
    pub(super) size: u64,
    /// When, in ticks, at most [`MAX_TIME`].
    pub(super) time: u32,
}

/// What came of putting a block into a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// It is there now.
    New,
    /// It is there in place of another, whose end was not seen.
    Over(Block),
    /// Its numbers are such as no process has; the table is as it was.
    Refused,
}

/// The live blocks of one process.
#[derive(Debug)]
pub(super) struct BlockTable {
    shards: Vec<Shard>,
    huge: FxHashMap<u64, u64>,
    n: usize,
}

/// A block in order of its key: key, owner, size, time + 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Packed(u128);

#[derive(Debug, Default)]
struct Shard {
    /// Slots, of which the first `n_homes` are the home of some key; behind them is what found no room.
    slots: Vec<Packed>,
    n_homes: u32,
    n: u32,
}

impl Default for BlockTable {
    fn default() -> Self {
        let shards = iter::repeat_with(Shard::default).take(1 << SHARD_BITS).collect();
        Self { shards, huge: FxHashMap::default(), n: 0 }
    }
}

impl BlockTable {
    /// How many blocks there are.
    pub(super) fn len(&self) -> usize {
        self.n
    }

    /// Puts in the block at `address`.
    pub(super) fn put(&mut self, address: u64, block: Block) -> Put {
        let is_huge = block.size >= HUGE;
        let fits = address <= mask(ADDRESS_BITS) && u64::from(block.owner) <= mask(OWNER_BITS);
        if !fits || (is_huge && self.huge.len() >= MAX_HUGE) {
            return Put::Refused;
        }
        let (shard, key) = place(address);
        let old = self.shards[shard].put(Packed::new(key, block));
        let old = old.map(|old| self.unpacked(address, old));
        if is_huge {
            self.huge.insert(address, block.size);
        }
        self.n += usize::from(old.is_none());
        old.map_or(Put::New, Put::Over)
    }

    /// The block at `address`.
    pub(super) fn get(&self, address: u64) -> Option<Block> {
        if address > mask(ADDRESS_BITS) {
            return None;
        }
        let (shard, key) = place(address);
        let shard = &self.shards[shard];
        let packed = shard.slots[shard.find(key).ok()?];
        let huge = self.huge.get(&address).filter(|_| packed.is_huge());
        Some(Block { size: huge.copied().unwrap_or(packed.size()), ..packed.block() })
    }

    /// Takes out the block at `address`.
    pub(super) fn take(&mut self, address: u64) -> Option<Block> {
        if address > mask(ADDRESS_BITS) {
            return None;
        }
        let (shard, key) = place(address);
        let packed = self.shards[shard].remove(key)?;
        self.n -= 1;
        Some(self.unpacked(address, packed))
    }

    /// What was packed at `address`, and is there no more.
    fn unpacked(&mut self, address: u64, packed: Packed) -> Block {
        let huge = if packed.is_huge() { self.huge.remove(&address) } else { None };
        Block { size: huge.unwrap_or(packed.size()), ..packed.block() }
    }

    /// All blocks, in no order.
    pub(super) fn blocks(&self) -> impl Iterator<Item = Block> {
        let slots = self.shards.iter().flat_map(|shard| &shard.slots);
        let packed = slots.filter(|it| !it.is_empty() && !it.is_huge()).map(|it| it.block());
        packed.chain(self.huge_blocks())
    }

    fn huge_blocks(&self) -> impl Iterator<Item = Block> {
        self.huge.iter().filter_map(|(&address, &size)| {
            let (shard, key) = place(address);
            let shard = &self.shards[shard];
            shard.find(key).ok().map(|at| Block { size, ..shard.slots[at].block() })
        })
    }

    /// Owners have new numbers.
    pub(super) fn renumber(&mut self, new: impl Fn(u32) -> u32) {
        for packed in self.shards.iter_mut().flat_map(|shard| &mut shard.slots) {
            if !packed.is_empty() {
                let block = packed.block();
                *packed = Packed::new(packed.key(), Block { owner: new(block.owner), ..block });
            }
        }
    }
}

/// Shard and key of an address: spread evenly, and no two addresses have the same.
fn place(address: u64) -> (usize, u64) {
    // Each step can be undone: none loses a bit.
    let folded = address ^ address >> (ADDRESS_BITS / 2);
    let spread = folded.wrapping_mul(SPREAD) & mask(ADDRESS_BITS);
    let mixed = spread ^ spread >> (ADDRESS_BITS / 2);
    ((mixed >> KEY_BITS) as usize, mixed & mask(KEY_BITS))
}

const fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

impl Packed {
    const EMPTY: Packed = Packed(0);

    fn new(key: u64, Block { owner, size, time }: Block) -> Self {
        let mut packed = u128::from(key);
        packed = packed << OWNER_BITS | u128::from(u64::from(owner) & mask(OWNER_BITS));
        packed = packed << SIZE_BITS | u128::from(size.min(HUGE));
        Packed(packed << TIME_BITS | u128::from(time.min(MAX_TIME) + 1))
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn key(self) -> u64 {
        (self.0 >> (OWNER_BITS + SIZE_BITS + TIME_BITS)) as u64
    }

    fn size(self) -> u64 {
        (self.0 >> TIME_BITS) as u64 & mask(SIZE_BITS)
    }

    fn is_huge(self) -> bool {
        self.size() == HUGE
    }

    fn block(self) -> Block {
        Block {
            owner: ((self.0 >> (SIZE_BITS + TIME_BITS)) as u64 & mask(OWNER_BITS)) as u32,
            size: self.size(),
            time: (self.0 as u64 & mask(TIME_BITS)) as u32 - u32::from(!self.is_empty()),
        }
    }
}

impl Shard {
    /// Where a key belongs if all are spread exactly.
    fn home(n_homes: u32, key: u64) -> usize {
        (((key >> (KEY_BITS - 32)) * u64::from(n_homes)) >> 32) as usize
    }

    /// Where a key is, or else would be. From its home on up to there no slot is empty.
    fn find(&self, key: u64) -> Result<usize, usize> {
        let mut at = Self::home(self.n_homes, key);
        while let Some(&packed) = self.slots.get(at) {
            if packed.is_empty() || packed.key() > key {
                return Err(at);
            }
            if packed.key() == key {
                return Ok(at);
            }
            at += 1;
        }
        Err(self.slots.len())
    }

    /// Returns what had the same key.
    fn put(&mut self, packed: Packed) -> Option<Packed> {
        let at = match self.find(packed.key()) {
            Ok(at) => return Some(mem::replace(&mut self.slots[at], packed)),
            Err(_) if self.is_full() => {
                self.grow();
                return self.put(packed);
            }
            Err(at) => at,
        };
        let gap = self.slots[at..].iter().position(|it| it.is_empty());
        let gap = gap.map_or(self.slots.len(), |n| at + n);
        if gap == self.slots.len() {
            push(&mut self.slots, Packed::EMPTY);
        }
        self.slots.copy_within(at..gap, at + 1);
        self.slots[at] = packed;
        self.n += 1;
        None
    }

    fn remove(&mut self, key: u64) -> Option<Packed> {
        let at = self.find(key).ok()?;
        let packed = self.slots[at];
        // What is not at home moves up.
        let is_away = |&(at, it): &(usize, &Packed)| {
            !it.is_empty() && Self::home(self.n_homes, it.key()) < at
        };
        let n_away = (at + 1..).zip(&self.slots[at + 1..]).take_while(is_away).count();
        self.slots.copy_within(at + 1..at + 1 + n_away, at);
        self.slots[at + n_away] = Packed::EMPTY;
        self.n -= 1;
        Some(packed)
    }

    fn is_full(&self) -> bool {
        let (full, of) = MAX_LOAD;
        u64::from(self.n) * of >= u64::from(self.n_homes) * full
    }

    fn grow(&mut self) {
        let by = if self.n_homes < SMALL_SHARD { self.n_homes } else { self.n_homes / 16 };
        self.n_homes = (self.n_homes + by).max(MIN_HOMES);
        let n_homes = self.n_homes as usize;
        let mut slots = Vec::new();
        slots.reserve_exact(n_homes + n_homes / 256 + 1);
        for &packed in self.slots.iter().filter(|packed| !packed.is_empty()) {
            while slots.len() < Self::home(self.n_homes, packed.key()) {
                slots.push(Packed::EMPTY);
            }
            push(&mut slots, packed);
        }
        slots.resize(slots.len().max(n_homes), Packed::EMPTY);
        self.slots = slots;
    }
}

/// Pushes without making room for as many again.
fn push(slots: &mut Vec<Packed>, packed: Packed) {
    if slots.len() == slots.capacity() {
        slots.reserve_exact(slots.len() / 64 + 4);
    }
    slots.push(packed);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(n: u64) -> Block {
        Block { owner: n as u32 & 0xfffff, size: n, time: n as u32 & 0xfffff }
    }

    /// Numbers that look like chance, the same in each run.
    fn numbers() -> impl Iterator<Item = u64> {
        iter::successors(Some(0x1234_5678_9abc_def1_u64), |&x| {
            let x = x ^ x << 13;
            let x = x ^ x >> 7;
            Some(x ^ x << 17)
        })
    }

    /// Whatever addresses come and go, in whatever order, the table says what a map of the standard library says.
    #[test]
    fn as_a_map() {
        // (what addresses are like)
        let shapes: [fn(u64) -> u64; 5] = [
            |x| 0x7f00_0000_0000 + x % 4000 * 16,
            |x| x % 3000,
            |x| (x % 3000) << 43 & mask(ADDRESS_BITS),
            |x| x & mask(ADDRESS_BITS),
            // All in one place of one shard.
            |x| unplace(7, mask(KEY_BITS) - x % 3000),
        ];
        for (index, shape) in shapes.iter().enumerate() {
            let mut table = BlockTable::default();
            let mut map: FxHashMap<u64, Block> = FxHashMap::default();
            for x in numbers().take(40_000) {
                let address = shape(x >> 8);
                if x & 0x3 == 0 {
                    assert_eq!(table.take(address), map.remove(&address), "{index} {address:#x}");
                } else {
                    let put = map.insert(address, block(x)).map_or(Put::New, Put::Over);
                    assert_eq!(table.put(address, block(x)), put, "{index} {address:#x}");
                }
                assert_eq!(table.len(), map.len());
            }
            let mut all: Vec<_> = table.blocks().map(|it| (it.size, it.owner, it.time)).collect();
            let mut want: Vec<_> = map.values().map(|it| (it.size, it.owner, it.time)).collect();
            all.sort_unstable();
            want.sort_unstable();
            assert_eq!(all, want, "{index}");
            for (address, block) in map {
                assert_eq!(table.take(address), Some(block), "{index} {address:#x}");
            }
            assert_eq!((table.len(), table.blocks().count(), table.huge.len()), (0, 0, 0));
        }
    }

    /// The address that has this place.
    fn unplace(shard: u64, key: u64) -> u64 {
        let unfold = |x: u64| x ^ x >> (ADDRESS_BITS / 2);
        // Newton's way to the inverse of an odd number: each step doubles the bits that are right.
        let inverse = (0..6).fold(SPREAD, |inverse, _| {
            inverse.wrapping_mul(2_u64.wrapping_sub(SPREAD.wrapping_mul(inverse)))
        });
        unfold(unfold(shard << KEY_BITS | key).wrapping_mul(inverse) & mask(ADDRESS_BITS))
    }

    /// No two addresses have one place: each place leads back to its address.
    #[test]
    fn places_are_apart() {
        for address in numbers().take(10_000).map(|x| x & mask(ADDRESS_BITS)) {
            let (shard, key) = place(address);
            assert_eq!(unplace(shard as u64, key), address);
        }
    }

    /// Sizes come back whole, and numbers that no process has are refused.
    #[test]
    fn ends_of_ranges() {
        let mut table = BlockTable::default();
        let last = mask(ADDRESS_BITS);
        for size in [0, 1, HUGE - 1, HUGE, 1 << 63, u64::MAX] {
            let block = Block { owner: mask(OWNER_BITS) as u32, size, time: MAX_TIME };
            for address in [0, 1, last] {
                assert_eq!(table.put(address, block), Put::New);
                assert_eq!(table.blocks().collect::<Vec<_>>(), [block]);
                table.renumber(|owner| owner - 1);
                assert_eq!(table.take(address), Some(Block { owner: block.owner - 1, ..block }));
                assert_eq!(table.take(address), None);
            }
        }
        let fine = block(0);
        assert_eq!(table.put(last + 1, fine), Put::Refused);
        assert_eq!(table.take(last + 1), None);
        assert_eq!(table.put(0, Block { owner: 1 << OWNER_BITS, ..fine }), Put::Refused);
        let huge = Block { size: 1 << 40, ..fine };
        let n_put = (0..MAX_HUGE as u64 + 9).filter(|&at| table.put(at, huge) == Put::New).count();
        assert_eq!((n_put, table.len()), (MAX_HUGE, MAX_HUGE));
    }

    /// What a block takes, also while the table grows.
    #[test]
    fn bytes_of_a_block() {
        let mut table = BlockTable::default();
        let mut most = 0.0_f64;
        for n in 0..1_000_000_u64 {
            table.put(0x5555_0000_0000 + n * 48, block(n));
            if n > 100_000 && n % 1000 == 0 {
                let slots: usize = table.shards.iter().map(|shard| shard.slots.capacity()).sum();
                most = most.max((slots * size_of::<Packed>()) as f64 / n as f64);
            }
        }
        assert!(most < 20.0, "{most}");
    }
}
