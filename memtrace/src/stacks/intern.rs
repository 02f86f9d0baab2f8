//! Frames and stacks, each kept once and known by a number.

use std::hash::Hash;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

/// The number of a [`Frame`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FrameId(pub u32);

/// The number of a [`Stack`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StackId(pub u32);

/// What made a frame's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FrameKind {
    /// A compiler, ahead of time.
    Native,
    /// A Java virtual machine; which method is not known.
    Java,
    /// A Java method that was interpreted.
    Interpreted,
    /// A Java method that was compiled.
    Compiled,
    /// A Java method that was compiled into its caller.
    Inlined,
    /// A Java method that is native: the frame of its wrapper.
    JavaNative,
    /// A stub of the Java virtual machine's own.
    Stub,
}

impl FrameKind {
    /// Whether it is a known method of Java's.
    #[must_use]
    pub fn is_method(self) -> bool {
        use FrameKind::{Compiled, Inlined, Interpreted, JavaNative};
        matches!(self, Interpreted | Compiled | Inlined | JavaNative)
    }
}

/// One frame of a stack.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Frame {
    /// Function, `module+0x1a2b` where no symbol is known, or a name in brackets. May hold any character.
    pub name: String,
    /// What made its code.
    pub kind: FrameKind,
    /// Whether it was found by guessing.
    pub guess: bool,
    /// The source file and the line in it, where the class tells; of native code the file that it is from.
    pub source: Option<(String, Option<u32>)>,
}

/// How far a stack can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Quality {
    /// It goes to the thread's first frame, or to Java, by unwind information alone.
    Complete,
    /// As complete, but a frame of it was guessed.
    Approximate,
    /// There were more frames than were copied or walked.
    Truncated,
    /// It ends at something that could not be unwound.
    Broken,
}

/// A stack.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stack {
    /// Innermost first.
    pub frames: Vec<FrameId>,
    /// How far it can be trusted.
    pub quality: Quality,
}

/// Values known by numbers from 0 on, in the order in which they came.
#[derive(Debug)]
pub(super) struct Interner<T> {
    numbers: FxHashMap<T, u32>,
    max: usize,
}

impl<T: Hash + Eq + Clone> Interner<T> {
    /// An empty one that keeps at most `max` values.
    pub(super) fn new(max: usize) -> Self {
        Self { numbers: FxHashMap::default(), max }
    }

    /// The number of `value`, and whether it is new; `None` when there is no room for it.
    pub(super) fn number(&mut self, value: &T) -> Option<(u32, bool)> {
        if let Some(&number) = self.numbers.get(value) {
            return Some((number, false));
        }
        let number =
            u32::try_from(self.numbers.len()).ok().filter(|_| self.numbers.len() < self.max)?;
        self.numbers.insert(value.clone(), number);
        Some((number, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        let mut interner = Interner::new(2);
        let seen: Vec<_> =
            ["a", "b", "a", "c", "b"].iter().map(|value| interner.number(value)).collect();
        assert_eq!(
            seen,
            [Some((0, true)), Some((1, true)), Some((0, false)), None, Some((1, false))]
        );
    }
}
