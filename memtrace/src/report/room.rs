//! How much text stacks may become: a few large stacks under many threads would else fill memory and disk.

use crate::{
    stacks::{Frame, StackId},
    trace::Recording,
};

/// Stands for the frames of a stack that there was no room for.
pub(super) const LEFT_OUT: &str = "[left out]";

/// Text that stacks may become in one output.
#[derive(Debug)]
pub(super) struct Room {
    left_bytes: usize,
}

impl Room {
    /// A thousand times what a large trace needs.
    pub(super) const DEFAULT_BYTES: usize = 512 << 20;

    pub(super) fn new(bytes: usize) -> Self {
        Self { left_bytes: bytes }
    }

    /// Takes the room that the frames of `stack` need, or tells that there is not so much left.
    pub(super) fn take(&mut self, recording: &Recording, stack: StackId) -> bool {
        let needed: usize = recording.frames_of(stack).map(len).sum();
        match self.left_bytes.checked_sub(needed) {
            Some(left) => {
                self.left_bytes = left;
                true
            }
            None => false,
        }
    }
}

/// What a frame may become: its name, and where it is.
fn len(frame: &Frame) -> usize {
    let file = frame.source.as_ref().filter(|_| frame.kind.is_method());
    frame.name.len() + file.map_or(0, |(file, _)| file.len()) + 1
}
