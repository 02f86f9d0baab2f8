//! From an object's identifier to its number.
//!
//! Identifiers are addresses, dense and multiples of 8, so a bit for each place in the heap with the number of bits before
//! each word does it: two bytes for an object instead of the eight of a sorted list, and no search. Where they lie too far
//! apart, or one is told of twice, they are sorted all the same.

/// Objects are numbered from 0, in the order of the file.
#[derive(Debug)]
pub(super) enum Ids {
    /// A bit for each place in the heap.
    Bits { first: u64, shift: u32, words: Vec<Word>, order: Order },
    /// Sorted identifiers with their numbers.
    Sorted(Vec<(u64, u32)>),
}

/// 64 places of the heap.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Word {
    bits: u64,
    n_before: u32,
}

/// Which number has the object with the n-th address.
#[derive(Debug)]
pub(super) enum Order {
    /// The n-th.
    Ascending,
    /// That.
    Numbers(Vec<u32>),
}

impl Ids {
    /// Takes the identifiers of parts, in the order of the file.
    pub(super) fn new(parts: Vec<Vec<u64>>) -> Self {
        let n: usize = parts.iter().map(Vec::len).sum();
        let all = || parts.iter().flatten().copied();
        let (first, last) =
            all().fold((u64::MAX, 0), |(least, most), id| (least.min(id), most.max(id)));
        let bits = all().fold(0, |bits, id| bits | id);
        let shift = bits.trailing_zeros().min(4);
        let n_words = if n == 0 { 0 } else { ((last - first) >> shift) / 64 + 1 };
        if n_words > n as u64 + 1024 {
            return Self::sorted(&parts);
        }
        let mut words = vec![Word::default(); n_words as usize];
        let (mut is_ascending, mut before) = (true, None);
        for id in all() {
            let place = (id - first) >> shift;
            let (word, bit) = (&mut words[(place / 64) as usize], 1 << (place % 64));
            if word.bits & bit != 0 {
                return Self::sorted(&parts);
            }
            word.bits |= bit;
            is_ascending &= before.is_none_or(|before| before < id);
            before = Some(id);
        }
        let mut sum = 0;
        for word in &mut words {
            word.n_before = sum;
            sum += word.bits.count_ones();
        }
        let mut ids = Self::Bits { first, shift, words, order: Order::Ascending };
        if !is_ascending {
            let mut numbers = vec![0; n];
            for (number, id) in (0..).zip(all()) {
                if let Some(rank) = ids.number(id) {
                    numbers[rank as usize] = number;
                }
            }
            if let Self::Bits { order, .. } = &mut ids {
                *order = Order::Numbers(numbers);
            }
        }
        ids
    }

    fn sorted(parts: &[Vec<u64>]) -> Self {
        let mut sorted: Vec<(u64, u32)> = parts.iter().flatten().copied().zip(0..).collect();
        sorted.sort_unstable();
        // Of those told of twice the first counts.
        sorted.dedup_by_key(|(id, _)| *id);
        Self::Sorted(sorted)
    }

    /// The number of the object with this identifier.
    #[inline]
    pub(super) fn number(&self, id: u64) -> Option<u32> {
        match self {
            Self::Bits { first, shift, words, order } => {
                let distance = id.checked_sub(*first)?;
                let place = distance >> shift;
                let word = words.get(usize::try_from(place / 64).ok()?)?;
                let bit = 1 << (place % 64);
                if word.bits & bit == 0 || distance & ((1 << shift) - 1) != 0 {
                    return None;
                }
                let rank = word.n_before + (word.bits & (bit - 1)).count_ones();
                match order {
                    Order::Ascending => Some(rank),
                    Order::Numbers(numbers) => numbers.get(rank as usize).copied(),
                }
            }
            Self::Sorted(sorted) => {
                let at = sorted.binary_search_by_key(&id, |(id, _)| *id).ok()?;
                Some(sorted[at].1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every identifier has its number, and nothing else has one.
    #[test]
    fn numbers() {
        let dense: Vec<u64> = (0..5000).map(|n| 0x7_0000_0000 + n * 24).collect();
        let mut mixed = dense.clone();
        mixed.rotate_left(1234);
        let sparse: Vec<u64> = (0..50).map(|n| 8 + (n << 40)).collect();
        let odd: Vec<u64> = (0..999).map(|n| 3 + n * 7).collect();
        for (ids, is_sorted) in
            [(dense, false), (mixed, false), (sparse, true), (odd, false), (vec![], false)]
        {
            let (head, tail) = ids.split_at(ids.len() / 3);
            let numbers = Ids::new(vec![head.to_vec(), tail.to_vec()]);
            assert_eq!(matches!(numbers, Ids::Sorted(_)), is_sorted);
            for (at, &id) in ids.iter().enumerate() {
                assert_eq!(numbers.number(id), Some(at as u32));
                assert_eq!(numbers.number(id + 1), None);
            }
            for id in [0, 1, u64::MAX] {
                assert_eq!(numbers.number(id), None);
            }
        }
    }

    /// Of two with one identifier it is the first.
    #[test]
    fn twice() {
        let ids = Ids::new(vec![vec![16, 8, 16, 24]]);
        assert_eq!([8, 16, 24].map(|id| ids.number(id)), [Some(1), Some(0), Some(3)]);
    }
}
