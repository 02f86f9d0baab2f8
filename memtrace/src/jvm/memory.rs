//! The memory of a target, whoever provides it.
//!
//! An address goes in, bytes come out, or the word that they can't be read. Everything in this room reads through
//! [`Memory`], so that what works on a running process also works on a recorded [`Capture`](super::Capture).
//! Nothing that is read is trusted: every reader bounds what it asks for and how long it goes on.

use thiserror::Error;

/// Bytes of the longest text that is read.
const MAX_TEXT_BYTES: usize = 1024;
/// Text is read in pieces that end at multiples of this, so that no page is touched for nothing.
const TEXT_PIECE_BYTES: u64 = 64;

/// Memory that could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("failed to read {len} bytes at {address:#x} of the target's memory")]
pub struct Unreadable {
    /// The first address.
    pub address: u64,
    /// How many bytes were asked for.
    pub len: usize,
}

/// The memory of a target.
pub trait Memory {
    /// Fills `bytes` with what stands at `address`.
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Unreadable>;

    /// Fills the pieces of `bytes`, each `len` long, with what stands at `addresses`; tells of each whether it could be
    /// read. What could not is zeros.
    fn read_each(&self, addresses: &[u64], len: usize, bytes: &mut Vec<u8>) -> Vec<bool> {
        bytes.clear();
        bytes.resize(addresses.len() * len, 0);
        let pieces = bytes.chunks_exact_mut(len.max(1)).zip(addresses);
        pieces.map(|(piece, &address)| self.read(address, piece).is_ok()).collect()
    }

    /// Forgets what was kept of earlier reads: the target has run on.
    fn forget(&self) {}

    /// The byte at `address`.
    fn u8(&self, address: u64) -> Result<u8, Unreadable> {
        let mut bytes = [0; 1];
        self.read(address, &mut bytes)?;
        Ok(bytes[0])
    }

    /// The 16 bits at `address`.
    fn u16(&self, address: u64) -> Result<u16, Unreadable> {
        let mut bytes = [0; 2];
        self.read(address, &mut bytes)?;
        Ok(u16::from_le_bytes(bytes))
    }

    /// The 32 bits at `address`.
    fn u32(&self, address: u64) -> Result<u32, Unreadable> {
        let mut bytes = [0; 4];
        self.read(address, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// The signed 32 bits at `address`.
    fn i32(&self, address: u64) -> Result<i32, Unreadable> {
        self.u32(address).map(u32::cast_signed)
    }

    /// The 64 bits at `address`.
    fn u64(&self, address: u64) -> Result<u64, Unreadable> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// The `len` bytes at `address`. The caller has bounded `len`.
    fn bytes(&self, address: u64, len: usize) -> Result<Vec<u8>, Unreadable> {
        let mut bytes = vec![0; len];
        self.read(address, &mut bytes)?;
        Ok(bytes)
    }

    /// The bytes from `address` to the next 0, at most 1 KiB.
    fn text(&self, address: u64) -> Result<Vec<u8>, Unreadable> {
        let mut text = Vec::new();
        let mut piece = [0; TEXT_PIECE_BYTES as usize];
        while text.len() < MAX_TEXT_BYTES {
            let start = address.wrapping_add(text.len() as u64);
            let piece = &mut piece[(start % TEXT_PIECE_BYTES) as usize..];
            self.read(start, piece)?;
            match piece.iter().position(|&byte| byte == 0) {
                Some(end) => {
                    text.extend_from_slice(&piece[..end]);
                    return Ok(text);
                }
                None => text.extend_from_slice(piece),
            }
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jvm::Capture;

    /// Text ends at its 0, at its bound or with an error, wherever it begins.
    #[test]
    fn texts() {
        let mut bytes = vec![b'x'; 3000];
        bytes[100] = 0;
        bytes[101] = 0;
        let memory = Capture::of_ranges([(0x1000, bytes)]);
        // (address, length of the text)
        let cases: [(u64, Option<usize>); 5] = [
            (0x1000, Some(100)),
            (0x1001, Some(99)),
            (0x1065, Some(0)),
            (0x1066, Some(MAX_TEXT_BYTES + 26)),
            (0x1000 + 2900, None),
        ];
        for (address, len) in cases {
            assert_eq!(memory.text(address).ok().map(|text| text.len()), len, "{address:#x}");
        }
    }

    /// Pieces that can't be read are zeros and hide nothing of the others.
    #[test]
    fn pieces() {
        let memory = Capture::of_ranges([(0x1000, vec![1, 2, 3, 4])]);
        let mut bytes = vec![9; 3];
        assert_eq!(memory.read_each(&[0x1000, 0x50, 0x1002], 2, &mut bytes), [true, false, true]);
        assert_eq!(bytes, [1, 2, 0, 0, 3, 4]);
    }
}
