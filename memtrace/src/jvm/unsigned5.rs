//! HotSpot's packed numbers, `UNSIGNED5`: small ones take one byte, the largest five.
//!
//! Since JDK 20 (JDK-8292758) no byte of a number is 0: each counts from 1.

/// A byte below this ends a number.
const L: u8 = 192;
const MAX_BYTES: u32 = 5;

/// What the bytes of a number count from: 0 before JDK 20, 1 since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    Zero,
    One,
}

/// Reads one number after the other.
#[derive(Clone, Debug)]
pub(super) struct Numbers<'a> {
    bytes: &'a [u8],
    base: Base,
}

impl<'a> Numbers<'a> {
    pub(super) fn new(bytes: &'a [u8], base: Base) -> Self {
        Self { bytes, base }
    }

    /// The next number; `None` where the bytes end, or hold none.
    pub(super) fn next(&mut self) -> Option<u32> {
        let excluded = u32::from(self.base == Base::One);
        let mut number = 0_u32;
        for n in 0..MAX_BYTES {
            let byte = self.byte()?;
            let digit = u32::from(byte).checked_sub(excluded)?;
            number = number.wrapping_add(digit << (6 * n));
            if byte < L {
                break;
            }
        }
        Some(number)
    }

    /// The next number, with a sign.
    pub(super) fn next_signed(&mut self) -> Option<i32> {
        let number = self.next()?;
        Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    /// The next byte as it is.
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of every length, in both forms.
    #[test]
    fn numbers() {
        // (bytes, what they mean from 0, what they mean from 1)
        let cases: [(&[u8], Option<u32>, Option<u32>); 8] = [
            (&[0], Some(0), None),
            (&[1], Some(1), Some(0)),
            (&[191], Some(191), Some(190)),
            (&[192, 0], Some(192), None),
            (&[192, 1], Some(256), Some(191)),
            (&[255; 5], Some(number(255, 5)), Some(number(254, 5))),
            (&[192], None, None),
            (&[], None, None),
        ];
        for (bytes, from_zero, from_one) in cases {
            assert_eq!(Numbers::new(bytes, Base::Zero).next(), from_zero, "{bytes:?}");
            assert_eq!(Numbers::new(bytes, Base::One).next(), from_one, "{bytes:?}");
        }
    }

    /// `n` digits of the same value.
    fn number(digit: u32, n: u32) -> u32 {
        (0..n).fold(0, |sum: u32, at| sum.wrapping_add(digit << (6 * at)))
    }

    /// The sign is the lowest bit.
    #[test]
    fn signs() {
        let signed: Vec<i32> =
            (0..6).map(|byte| Numbers::new(&[byte], Base::Zero).next_signed().unwrap()).collect();
        assert_eq!(signed, [0, -1, 1, -2, 2, -3]);
    }
}
