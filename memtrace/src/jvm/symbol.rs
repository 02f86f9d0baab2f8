//! HotSpot's `Symbol`: the name of a class, a method or a field.

use super::{
    memory::{Memory, Unreadable},
    vm_structs::{TablesError, VmStructs},
};

/// Bytes of a name that are kept.
const MAX_NAME_BYTES: usize = 1024;

/// Where a symbol has its parts.
#[derive(Clone, Copy, Debug)]
pub(super) struct SymbolLayout {
    length: Length,
    body: u64,
}

#[derive(Clone, Copy, Debug)]
enum Length {
    Own(u64),
    /// In the upper half of a word that it shares.
    Shared(u64),
}

impl SymbolLayout {
    pub(super) fn of(structs: &VmStructs) -> Result<Self, TablesError> {
        let length = match structs.offset("Symbol::_length") {
            Some(offset) => Length::Own(offset),
            None => Length::Shared(structs.need_offset(&["Symbol::_length_and_refcount"])?),
        };
        Ok(Self { length, body: structs.need_offset(&["Symbol::_body", "Symbol::_body[0]"])? })
    }

    /// The text of the symbol at `address`.
    pub(super) fn text(&self, memory: &dyn Memory, address: u64) -> Result<String, Unreadable> {
        let len = match self.length {
            Length::Own(offset) => memory.u16(address.wrapping_add(offset))?,
            Length::Shared(offset) => (memory.u32(address.wrapping_add(offset))? >> 16) as u16,
        };
        let len = usize::from(len).min(MAX_NAME_BYTES);
        Ok(modified_utf8(&memory.bytes(address.wrapping_add(self.body), len)?))
    }
}

/// Text in the JVM's own encoding: 0 takes two bytes, what is beyond 16 bits two times three.
fn modified_utf8(bytes: &[u8]) -> String {
    if bytes.is_ascii() {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let continuation =
        |byte: Option<&u8>| byte.filter(|&&byte| byte >> 6 == 2).map(|b| u16::from(b & 63));
    let mut units = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, after)) = rest.split_first() {
        let (second, third) = (continuation(after.first()), continuation(after.get(1)));
        let (unit, len) = match (first, second, third) {
            (0..0x80, ..) => (u16::from(first), 1),
            (0xc0..0xe0, Some(second), _) => (u16::from(first & 31) << 6 | second, 2),
            (0xe0..0xf0, Some(second), Some(third)) => {
                (u16::from(first & 15) << 12 | second << 6 | third, 3)
            }
            _ => (0xfffd, 1),
        };
        units.push(unit);
        rest = &rest[len..];
    }
    String::from_utf16_lossy(&units)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        // (bytes, text)
        let cases: [(&[u8], &str); 6] = [
            (b"java/lang/Thread", "java/lang/Thread"),
            (b"gr\xc3\xbcn", "gr\u{fc}n"),
            (b"\xe6\x97\xa5", "\u{65e5}"),
            (b"\xed\xa0\xbd\xed\xb8\x80", "\u{1f600}"), // two surrogates
            (b"a\xc0\x80b", "a\0b"),
            (b"\xff\xe6\x97", "\u{fffd}\u{fffd}\u{fffd}"),
        ];
        for (bytes, text) in cases {
            assert_eq!(modified_utf8(bytes), text, "{bytes:?}");
        }
    }
}
