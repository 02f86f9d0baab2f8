//! What samples of blocks stand for.
//!
//! A block of S bytes is a sample with the probability p = 1 - e^(-S/R), where R is the mean number of bytes between two.
//! So each one that is stands for 1/p blocks of its size: S/p bytes, as jemalloc's and tcmalloc's profiles have it. What
//! that estimates is right on average, whatever the sizes, and how far off it may be is told by the samples themselves.

/// Blocks and bytes that a sample stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Weight {
    pub(super) blocks: u64,
    pub(super) bytes: u64,
    /// What the bytes add to the square of the standard error (Horvitz and Thompson's estimator): S² (1 - p) / p².
    pub(super) variance: f64,
}

/// What a sample of `size` bytes stands for; one a block if each is told of.
pub(super) fn weight(size: u64, mean_bytes: Option<u64>) -> Weight {
    let Some(mean_bytes) = mean_bytes.filter(|_| size > 0) else {
        return Weight { blocks: 1, bytes: size, variance: 0.0 };
    };
    let size = size as f64;
    let chance = -(-size / mean_bytes as f64).exp_m1();
    Weight {
        blocks: (1.0 / chance).round() as u64,
        bytes: (size / chance).round() as u64,
        variance: size * size * (1.0 - chance) / (chance * chance),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights() {
        // (size, mean, blocks, bytes): small ones stand for the mean, large ones for themselves
        let cases = [
            (64, Some(512 << 10), 8193, 524_320),
            (512 << 10, Some(512 << 10), 2, 829_411),
            (64 << 20, Some(512 << 10), 1, 64 << 20),
            (64, None, 1, 64),
            (0, Some(512 << 10), 1, 0),
            (u64::MAX, Some(1), 1, u64::MAX),
        ];
        for (size, mean, blocks, bytes) in cases {
            let weight = weight(size, mean);
            assert_eq!((weight.blocks, weight.bytes), (blocks, bytes), "{size}");
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
