//! A target's memory as far as it is known, in pages: it takes what is read as fast as a trace reads, in any order.

use std::{collections::hash_map::Entry, ops::Range};

use rustc_hash::FxHashMap;

use super::memory::Unreadable;

const PAGE_BYTES: usize = 4096;
/// Pages that are known at most, 256 MiB; what comes beyond is not kept.
const MAX_PAGES: usize = 1 << 16;

/// Bytes by address, each known or not.
#[derive(Debug, Default)]
pub struct Image {
    pages: FxHashMap<u64, Box<Page>>,
}

#[derive(Debug)]
struct Page {
    bytes: [u8; PAGE_BYTES],
    /// Bit N says whether byte N is known.
    known: [u64; PAGE_BYTES / 64],
}

impl Image {
    /// Takes what stands at `address`; tells whether that is something else than what was known.
    pub fn put(&mut self, address: u64, bytes: &[u8]) -> bool {
        let mut is_new = false;
        for (page, place, piece) in pieces(address, bytes.len()) {
            let piece = &bytes[piece];
            let is_full = self.pages.len() >= MAX_PAGES;
            let page = match self.pages.entry(page) {
                Entry::Vacant(_) if is_full => return is_new,
                entry => entry.or_insert_with(|| Box::new(Page::UNKNOWN)),
            };
            is_new |= page.put(place, piece);
        }
        is_new
    }

    /// Fills `bytes` with what stands at `address`, if all of it is known.
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        let is_known = self.lay_over(address, bytes);
        is_known.then_some(()).ok_or(Unreadable { address, len: bytes.len() })
    }

    /// Puts into `bytes` what is known of `address`, and leaves the others as they are; tells whether all is known.
    pub fn lay_over(&self, address: u64, bytes: &mut [u8]) -> bool {
        let mut n_known = 0;
        for (page, place, piece) in pieces(address, bytes.len()) {
            if let Some(page) = self.pages.get(&page) {
                n_known += page.lay_over(place, &mut bytes[piece]);
            }
        }
        n_known == bytes.len()
    }

    /// Whether a byte is known of the `len` at `address`.
    pub fn knows_of(&self, address: u64, len: usize) -> bool {
        let knows = |(page, place, piece): (u64, usize, Range<usize>)| {
            let page = self.pages.get(&page)?;
            masks(place, piece.len()).find(|&(word, mask)| page.known[word] & mask != 0)
        };
        pieces(address, len).any(|piece| knows(piece).is_some())
    }
}

impl Page {
    const UNKNOWN: Self = Self { bytes: [0; PAGE_BYTES], known: [0; PAGE_BYTES / 64] };

    fn put(&mut self, place: usize, bytes: &[u8]) -> bool {
        if self.get(place, bytes.len()).is_some_and(|known| known == bytes) {
            return false;
        }
        self.bytes[place..place + bytes.len()].copy_from_slice(bytes);
        for (word, mask) in masks(place, bytes.len()) {
            self.known[word] |= mask;
        }
        true
    }

    /// Tells how many bytes it knew.
    fn lay_over(&self, place: usize, bytes: &mut [u8]) -> usize {
        if let Some(known) = self.get(place, bytes.len()) {
            bytes.copy_from_slice(known);
            return bytes.len();
        }
        let mut n_known = 0;
        for (at, byte) in (place..).zip(bytes) {
            if self.known[at / 64] >> (at % 64) & 1 == 1 {
                *byte = self.bytes[at];
                n_known += 1;
            }
        }
        n_known
    }

    fn get(&self, place: usize, len: usize) -> Option<&[u8]> {
        let is_known = masks(place, len).all(|(word, mask)| self.known[word] & mask == mask);
        is_known.then(|| &self.bytes[place..place + len])
    }
}

/// The pages of `len` bytes at `address`: the page, the place in it, and which of the bytes. What lies beyond the last
/// address is left out.
fn pieces(address: u64, len: usize) -> impl Iterator<Item = (u64, usize, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = address.checked_add(done as u64).filter(|_| done < len)?;
        let place = (at % PAGE_BYTES as u64) as usize;
        let piece = done..len.min(done + PAGE_BYTES - place);
        done = piece.end;
        Some((at / PAGE_BYTES as u64, place, piece))
    })
}

/// The words of a mask that stand for `len` bytes at `place`.
fn masks(place: usize, len: usize) -> impl Iterator<Item = (usize, u64)> {
    let end = place + len;
    (place / 64..end.div_ceil(64)).map(move |word| {
        let first = place.saturating_sub(word * 64);
        let n = end.saturating_sub(word * 64).min(64) - first.min(64);
        (word, if n == 64 { u64::MAX } else { ((1 << n) - 1) << first })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However pieces meet, the memory is what a byte array would be, and only what changes something is new.
    #[test]
    fn pieces_meet() {
        const BASE: u64 = 3 * PAGE_BYTES as u64 - 100;
        let mut random = 1_u32;
        let mut next = move |below: u32| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((random >> 8) % below) as usize
        };
        for _ in 0..200 {
            let (mut image, mut truth) = (Image::default(), [None; 300]);
            for _ in 0..20 {
                let (start, value) = (next(290), next(3) as u8);
                let len = next(if value == 0 { 8 } else { 200 }).min(300 - start);
                let new = truth[start..start + len].iter().any(|known| *known != Some(value));
                assert_eq!(image.put(BASE + start as u64, &vec![value; len]), new);
                truth[start..start + len].fill(Some(value));
            }
            let byte = |at: usize| {
                let mut byte = [0];
                image.read(BASE + at as u64, &mut byte).ok().map(|()| byte[0])
            };
            assert_eq!((0..300).map(byte).collect::<Vec<_>>(), truth);
            let mut whole = [9; 300];
            let is_whole = truth.iter().all(Option::is_some);
            assert_eq!(image.lay_over(BASE, &mut whole), is_whole);
            assert_eq!(whole, truth.map(|known| known.unwrap_or(9)));
            assert_eq!(image.knows_of(BASE, 300), truth.iter().any(Option::is_some));
        }
    }

    /// Addresses may be anything.
    #[test]
    fn at_the_end() {
        let mut image = Image::default();
        assert!(image.put(u64::MAX - 7, &[7; 16]));
        let mut bytes = [0; 4];
        assert_eq!(image.read(u64::MAX - 7, &mut bytes), Ok(()));
        assert_eq!(bytes, [7; 4]);
        assert!(image.read(u64::MAX - 2, &mut [0; 8]).is_err());
    }

    #[test]
    fn bounded() {
        let mut image = Image::default();
        for page in 0..MAX_PAGES as u64 + 10 {
            image.put(page * PAGE_BYTES as u64, &[1]);
        }
        assert_eq!(image.pages.len(), MAX_PAGES);
    }
}
