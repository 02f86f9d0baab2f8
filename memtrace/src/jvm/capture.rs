//! A target's memory, recorded as far as it was read, so that it can be read again without the target.
//!
//! [`Recorder`] stands between a reader and a [`Memory`] and notes what passes; the [`Capture`] that comes of it is a
//! [`Memory`] itself, holds just these bytes, and is a few KiB when packed.

use std::{cell::RefCell, collections::BTreeMap, io};

use super::memory::{Memory, Unreadable};

/// The first bytes of a packed capture, with the version of its form.
const MAGIC: &[u8; 8] = b"mtcapt\x00\x01";
/// Bytes of the largest capture that is unpacked.
const MAX_BYTES: usize = 64 << 20;
const ZSTD_LEVEL: i32 = 19;

/// Recorded memory: ranges that neither overlap nor touch, by first address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capture {
    ranges: BTreeMap<u64, Vec<u8>>,
}

impl Capture {
    /// Memory that holds `ranges`. Where they overlap, the later one counts.
    pub fn of_ranges(ranges: impl IntoIterator<Item = (u64, Vec<u8>)>) -> Self {
        let mut capture = Self::default();
        for (address, bytes) in ranges {
            capture.insert(address, &bytes);
        }
        capture
    }

    /// The ranges, by address.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.ranges.iter().map(|(&start, bytes)| (start, bytes.as_slice()))
    }

    /// Adds what stands at `address`, in the place of what was known of it.
    pub fn insert(&mut self, address: u64, bytes: &[u8]) {
        let Some(end) = address.checked_add(bytes.len() as u64).filter(|&end| end > address) else {
            return;
        };
        let before = self.ranges.range(..address).next_back();
        let touched: Vec<u64> =
            before.into_iter().chain(self.ranges.range(address..=end)).map(|(&at, _)| at).collect();
        let (mut start, mut merged) = (address, bytes.to_vec());
        for old in touched {
            let Some(known) = self.ranges.remove(&old) else { continue };
            let known_end = old + known.len() as u64;
            if known_end < address || old > end {
                self.ranges.insert(old, known);
                continue;
            }
            if old < start {
                let before = (start - old) as usize;
                merged.splice(0..0, known[..before.min(known.len())].iter().copied());
                start = old;
            }
            let merged_end = start + merged.len() as u64;
            if known_end > merged_end {
                merged.extend_from_slice(&known[(merged_end - old) as usize..]);
            }
        }
        self.ranges.insert(start, merged);
    }

    /// As bytes to be stored.
    pub fn pack(&self) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        for (start, bytes) in &self.ranges {
            plain.extend_from_slice(&start.to_le_bytes());
            plain.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            plain.extend_from_slice(bytes);
        }
        let mut packed = MAGIC.to_vec();
        packed.extend(zstd::bulk::compress(&plain, ZSTD_LEVEL)?);
        Ok(packed)
    }

    /// What [`Capture::pack`] made.
    pub fn unpack(packed: &[u8]) -> io::Result<Self> {
        let broken = |what: &'static str| io::Error::new(io::ErrorKind::InvalidData, what);
        let packed = packed.strip_prefix(MAGIC).ok_or_else(|| broken("not a capture"))?;
        if packed.is_empty() {
            return Err(broken("the capture is cut"));
        }
        let plain = zstd::bulk::decompress(packed, MAX_BYTES)?;
        let mut capture = Self::default();
        let mut rest = plain.as_slice();
        while let Some((head, after)) = rest.split_first_chunk::<16>() {
            let (start, len) = head.split_at(8);
            let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b));
            let (start, len) = (number(start), number(len));
            let split = usize::try_from(len).ok().and_then(|len| after.split_at_checked(len));
            let (bytes, after) = split.ok_or_else(|| broken("a range of the capture is cut"))?;
            capture.insert(start, bytes);
            rest = after;
        }
        if rest.is_empty() { Ok(capture) } else { Err(broken("the capture is cut")) }
    }
}

impl Memory for Capture {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        let unreadable = Unreadable { address, len: bytes.len() };
        let (start, range) = self.ranges.range(..=address).next_back().ok_or(unreadable)?;
        let found = usize::try_from(address - start)
            .ok()
            .and_then(|from| range.get(from..)?.get(..bytes.len()))
            .ok_or(unreadable)?;
        bytes.copy_from_slice(found);
        Ok(())
    }
}

/// Notes what is read of a memory.
#[derive(Debug)]
pub struct Recorder<M> {
    memory: M,
    seen: RefCell<Capture>,
}

impl<M: Memory> Recorder<M> {
    /// Records what is read of `memory` from now on.
    pub fn new(memory: M) -> Self {
        Self { memory, seen: RefCell::default() }
    }

    /// What was read so far.
    pub fn capture(&self) -> Capture {
        self.seen.borrow().clone()
    }
}

impl<M: Memory> Memory for Recorder<M> {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        self.memory.read(address, bytes)?;
        self.seen.borrow_mut().insert(address, bytes);
        Ok(())
    }

    fn forget(&self) {
        self.memory.forget();
    }
}

impl<M: Memory + ?Sized> Memory for std::rc::Rc<M> {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        (**self).read(address, bytes)
    }

    fn read_each(&self, addresses: &[u64], len: usize, bytes: &mut Vec<u8>) -> Vec<bool> {
        (**self).read_each(addresses, len, bytes)
    }

    fn forget(&self) {
        (**self).forget();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However ranges meet, the memory is what a byte array would be.
    #[test]
    fn ranges_meet() {
        let mut random = 1_u32;
        let mut next = move |below: u32| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 8) % below
        };
        for _ in 0..300 {
            let mut capture = Capture::default();
            let mut truth: [Option<u8>; 64] = [None; 64];
            for value in 0..12 {
                let (start, len) = (next(60) as usize, next(12) as usize);
                let len = len.min(64 - start);
                capture.insert(start as u64, &vec![value; len]);
                truth[start..start + len].fill(Some(value));
            }
            let seen: Vec<Option<u8>> = (0..64).map(|at| capture.u8(at).ok()).collect();
            assert_eq!(seen, truth);
            let ranges: Vec<_> = capture.ranges().collect();
            for pair in ranges.windows(2) {
                assert!(pair[0].0 + (pair[0].1.len() as u64) < pair[1].0, "{ranges:?}");
            }
            assert_eq!(Capture::unpack(&capture.pack().unwrap()).unwrap(), capture);
        }
    }

    /// A read that a recorder saw can be repeated, another one can't.
    #[test]
    fn records() {
        let recorder = Recorder::new(Capture::of_ranges([(0x100, (0..100).collect())]));
        recorder.u64(0x100).unwrap();
        recorder.u32(0x106).unwrap();
        recorder.u64(0x9).unwrap_err();
        let capture = recorder.capture();
        assert_eq!(
            capture.ranges().collect::<Vec<_>>(),
            [(0x100, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9][..])]
        );
        assert!(capture.u64(0x103).is_err());
    }

    /// What is no capture, or a cut one, is an error.
    #[test]
    fn broken() {
        let packed = Capture::of_ranges([(0x100, vec![7; 100])]).pack().unwrap();
        for bytes in [&b""[..], b"mtcapt", &packed[..8], &packed[..packed.len() - 2], &packed[8..]]
        {
            assert!(Capture::unpack(bytes).is_err(), "{bytes:?}");
        }
    }
}
