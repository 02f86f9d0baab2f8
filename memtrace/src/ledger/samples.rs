//! What samples of blocks stand for.
//!
//! A block of S bytes is a sample with the probability p = 1 - e^(-S/R), where R is the mean number of bytes between two.
//! So each one that is stands for 1/p blocks of its size: S/p bytes, as jemalloc's and tcmalloc's profiles have it. What
//! that estimates is right on average, whatever the sizes, and how far off it may be is told by the samples themselves.
//!
//! A sample may stand for 1.58 blocks. Sums are kept in 1/1024 of a block and rounded when they are shown: if each were
//! rounded to 2 they would be a quarter too large.

/// A number of blocks, in 1/1024.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct NBlocks(u64);

impl NBlocks {
    const ONE: u64 = 1024;

    /// As many whole blocks.
    pub(super) fn whole(n: u64) -> Self {
        Self(n.saturating_mul(Self::ONE))
    }

    /// Whether there are none at all.
    pub fn is_none(self) -> bool {
        self.0 == 0
    }

    /// The nearest whole number, which is the exact one where all blocks are told of.
    pub fn rounded(self) -> u64 {
        self.0.saturating_add(Self::ONE / 2) / Self::ONE
    }

    /// In parts of a block, for what is divided by the number of others.
    pub(super) fn parts(self) -> u64 {
        self.0
    }

    /// Adds `other`; the largest number stays.
    pub(super) fn add(&mut self, other: Self) {
        self.0 = self.0.saturating_add(other.0);
    }

    /// Takes `other` off; less than none is none.
    pub(super) fn take_off(&mut self, other: Self) {
        self.0 = self.0.saturating_sub(other.0);
    }
}

/// Blocks and bytes that a sample stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Weight {
    pub(super) blocks: NBlocks,
    pub(super) bytes: u64,
    /// What the bytes add to the square of the standard error (Horvitz and Thompson's estimator): S² (1 - p) / p².
    pub(super) variance: f64,
}

/// What a sample of `size` bytes stands for; one a block if each is told of.
pub(super) fn weight(size: u64, mean_bytes: Option<u64>) -> Weight {
    let Some(mean_bytes) = mean_bytes.filter(|_| size > 0) else {
        return Weight { blocks: NBlocks::whole(1), bytes: size, variance: 0.0 };
    };
    let size = size as f64;
    let chance = -(-size / mean_bytes as f64).exp_m1();
    Weight {
        blocks: NBlocks((NBlocks::ONE as f64 / chance).round() as u64),
        bytes: (size / chance).round() as u64,
        variance: size * size * (1.0 - chance) / (chance * chance),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights() {
        // (size, mean, blocks in 1/1024, bytes): small ones stand for the mean, large ones for themselves
        let cases = [
            (64, Some(512 << 10), 8_389_120, 524_320),
            (512 << 10, Some(512 << 10), 1620, 829_411),
            (64 << 20, Some(512 << 10), 1024, 64 << 20),
            (64, None, 1024, 64),
            (0, Some(512 << 10), 1024, 0),
            (u64::MAX, Some(1), 1024, u64::MAX),
        ];
        for (size, mean, blocks, bytes) in cases {
            let weight = weight(size, mean);
            assert_eq!((weight.blocks.parts(), weight.bytes), (blocks, bytes), "{size}");
        }
    }

    /// As many blocks are estimated as there were, on average, of sizes near the mean too.
    #[test]
    fn blocks() {
        let mean = 4096;
        for size in [16, 1000, 4096, 8192, 20_000] {
            let chance = -(-(size as f64) / mean as f64).exp_m1();
            let n_told = (1_000_000.0 * chance) as u64;
            let mut n = NBlocks::default();
            (0..n_told).for_each(|_| n.add(weight(size, Some(mean)).blocks));
            assert!(n.rounded().abs_diff(1_000_000) < 1000, "{size}: {n:?}");
        }
    }

    /// Sampled as the kernel side does, sizes of all kinds add up to what there was, within what the samples themselves
    /// say.
    #[test]
    fn estimates() {
        let mut seed = 11_u64;
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 11) as f64 / (1_u64 << 53) as f64
        };
        let mean = 64_u64 << 10;
        let (mut n_within, n_rounds) = (0, 40);
        for _ in 0..n_rounds {
            let (mut truth, mut estimate, mut variance) = (0, 0, 0.0);
            for _ in 0..50_000 {
                let size = (16.0 * (2_f64).powf(random() * 14.0)) as u64;
                truth += size;
                if random() < -(-(size as f64) / mean as f64).exp_m1() {
                    let weight = weight(size, Some(mean));
                    estimate += weight.bytes;
                    variance += weight.variance;
                }
            }
            n_within += u32::from(truth.abs_diff(estimate) as f64 <= 1.96 * variance.sqrt());
        }
        assert!((34..=40).contains(&n_within), "{n_within} of {n_rounds} within 95 %");
    }
}
