//! Numbers out of the bytes of a dump, each within its bounds.

/// Where reading has got to in a dump. Numbers are big-endian, as Java writes them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes<'d> {
    dump: &'d [u8],
    at: usize,
    id_bytes: usize,
}

impl<'d> Bytes<'d> {
    /// Begins at `at`; what lies behind `end` is not read.
    pub(super) fn new(dump: &'d [u8], at: usize, end: usize, id_bytes: usize) -> Self {
        let end = end.min(dump.len());
        Self { dump: &dump[..end], at: at.min(end), id_bytes }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn id_bytes(&self) -> usize {
        self.id_bytes
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at == self.dump.len()
    }

    /// Goes to the end, and tells how far it is from `begin`.
    pub(super) fn skip_rest(&mut self, begin: usize) -> usize {
        self.at = self.dump.len();
        self.at.saturating_sub(begin)
    }

    #[inline]
    pub(super) fn take(&mut self, n: usize) -> Option<&'d [u8]> {
        let bytes = self.dump.get(self.at..self.at.checked_add(n)?)?;
        self.at += n;
        Some(bytes)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline]
    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    #[inline]
    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// An identifier, of four bytes or of eight.
    #[inline]
    pub(super) fn id(&mut self) -> Option<u64> {
        if self.id_bytes == 8 { self.u64() } else { self.u32().map(u64::from) }
    }
}

/// The identifier that `bytes` hold at `at`.
#[inline]
pub(super) fn id_at(bytes: &[u8], at: usize, id_bytes: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(id_bytes)?)?;
    match bytes.len() {
        8 => Some(u64::from_be_bytes(bytes.try_into().ok()?)),
        _ => Some(u64::from(u32::from_be_bytes(bytes.try_into().ok()?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What does not lie within the bounds is not read, whatever is asked for.
    #[test]
    fn bounds() {
        let dump = [1, 2, 3, 4, 5, 6, 7, 8, 9];
        let mut bytes = Bytes::new(&dump, 0, 100, 4);
        assert_eq!((bytes.u16(), bytes.id()), (Some(0x102), Some(0x0304_0506)));
        assert_eq!((bytes.u32(), bytes.take(usize::MAX), bytes.u16()), (None, None, Some(0x708)));
        assert_eq!((bytes.at(), bytes.is_at_end(), bytes.u8()), (8, false, Some(9)));
        assert_eq!((bytes.is_at_end(), bytes.u8()), (true, None));
        assert!(Bytes::new(&dump, 100, 3, 8).is_at_end());
        assert_eq!((id_at(&dump, 1, 8), id_at(&dump, 2, 8)), (Some(0x0203_0405_0607_0809), None));
        assert_eq!((id_at(&dump, usize::MAX, 4), id_at(&dump, 5, 4)), (None, Some(0x0607_0809)));
    }
}
