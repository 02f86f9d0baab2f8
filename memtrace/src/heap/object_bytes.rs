//! How large each object is, in two bytes: there are tens of millions, and hardly one is larger than 500 KiB.

use rustc_hash::FxHashMap;

/// Sizes are multiples of this.
const UNIT_BYTES: u64 = 8;
/// Says that the size stands among the large ones.
const LARGE: u16 = u16::MAX;

/// Bytes by object, in the order in which they were added.
#[derive(Debug, Default)]
pub(super) struct ObjectBytes {
    units: Vec<u16>,
    large: FxHashMap<u32, u64>,
}

impl ObjectBytes {
    pub(super) fn with_capacity(n: usize) -> Self {
        Self { units: Vec::with_capacity(n), large: FxHashMap::default() }
    }

    pub(super) fn reserve_exact(&mut self, n: usize) {
        self.units.reserve_exact(n);
    }

    #[inline]
    pub(super) fn push(&mut self, bytes: u64) {
        let units = u16::try_from(bytes / UNIT_BYTES).unwrap_or(LARGE);
        if units == LARGE {
            self.large.insert(self.units.len() as u32, bytes);
        }
        self.units.push(units);
    }

    /// Adds those of `others` behind.
    pub(super) fn append(&mut self, others: Self) {
        let n = self.units.len() as u32;
        self.units.extend(others.units);
        self.large.extend(others.large.into_iter().map(|(object, bytes)| (n + object, bytes)));
    }

    /// Those of the n-th object; 0 where there is none.
    #[inline]
    pub(super) fn of(&self, object: usize) -> u64 {
        match self.units.get(object) {
            None => 0,
            Some(&LARGE) => self.large.get(&(object as u32)).copied().unwrap_or_default(),
            Some(&units) => u64::from(units) * UNIT_BYTES,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small ones and large ones, before and behind the border between them.
    #[test]
    fn small_and_large() {
        let sizes = [16, 8 * 65_534, 8 * 65_535, 0, 8 * 65_536, 32 << 30, 24];
        let mut all = ObjectBytes::with_capacity(2);
        let mut rest = ObjectBytes::default();
        sizes[..3].iter().for_each(|&bytes| all.push(bytes));
        sizes[3..].iter().for_each(|&bytes| rest.push(bytes));
        all.append(rest);
        let found: Vec<u64> = (0..8).map(|object| all.of(object)).collect();
        assert_eq!(found[..7], sizes);
        assert_eq!(found[7], 0);
    }
}
