//! The frames and stacks that are kept, with what is new since it was last asked.

use super::intern::{Frame, FrameId, FrameKind, Interner, Quality, Stack, StackId};

/// Distinct stacks that are kept; events beyond get [`StackId::NOT_KEPT`], and are counted.
pub(crate) const MAX_STACKS: usize = 300_000;
/// Distinct frames that are kept.
pub(crate) const MAX_FRAMES: usize = 500_000;

impl StackId {
    /// Stands for all stacks that there was no room for, and that were left out because memtrace was behind.
    pub const NOT_KEPT: StackId = StackId(0);
}

/// Something that was interned for the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum New {
    /// The next frame.
    Frame(Frame),
    /// The next stack.
    Stack(Stack),
}

/// Frames and stacks.
#[derive(Debug)]
pub(super) struct Kept {
    frames: Interner<Frame>,
    stacks: Interner<Stack>,
    new: Vec<New>,
    /// Frames and stacks that there was no room for.
    pub(super) n_lost: u64,
}

impl Kept {
    /// No stack yet but [`StackId::NOT_KEPT`].
    pub(super) fn new() -> Self {
        let (frames, stacks) = (Interner::new(MAX_FRAMES), Interner::new(MAX_STACKS));
        let mut kept = Self { frames, stacks, new: Vec::new(), n_lost: 0 };
        let name = "[not kept]".into();
        let frame = Frame { name, kind: FrameKind::Native, guess: false, source: None };
        let frames = vec![kept.frame(frame)];
        kept.stack(Stack { frames, quality: Quality::Broken });
        kept
    }

    /// The number of `frame`.
    pub(super) fn frame(&mut self, frame: Frame) -> FrameId {
        let Some((number, is_new)) = self.frames.number(&frame) else {
            self.n_lost += 1;
            return FrameId(0);
        };
        if is_new {
            self.new.push(New::Frame(frame));
        }
        FrameId(number)
    }

    /// The number of `stack`.
    pub(super) fn stack(&mut self, stack: Stack) -> StackId {
        let Some((number, is_new)) = self.stacks.number(&stack) else {
            self.n_lost += 1;
            return StackId::NOT_KEPT;
        };
        if is_new {
            self.new.push(New::Stack(stack));
        }
        StackId(number)
    }

    /// What is new since the last call, in the order of its numbers.
    pub(super) fn take_new(&mut self) -> Vec<New> {
        std::mem::take(&mut self.new)
    }
}
