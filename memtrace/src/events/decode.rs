//! From bytes to an event.

use memtrace_common::{EventHeader, Kind, ShortEvent};
use thiserror::Error;
use zerocopy::FromBytes;

/// One event: what happened, and the stack it happened on.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// What happened.
    pub header: EventHeader,
    /// What happened, as a kind that is known.
    pub kind: Kind,
    /// The stack from `header.regs.sp` on, as much as was copied.
    pub stack: &'a [u8],
    /// Whether nothing is told of the stack, not even registers.
    pub is_short: bool,
}

/// A record that can't be an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// It is shorter than it should be.
    #[error("record is {got} bytes, expected at least {want}")]
    Short {
        /// Bytes there are.
        got: usize,
        /// Bytes there should be.
        want: usize,
    },
    /// Its kind has no name.
    #[error("record is of unknown kind {0}")]
    Kind(u32),
}

impl<'a> Event<'a> {
    /// Decodes one record of the ring buffer.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        if let Ok(short) = ShortEvent::read_from_bytes(bytes) {
            return Self::without_stack(&short);
        }
        let (header, rest) = EventHeader::read_from_prefix(bytes)
            .map_err(|_| DecodeError::Short { got: bytes.len(), want: size_of::<EventHeader>() })?;
        let kind = Kind(header.kind);
        if kind.name().is_none() {
            return Err(DecodeError::Kind(header.kind));
        }
        let want = header.stack_bytes as usize;
        let stack = rest.get(..want).ok_or(DecodeError::Short { got: rest.len(), want })?;
        Ok(Self { header, kind, stack, is_short: false })
    }

    fn without_stack(short: &ShortEvent) -> Result<Self, DecodeError> {
        let ShortEvent { enter_ns, exit_ns, args: [a, b, c], result, tgid, tid, kind, .. } = *short;
        if Kind(kind).name().is_none() {
            return Err(DecodeError::Kind(kind));
        }
        let args = [a, b, c, 0, 0];
        let header =
            EventHeader { enter_ns, exit_ns, args, result, tgid, tid, kind, ..Default::default() };
        Ok(Self { header, kind: Kind(kind), stack: &[], is_short: true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    fn record(kind: u32, stack_bytes: u32, rest: usize) -> Vec<u8> {
        let header = EventHeader { kind, stack_bytes, ..Default::default() };
        let mut bytes = header.as_bytes().to_vec();
        bytes.resize(bytes.len() + rest, 7);
        bytes
    }

    #[test]
    fn records() {
        // (kind, announced stack, bytes behind the header, stack or error)
        let cases: [(u32, u32, usize, Result<usize, DecodeError>); 5] = [
            (Kind::MMAP.0, 0, 0, Ok(0)),
            (Kind::MMAP.0, 16, 1024, Ok(16)),
            (Kind::EXIT.0, 0, 64, Ok(0)),
            (Kind::MMAP.0, 17, 16, Err(DecodeError::Short { got: 16, want: 17 })),
            (99, 0, 0, Err(DecodeError::Kind(99))),
        ];
        for (kind, stack_bytes, rest, want) in cases {
            let bytes = record(kind, stack_bytes, rest);
            assert_eq!(Event::decode(&bytes).map(|event| event.stack.len()), want);
        }
    }

    /// What comes without a stack is the same as with an empty one.
    #[test]
    fn short() {
        let short = ShortEvent {
            enter_ns: 1,
            exit_ns: 2,
            args: [3, 4, 5],
            result: 6,
            tgid: 7,
            tid: 8,
            kind: Kind::FREE.0,
            reserved: 0,
        };
        let event = Event::decode(short.as_bytes()).unwrap();
        let header = event.header;
        assert_eq!((event.kind, event.stack), (Kind::FREE, &[][..]));
        assert_eq!((header.enter_ns, header.exit_ns, header.args), (1, 2, [3, 4, 5, 0, 0]));
        assert_eq!((header.result, header.tgid, header.tid), (6, 7, 8));
        let unknown = ShortEvent { kind: 99, ..short };
        assert_eq!(Event::decode(unknown.as_bytes()).err(), Some(DecodeError::Kind(99)));
    }

    /// Every prefix of a record is refused.
    #[test]
    fn cut() {
        let bytes = record(Kind::BRK.0, 8, 8);
        for len in (0..bytes.len()).filter(|&len| len != size_of::<ShortEvent>()) {
            assert!(Event::decode(&bytes[..len]).is_err(), "{len}");
        }
    }
}
