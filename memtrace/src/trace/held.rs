//! What the Inflaters and Deflaters that are open hold: the live blocks that they asked for.
//!
//! A stream's blocks are asked for inside of the JNI functions of `java.util.zip`: the stream itself and zlib's state
//! when it is opened, its window when it first inflates or deflates. `Inflater_end` frees them all, so what is live of
//! them is held by a stream that is not ended. The same libzip has these names from JDK 8 to 26, and exports them.

use rustc_hash::FxHashMap;

use super::Recording;
use crate::{
    ledger::Metric,
    stacks::{FrameId, FrameKind},
};

/// What the names of the functions begin with (java.base/share/native/libzip/Inflater.c and Deflater.c).
const JNI: [&str; 2] = ["Java_java_util_zip_Inflater_", "Java_java_util_zip_Deflater_"];

/// What streams hold that a thread asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Index of the thread in the ledger.
    pub thread: u32,
    /// Live blocks.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Recording {
    /// What the open streams of Java hold, by the thread that asked for it, the largest first; `None` where calls of
    /// allocators were not traced.
    pub fn held_by_streams(&self) -> Option<Vec<Held>> {
        self.malloc?;
        let is_of_stream: Vec<bool> = self
            .frames
            .iter()
            .map(|frame| {
                frame.kind == FrameKind::Native
                    && JNI.iter().any(|start| frame.name.starts_with(start))
            })
            .collect();
        let mut held: FxHashMap<u32, Held> = FxHashMap::default();
        for row in self.ledger.by_stack(Metric::MallocLive) {
            let frames = self.stacks.get(row.stack.0 as usize).map_or(&[][..], |it| &it.frames);
            let is_inside = |id: &FrameId| is_of_stream.get(id.0 as usize) == Some(&true);
            if frames.iter().any(is_inside) {
                let sum = held.entry(row.thread).or_default();
                sum.thread = row.thread;
                sum.blocks = sum.blocks.saturating_add(row.n_live_blocks);
                sum.bytes = sum.bytes.saturating_add(row.value);
            }
        }
        let mut held: Vec<_> = held.into_values().collect();
        held.sort_unstable_by_key(|held| (std::cmp::Reverse(held.bytes), held.thread));
        Some(held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ledger::{Allocation, Event, Freeing, What},
        stacks::{Frame, Quality, Stack, StackId},
        trace::{Malloc, Record},
    };

    /// The blocks of a stream that was ended, and what others asked for in functions of a like name, are not held.
    #[test]
    fn by_thread() {
        let mut recording = Recording::default();
        assert_eq!(recording.held_by_streams(), None);
        recording.apply(Record::Malloc(Malloc::Exact));
        for (name, kind) in [
            ("malloc", FrameKind::Native),
            ("Java_java_util_zip_Inflater_init", FrameKind::Native),
            ("Java_java_util_zip_Deflater_deflateBytesBytes", FrameKind::Native),
            ("Java_java_util_zip_Inflater_end", FrameKind::Java),
            ("Java_java_util_zip_CRC32_update", FrameKind::Native),
        ] {
            recording.apply(Record::Frame(Frame {
                name: name.into(),
                kind,
                guess: false,
                source: None,
            }));
        }
        for frames in [&[0, 1][..], &[0, 2], &[0, 3], &[0, 4], &[0]] {
            let frames = frames.iter().map(|&id| FrameId(id)).collect();
            recording.apply(Record::Stack(Stack { frames, quality: Quality::Complete }));
        }
        let mut apply = |tid, stack, what| {
            let event = Event { time_ns: 1, tgid: 1, tid, stack: StackId(stack), what };
            recording.apply(Record::Event(event));
        };
        let alloc = |addr, size| What::Alloc { by: Allocation::Calloc, addr, size };
        for (n, (tid, stack, size)) in
            [(1, 0, 100), (1, 0, 100), (2, 1, 1000), (1, 1, 7), (3, 2, 1), (3, 3, 2), (3, 4, 3)]
                .into_iter()
                .enumerate()
        {
            apply(tid, stack, alloc(0x1000 * (n as u64 + 1), size));
        }
        apply(3, 4, What::Free { addr: 0x1000, by: Freeing::Free });
        let held = recording.held_by_streams();
        let expected =
            [Held { thread: 1, blocks: 1, bytes: 1000 }, Held { thread: 0, blocks: 2, bytes: 107 }];
        assert_eq!(held.as_deref(), Some(&expected[..]));
    }
}
