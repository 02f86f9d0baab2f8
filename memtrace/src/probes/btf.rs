//! The BPF type format, as far as offsets of structure members need it.
//!
//! A kernel describes 150,000 types and eight members are wanted, so nothing is built up: the types are walked once.
//! Format: Linux, Documentation/bpf/btf.rst.

use std::collections::HashMap;

pub(super) const MAGIC: u16 = 0xeb9f;
const TYPE_BYTES: usize = 12;
const MEMBER_BYTES: usize = 12;
/// How deep unnamed structures are searched for a member.
const MAX_DEPTH: usize = 8;

/// Kinds of types, numbered as the kernel does.
mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const ENUM64: u32 = 19;
}

/// The types of a kernel.
#[derive(Debug)]
pub(super) struct Types<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Where each type lies; types are numbered from 1.
    starts: Vec<u32>,
}

/// Where a type lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At(usize);

impl<'a> Types<'a> {
    /// `None` where `bytes` are not BTF of this machine's byte order, or are cut.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        if u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?) != MAGIC {
            return None;
        }
        let header = |at| Some(u32_at(bytes, at)? as usize);
        let body = bytes.get(header(4)?..)?;
        let types = part(body, header(8)?, header(12)?)?;
        let strings = part(body, header(16)?, header(20)?)?;
        let mut starts = vec![0];
        let mut at = 0;
        while at < types.len() {
            starts.push(u32::try_from(at).ok()?);
            at += size_of_type(u32_at(types, at + 4)?)?;
        }
        Some(Self { types, strings, starts })
    }

    /// Finds structures by their names.
    pub(super) fn structs(&self, names: &[&'static str]) -> HashMap<&'static str, At> {
        let found = self.starts.iter().skip(1).filter_map(|&start| {
            let at = At(start as usize);
            if kind_of(self.info(at)?) != kind::STRUCT {
                return None;
            }
            let name = names.iter().find(|name| self.is_named(at.0, name))?;
            Some((*name, at))
        });
        found.collect()
    }

    /// The byte offset of `member` in the structure at `at`, unnamed structures and unions in it included.
    pub(super) fn member_offset(&self, at: At, member: &str) -> Option<u64> {
        self.member_bits(at, member, MAX_DEPTH).map(|bits| bits / 8)
    }

    fn member_bits(&self, at: At, member: &str, depth: usize) -> Option<u64> {
        let info = self.info(at)?;
        if !matches!(kind_of(info), kind::STRUCT | kind::UNION) {
            return None;
        }
        let bit_fields = info >> 31 == 1;
        (0..n_of(info)).find_map(|i| {
            let start = at.0 + TYPE_BYTES + i * MEMBER_BYTES;
            let offset = u32_at(self.types, start + 8)?;
            let bits = u64::from(if bit_fields { offset & 0x00ff_ffff } else { offset });
            if self.is_named(start, member) {
                return Some(bits);
            }
            if depth == 0 || !self.is_named(start, "") {
                return None;
            }
            let inner = *self.starts.get(u32_at(self.types, start + 4)? as usize)?;
            Some(bits + self.member_bits(At(inner as usize), member, depth - 1)?)
        })
    }

    fn info(&self, at: At) -> Option<u32> {
        u32_at(self.types, at.0 + 4)
    }

    /// Whether what lies at `start` (a type or a member, both begin with their name) is named `name`.
    fn is_named(&self, start: usize, name: &str) -> bool {
        let string = u32_at(self.types, start).and_then(|at| self.strings.get(at as usize..));
        string
            .and_then(|string| string.strip_prefix(name.as_bytes()))
            .is_some_and(|rest| rest.first() == Some(&0))
    }
}

fn kind_of(info: u32) -> u32 {
    info >> 24 & 0x1f
}

fn n_of(info: u32) -> usize {
    (info & 0xffff) as usize
}

/// Bytes that a type takes, `None` for a kind that came after this was written and whose size is not known.
fn size_of_type(info: u32) -> Option<usize> {
    let n = n_of(info);
    let rest = match kind_of(info) {
        kind::INT | kind::VAR | kind::DECL_TAG => 4,
        kind::ARRAY => 12,
        kind::STRUCT | kind::UNION => n * MEMBER_BYTES,
        kind::ENUM | kind::FUNC_PROTO => n * 8,
        kind::DATASEC | kind::ENUM64 => n * 12,
        2 | 7..=12 | 16 | 18 => 0,
        _ => return None,
    };
    Some(TYPE_BYTES + rest)
}

fn part(bytes: &[u8], offset: usize, len: usize) -> Option<&[u8]> {
    bytes.get(offset..offset.checked_add(len)?)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(part(bytes, at, 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(bytes: &mut Vec<u8>, words: &[u32]) {
        words.iter().for_each(|word| bytes.extend(word.to_ne_bytes()));
    }

    /// `struct a { int b; struct { int c; }; }` in BTF.
    fn example() -> Vec<u8> {
        let strings = b"\0a\0b\0c\0int\0";
        let mut types = Vec::new();
        word(&mut types, &[7, kind::INT << 24, 4, 32]);
        word(&mut types, &[0, kind::STRUCT << 24 | 1, 4, 5, 1, 0]);
        word(&mut types, &[1, kind::STRUCT << 24 | 2, 8, 3, 1, 0, 0, 2, 32]);
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        word(&mut bytes, &[24, 0, types.len() as u32, types.len() as u32, strings.len() as u32]);
        bytes.extend(types);
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn members() {
        let bytes = example();
        let types = Types::parse(&bytes).unwrap();
        let a = types.structs(&["a", "int"])["a"];
        for (member, offset) in [("b", Some(0)), ("c", Some(4)), ("d", None), ("", None)] {
            assert_eq!(
                types.member_offset(a, member).filter(|_| !member.is_empty()),
                offset,
                "{member}"
            );
        }
    }

    /// Cut or foreign bytes are refused or describe less, and nothing panics.
    #[test]
    fn cut_anywhere() {
        let bytes = example();
        for len in 0..bytes.len() {
            assert!(Types::parse(&bytes[..len]).is_none(), "{len}");
        }
    }
}
