//! The address space of one process: which bytes are accessible, and who obtained them.
//!
//! One rule serves every call: from no access to access is obtained, the reverse is given back. A `mmap` without
//! access over an old mapping is how a Java virtual machine gives memory back; an `mprotect` that opens a reservation
//! is how a glibc arena grows.

use std::{collections::BTreeMap, ops::Range};

use super::fold::at;

/// Who obtained bytes, or took access to them away: an index into the ledger's totals, or nobody that was traced.
pub(super) type Owner = Option<u32>;

/// Bytes that changed hands: who had obtained them, and how many.
pub(super) type Given = Vec<(Owner, u64)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Region {
    end: u64,
    access: bool,
    owner: Owner,
}

/// The regions of a process that are known, by address; none overlap.
#[derive(Clone, Debug, Default)]
pub(super) struct Regions {
    by_start: BTreeMap<u64, Region>,
}

/// A piece cut out of the address space, relative to where the cut began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    offset: u64,
    len: u64,
    access: bool,
    owner: Owner,
}

impl Piece {
    /// One past its last byte, relative to where the cut began.
    pub(super) fn end(&self) -> u64 {
        self.offset + self.len
    }

    /// Whether it can be accessed at all.
    pub(super) fn access(&self) -> bool {
        self.access
    }

    /// Its owner has a new number.
    pub(super) fn renumber(&mut self, new: &[u32]) {
        self.owner = self.owner.map(|owner| at(new, owner));
    }
}

impl Regions {
    /// Maps [start, end), in place of what was there; returns the accessible bytes that were given back by it.
    pub(super) fn map(&mut self, start: u64, end: u64, access: bool, owner: Owner) -> Given {
        let given = given(&self.cut(start, end));
        self.insert(start, Region { end, access, owner });
        given
    }

    /// Takes [start, end) out; returns the pieces that were known.
    pub(super) fn cut(&mut self, start: u64, end: u64) -> Vec<Piece> {
        if start >= end {
            return Vec::new();
        }
        self.split(start);
        self.split(end);
        let starts: Vec<u64> = self.by_start.range(start..end).map(|(&at, _)| at).collect();
        let pieces = starts.into_iter().filter_map(|at| {
            let region = self.by_start.remove(&at)?;
            Some(Piece {
                offset: at - start,
                len: region.end - at,
                access: region.access,
                owner: region.owner,
            })
        });
        pieces.collect()
    }

    /// Puts pieces that were cut back at `start`; what lies beyond `len` bytes is left out and returned.
    pub(super) fn paste(&mut self, start: u64, len: u64, pieces: &[Piece]) -> Vec<Piece> {
        let mut beyond = Vec::new();
        for piece in pieces {
            let kept = piece.len.min(len.saturating_sub(piece.offset));
            if kept > 0 {
                let at = start + piece.offset;
                self.insert(
                    at,
                    Region { end: at + kept, access: piece.access, owner: piece.owner },
                );
            }
            if kept < piece.len {
                beyond.push(Piece { offset: piece.offset + kept, len: piece.len - kept, ..*piece });
            }
        }
        beyond
    }

    /// Changes the access of [start, end). Bytes that become accessible are obtained by `owner`: returns how many, and
    /// what was given back. Bytes that become inaccessible are its own, too: an event told of them. Bytes that nothing is
    /// known of were mapped and accessible before.
    pub(super) fn protect(
        &mut self,
        start: u64,
        end: u64,
        access: bool,
        owner: Owner,
    ) -> (u64, Given) {
        let pieces = self.cut(start, end);
        let mut obtained = 0;
        let mut back = Given::new();
        let mut at = start;
        for piece in pieces {
            let piece_start = start + piece.offset;
            self.fill(at, piece_start, access, if access { None } else { owner });
            at = piece_start + piece.len;
            let obtains = access && !piece.access;
            obtained += if obtains { piece.len } else { 0 };
            if !access && piece.access {
                back.push((piece.owner, piece.len));
            }
            let owner = if obtains || !access { owner } else { piece.owner };
            self.insert(piece_start, Region { end: at, access, owner });
        }
        self.fill(at, end, access, if access { None } else { owner });
        (obtained, back)
    }

    /// Marks what of [start, end) no event told of as mapped before; returns how many accessible bytes it marked.
    ///
    /// That is what nothing is known of, and what an earlier reading of the map found without access: a call that no
    /// event tells of was under way then.
    pub(super) fn mark_before(&mut self, start: u64, end: u64, access: bool) -> u64 {
        let mut at = start;
        let mut marked = 0;
        let mut known = self.cut(start, end);
        for piece in &mut known {
            let piece_start = start + piece.offset;
            marked += self.fill(at, piece_start, access, None);
            at = piece_start + piece.len;
            if piece.owner.is_none() && !piece.access && access {
                piece.access = true;
                marked += piece.len;
            }
        }
        marked += self.fill(at, end, access, None);
        self.paste(start, end - start, &known);
        if access { marked } else { 0 }
    }

    /// Forgets everything; returns the accessible bytes that were given back.
    pub(super) fn clear(&mut self) -> Given {
        let regions = std::mem::take(&mut self.by_start);
        regions
            .iter()
            .filter(|(_, region)| region.access)
            .map(|(start, region)| (region.owner, region.end - start))
            .collect()
    }

    /// A copy for a child, who obtained none of it itself.
    pub(super) fn inherited(&self) -> Self {
        let mut copy = self.clone();
        copy.by_start.values_mut().for_each(|region| region.owner = None);
        copy
    }

    /// Owners have new numbers.
    pub(super) fn renumber(&mut self, new: &[u32]) {
        for region in self.by_start.values_mut() {
            region.owner = region.owner.map(|owner| at(new, owner));
        }
    }

    /// What is known of a range: the parts of it with their access and owners, by address.
    pub(super) fn within(&self, range: Range<u64>) -> Vec<(Range<u64>, bool, Owner)> {
        let before = self.by_start.range(..range.start).next_back();
        let from = before.map_or(range.start, |(&start, _)| start);
        let known = self.by_start.range(from..range.end.max(from));
        let parts = known.map(|(&start, region)| {
            let part = start.max(range.start)..region.end.min(range.end);
            (part, region.access, region.owner)
        });
        parts.filter(|(part, ..)| !part.is_empty()).collect()
    }

    /// The accessible bytes of [start, end).
    #[cfg(test)]
    fn accessible(&self, start: u64, end: u64) -> u64 {
        let mut copy = self.clone();
        copy.cut(start, end).iter().filter(|piece| piece.access).map(|piece| piece.len).sum()
    }

    fn fill(&mut self, start: u64, end: u64, access: bool, owner: Owner) -> u64 {
        if start >= end {
            return 0;
        }
        self.insert(start, Region { end, access, owner });
        end - start
    }

    /// Inserts a region where there is none, together with neighbors that are like it.
    fn insert(&mut self, mut start: u64, mut region: Region) {
        if start >= region.end {
            return;
        }
        if let Some((&at, before)) = self.by_start.range(..start).next_back()
            && before.end == start
            && (before.access, before.owner) == (region.access, region.owner)
        {
            start = at;
        }
        if let Some(after) = self.by_start.get(&region.end)
            && (after.access, after.owner) == (region.access, region.owner)
        {
            let end = after.end;
            self.by_start.remove(&region.end);
            region.end = end;
        }
        self.by_start.insert(start, region);
    }

    /// Makes `at` a boundary.
    fn split(&mut self, at: u64) {
        let Some((_, region)) = self.by_start.range_mut(..at).next_back() else { return };
        if region.end > at {
            let rest = *region;
            region.end = at;
            self.by_start.insert(at, rest);
        }
    }
}

/// The accessible bytes of `pieces`, by who had obtained them.
pub(super) fn given(pieces: &[Piece]) -> Given {
    pieces.iter().filter(|piece| piece.access).map(|piece| (piece.owner, piece.len)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Owner = Some(1);
    const B: Owner = Some(2);

    #[test]
    fn map_over() {
        let mut regions = Regions::default();
        assert_eq!(regions.map(0x1000, 0x9000, true, A), []);
        assert_eq!(regions.map(0x2000, 0x4000, true, B), [(A, 0x2000)]);
        // Giving back by a reservation over it.
        assert_eq!(regions.map(0x1000, 0x3000, false, B), [(A, 0x1000), (B, 0x1000)]);
        assert_eq!(given(&regions.cut(0, 0x10000)), [(B, 0x1000), (A, 0x5000)]);
    }

    /// Parts of a range, cut to it.
    #[test]
    fn within() {
        let mut regions = Regions::default();
        regions.map(0x2000, 0x4000, true, A);
        regions.map(0x5000, 0x6000, false, B);
        // (range, parts)
        type Parts<'a> = &'a [(Range<u64>, bool, Owner)];
        let cases: [(Range<u64>, Parts<'_>); 5] = [
            (0..0x2000, &[]),
            (0x3000..0x3800, &[(0x3000..0x3800, true, A)]),
            (0..0x10000, &[(0x2000..0x4000, true, A), (0x5000..0x6000, false, B)]),
            (0x3000..0x5800, &[(0x3000..0x4000, true, A), (0x5000..0x5800, false, B)]),
            (0x4000..0x5000, &[]),
        ];
        for (range, parts) in cases {
            assert_eq!(regions.within(range.clone()), parts, "{range:x?}");
        }
    }

    /// An arena: a reservation that is opened bit by bit, and closed again.
    #[test]
    fn arena() {
        let mut regions = Regions::default();
        regions.map(0, 0x10000, false, A);
        assert_eq!(regions.protect(0, 0x3000, true, A), (0x3000, vec![]));
        assert_eq!(regions.protect(0x2000, 0x6000, true, B), (0x3000, vec![]));
        assert_eq!(regions.protect(0x5000, 0x6000, false, A), (0, vec![(B, 0x1000)]));
        assert_eq!(regions.accessible(0, 0x10000), 0x5000);
    }

    /// What nothing is known of was there before, and accessible.
    #[test]
    fn unknown() {
        let mut regions = Regions::default();
        assert_eq!(regions.protect(0x1000, 0x2000, true, A), (0, vec![]));
        assert_eq!(regions.cut(0x8000, 0x9000), []);
        assert_eq!(given(&regions.cut(0, 0x9000)), [(None, 0x1000)]);
    }

    #[test]
    fn before() {
        let mut regions = Regions::default();
        regions.map(0x2000, 0x3000, true, A);
        assert_eq!(regions.mark_before(0x1000, 0x5000, true), 0x3000);
        assert_eq!(regions.mark_before(0x1000, 0x5000, true), 0);
        assert_eq!(given(&regions.cut(0, 0x9000)), [(None, 0x1000), (A, 0x1000), (None, 0x2000)]);
    }

    /// What a later reading of the map finds opened was opened by a call that no event tells of; what an event closed
    /// stays closed.
    #[test]
    fn read_again() {
        let mut regions = Regions::default();
        assert_eq!(regions.mark_before(0, 0x4000, true), 0x4000);
        assert_eq!(regions.mark_before(0x4000, 0x9000, false), 0);
        regions.protect(0x3000, 0x5000, false, A);
        assert_eq!(regions.mark_before(0, 0x8000, true), 0x3000);
        assert_eq!(regions.mark_before(0x8000, 0x9000, false), 0);
        assert_eq!(given(&regions.cut(0, 0x9000)), [(None, 0x3000), (None, 0x3000)]);
    }

    #[test]
    fn move_and_shrink() {
        let mut regions = Regions::default();
        regions.map(0x1000, 0x3000, true, A);
        regions.map(0x3000, 0x4000, true, B);
        let pieces = regions.cut(0x1000, 0x4000);
        assert_eq!(given(&regions.paste(0x9000, 0x1000, &pieces)), [(A, 0x1000), (B, 0x1000)]);
        assert_eq!(given(&regions.cut(0, 0x10000)), [(A, 0x1000)]);
    }

    /// Whatever is done, regions stay in order, apart, and no byte is invented: compared with a plain array of pages.
    #[test]
    fn against_an_array() {
        let mut regions = Regions::default();
        let mut pages = [None::<(bool, Owner)>; 64];
        let mut seed = 42_u64;
        let mut random = |below: u64| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for _ in 0..5000 {
            let (start, len, access) = (random(56), random(8) + 1, random(2) == 0);
            let owner = Some(random(3) as u32);
            let span = &mut pages[start as usize..(start + len) as usize];
            match random(3) {
                0 => {
                    regions.map(start, start + len, access, owner);
                    span.fill(Some((access, owner)));
                }
                1 => {
                    regions.cut(start, start + len);
                    span.fill(None);
                }
                _ => {
                    regions.protect(start, start + len, access, owner);
                    for page in span {
                        let (was, old) = page.unwrap_or((access, None));
                        *page = Some((access, if access && was { old } else { owner }));
                    }
                }
            }
            let listed: Vec<_> =
                (0..64).map(|page| regions.clone().cut(page, page + 1).first().copied()).collect();
            let listed: Vec<_> =
                listed.iter().map(|piece| piece.map(|piece| (piece.access, piece.owner))).collect();
            assert_eq!(listed, pages);
        }
    }
}
