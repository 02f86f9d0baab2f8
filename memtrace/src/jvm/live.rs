//! The memory of a running process, read without stopping it.
//!
//! Structures lie close together: what is read page by page is kept until [`Memory::forget`], so that a walk through
//! them takes few system calls. A page is read whole only if a byte of it is wanted: no page of the target is touched
//! that its reader did not ask for.

use std::{cell::RefCell, io};

use rustc_hash::FxHashMap;

use super::memory::{Memory, Unreadable};

const PAGE_BYTES: u64 = 4096;
/// Pages that are kept; beyond, the cache starts anew.
const MAX_PAGES: usize = 2048;
/// Pieces that the kernel reads with one call (`UIO_MAXIOV`).
const MAX_PIECES: usize = 1024;

type Page = [u8; PAGE_BYTES as usize];

/// A running process.
#[derive(Debug)]
pub struct LiveMemory {
    pid: libc::pid_t,
    /// Pages that were read, `None` for those that can't be.
    pages: RefCell<FxHashMap<u64, Option<Box<Page>>>>,
}

impl LiveMemory {
    /// The memory of process `pid`.
    #[must_use]
    pub fn new(pid: u32) -> Self {
        Self { pid: pid.cast_signed(), pages: RefCell::default() }
    }

    fn read_in_page(&self, address: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        let page = address & !(PAGE_BYTES - 1);
        let mut pages = self.pages.borrow_mut();
        if pages.len() >= MAX_PAGES {
            pages.clear();
        }
        let page = pages.entry(page).or_insert_with(|| {
            let mut content = Box::new([0; PAGE_BYTES as usize]);
            read_pieces(self.pid, &[page], content.len(), &mut content[..])
                .is_ok_and(|n| n == content.len())
                .then_some(content)
        });
        let start = (address % PAGE_BYTES) as usize;
        match page.as_ref().and_then(|page| page.get(start..start + bytes.len())) {
            Some(found) => {
                bytes.copy_from_slice(found);
                Ok(())
            }
            None => Err(Unreadable { address, len: bytes.len() }),
        }
    }
}

impl Memory for LiveMemory {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        let len = bytes.len();
        let in_page = (address % PAGE_BYTES) as usize;
        if in_page + len <= PAGE_BYTES as usize {
            return self.read_in_page(address, bytes);
        }
        if len > 4 * PAGE_BYTES as usize {
            let n = read_pieces(self.pid, &[address], len, bytes).unwrap_or(0);
            return if n == len { Ok(()) } else { Err(Unreadable { address, len }) };
        }
        let (first, rest) = bytes.split_at_mut(PAGE_BYTES as usize - in_page);
        let unreadable = Unreadable { address, len };
        self.read_in_page(address, first).map_err(|_| unreadable)?;
        for (at, piece) in (1..).zip(rest.chunks_mut(PAGE_BYTES as usize)) {
            let start = (address & !(PAGE_BYTES - 1)).checked_add(at * PAGE_BYTES);
            self.read_in_page(start.ok_or(unreadable)?, piece).map_err(|_| unreadable)?;
        }
        Ok(())
    }

    fn read_each(&self, addresses: &[u64], len: usize, bytes: &mut Vec<u8>) -> Vec<bool> {
        bytes.clear();
        bytes.resize(addresses.len() * len, 0);
        let mut was_read = vec![false; addresses.len()];
        let mut first = 0;
        while first < addresses.len() && len > 0 {
            let batch = &addresses[first..addresses.len().min(first + MAX_PIECES)];
            let n = read_pieces(self.pid, batch, len, &mut bytes[first * len..]).unwrap_or(0);
            was_read[first..first + n / len].fill(true);
            // The kernel stops at the first piece that it can't read whole: pass over that one.
            bytes[first * len + n / len * len..][..n % len].fill(0);
            first += n / len + usize::from(n / len < batch.len());
        }
        was_read
    }

    fn forget(&self) {
        self.pages.borrow_mut().clear();
    }
}

/// Reads pieces of `len` bytes each at `addresses` of process `pid` one after the other into `bytes`, until one can't be
/// read; tells how many bytes were read.
fn read_pieces(
    pid: libc::pid_t,
    addresses: &[u64],
    len: usize,
    bytes: &mut [u8],
) -> io::Result<usize> {
    let wanted = (addresses.len() * len).min(bytes.len());
    let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: wanted };
    let remote: Vec<libc::iovec> = addresses
        .iter()
        .map(|&address| libc::iovec { iov_base: address as *mut libc::c_void, iov_len: len })
        .collect();
    // SAFETY: the kernel writes at most `iov_len` bytes to `local`, which lies in `bytes` and is borrowed exclusively
    // here; `remote` holds addresses of another process, which are never dereferenced here.
    let n = unsafe {
        let n_remote = remote.len() as libc::c_ulong;
        libc::process_vm_readv(pid, &raw const local, 1, remote.as_ptr(), n_remote, 0)
    };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> LiveMemory {
        LiveMemory::new(std::process::id())
    }

    /// Reads of any place and length give what stands there.
    #[test]
    fn own_memory() {
        let bytes: Vec<u8> = (0..40_000_u32).map(|n| (n / 7) as u8).collect();
        let memory = own();
        for (start, len) in [(0, 8), (4090, 12), (3, 4096), (0, 4097), (1, 16_000), (5, 39_000)] {
            let address = bytes.as_ptr() as u64 + start as u64;
            assert_eq!(memory.bytes(address, len).unwrap(), bytes[start..start + len], "{start}");
        }
    }

    /// A page is read once until it is to be forgotten.
    #[test]
    fn pages_are_kept_until_forgotten() {
        let mut value = Box::new(std::cell::UnsafeCell::new(1_u64));
        let memory = own();
        let address = value.get() as u64;
        assert_eq!(memory.u64(address), Ok(1));
        *value.get_mut() = 2;
        assert_eq!(memory.u64(address), Ok(1));
        memory.forget();
        assert_eq!(memory.u64(address), Ok(2));
    }

    /// Nothing is at these addresses.
    #[test]
    fn unreadable() {
        for address in [0, 8, 4095, u64::MAX - 3, u64::MAX, 0x8000_0000_0000] {
            let len = 4;
            assert_eq!(own().u32(address), Err(Unreadable { address, len }), "{address:#x}");
            assert!(own().bytes(address, 100_000).is_err(), "{address:#x}");
        }
    }

    /// More pieces than the kernel takes at once, some of them unreadable.
    #[test]
    fn many_pieces() {
        let numbers: Vec<u64> = (0..5000).collect();
        let is_bad = |n: usize| n % 1000 == 999 || n == 0;
        let addresses: Vec<u64> = (0..numbers.len())
            .map(|n| if is_bad(n) { 16 } else { &raw const numbers[n] as u64 })
            .collect();
        let mut bytes = Vec::new();
        let was_read = own().read_each(&addresses, 8, &mut bytes);
        for (n, piece) in bytes.chunks_exact(8).enumerate() {
            assert_eq!(was_read[n], !is_bad(n), "{n}");
            let expected = if is_bad(n) { 0 } else { numbers[n] };
            assert_eq!(u64::from_le_bytes(piece.try_into().unwrap()), expected);
        }
    }
}
