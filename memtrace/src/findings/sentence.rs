//! What a finding says, with its names and numbers kept apart from the words.
//!
//! Whoever prints it writes bytes and counts as everywhere, and escapes what the target has named.

use std::borrow::Cow;

use crate::stacks::FrameId;

/// A part of a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Words of memtrace's own.
    Text(Cow<'static, str>),
    /// Bytes.
    Bytes(u64),
    /// A whole number.
    Count(u64),
    /// So many things of this name, which gets an `s` unless it is one.
    Things(u64, &'static str),
    /// A part of a whole, in percent.
    Share(u64, u64),
    /// A time span in nanoseconds.
    Span(u64),
    /// A thread, by its index in the ledger.
    Thread(u32),
    /// A frame.
    Frame(FrameId),
    /// A name that the target chose.
    Name(String),
}

/// Parts, one behind the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sentence(pub Vec<Part>);

impl From<&'static str> for Part {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Part {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

/// A sentence of words and parts.
macro_rules! say {
    ($($part:expr),* $(,)?) => {
        $crate::findings::Sentence(vec![$($crate::findings::Part::from($part)),*])
    };
}
pub(super) use say;
