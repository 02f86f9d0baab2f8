//! Native memory that is in use, by what asks for it: direct buffers, caches of them, Netty's chunks, zip directories.
//!
//! How much is in use is known to the byte where calls of malloc were traced. Otherwise it is what a stack has mapped and
//! not given back, less what malloc holds free of it: blocks from 128 KiB on have mappings of their own, so that is near.

use crate::{ledger::Metric, stacks::StackId};

use super::{
    Confidence, Finding, Part, Remedy, Verdict, evidence::Evidence, sentence::say, trunk::trunk,
};

/// Something that asks for much.
struct Maker {
    id: &'static str,
    title: &'static str,
    /// What the name of a frame begins with that it has and those before it in the list have not.
    frames: &'static [&'static str],
    /// Whether it is no matter as long as it does not grow.
    is_fine_if_steady: bool,
    action: &'static str,
    rests_on: &'static str,
    compare: Option<&'static str>,
}

const MAKERS: [Maker; 4] = [
    Maker {
        id: "nio-temporary-buffers",
        title: "threads keep the temporary direct buffers of NIO",
        frames: &["sun.nio.ch.Util.getTemporaryDirectBuffer"],
        is_fine_if_steady: false,
        action: "-Djdk.nio.maxCachedBufferSize=262144, or read and write in smaller pieces, or with direct buffers of your own",
        rests_on: "larger ones are freed after each call then",
        compare: Some("-Djdk.nio.maxCachedBufferSize=262144"),
    },
    Maker {
        id: "netty-chunks",
        title: "chunks of Netty's buffer pool",
        frames: &["io.netty.buffer.PoolArena", "io.netty.buffer.AdaptivePoolingAllocator"],
        is_fine_if_steady: true,
        action: "-Dio.netty.allocator.numDirectArenas=2 or -Dio.netty.maxDirectMemory=SIZE; -Dio.netty.leakDetection.level=paranoid finds buffers that are not released",
        rests_on: "chunks stay until all buffers in them are released",
        compare: Some("-Dio.netty.allocator.numDirectArenas=2"),
    },
    Maker {
        id: "zip-directories",
        title: "directories of zip files that are open",
        frames: &["readCEN", "ZIP_Open_Generic", "ZIP_Put_In_Cache0"],
        is_fine_if_steady: false,
        action: "close each JarFile and ZipFile; URLConnection.setUseCaches(false)",
        rests_on: "each open file keeps its directory",
        compare: None,
    },
    Maker {
        id: "direct-buffers",
        title: "direct buffers",
        frames: &[
            "java.nio.DirectByteBuffer.<init>",
            "java.nio.ByteBuffer.allocateDirect",
            "Unsafe_AllocateMemory0",
        ],
        is_fine_if_steady: true,
        action: "-XX:MaxDirectMemorySize=SIZE bounds them; keep and reuse buffers, they are freed only after a collection",
        rests_on: "what exceeds SIZE is an OutOfMemoryError",
        compare: None,
    },
];

/// What a maker's stacks hold.
#[derive(Default)]
struct Held {
    bytes: u64,
    n_calls: u64,
    stacks: Vec<(StackId, u64)>,
    /// The stacks of one thread that hold the most, and which it is.
    thread: Option<u32>,
    n_threads: u64,
}

/// Temporary buffers that threads keep.
pub(super) fn temporary_buffers(evidence: &Evidence<'_>) -> Option<Finding> {
    finding(evidence, 0)
}

/// Netty's chunks.
pub(super) fn netty_chunks(evidence: &Evidence<'_>) -> Option<Finding> {
    finding(evidence, 1)
}

/// Directories of zip files.
pub(super) fn zip_directories(evidence: &Evidence<'_>) -> Option<Finding> {
    finding(evidence, 2)
}

/// Direct buffers of any other kind.
pub(super) fn direct_buffers(evidence: &Evidence<'_>) -> Option<Finding> {
    finding(evidence, 3)
}

fn finding(evidence: &Evidence<'_>, index: usize) -> Option<Finding> {
    let maker = MAKERS.get(index)?;
    let held = held(evidence, index);
    let bytes = held.bytes.min(evidence.footprint.rss_bytes);
    if !evidence.is_much(bytes) {
        return None;
    }
    let ledger = &evidence.recording.ledger;
    let growth = ledger.growth_of_mapped(&held.stacks);
    let is_growing = growth.is_some_and(|bytes_per_second| bytes_per_second > 0);
    let verdict = if maker.is_fine_if_steady && !is_growing {
        Verdict::ByDesign
    } else {
        Verdict::Suspicious
    };
    let thread = held.thread?;
    let mut proofs = vec![say![
        Part::Bytes(bytes),
        " are in use, obtained in ",
        Part::Things(held.n_calls, "call"),
        " by ",
        Part::Things(held.n_threads, "thread"),
        ", most by ",
        Part::Thread(thread)
    ]];
    proofs.push(match growth {
        Some(0) => say!["it does not grow any more"],
        Some(growth) => say!["it grows by ", Part::Bytes(growth), " a second"],
        None => say!["the trace is too short to say whether it grows"],
    });
    let is_exact = evidence.recording.malloc.is_some();
    let mut doubts = Vec::new();
    if !is_exact {
        doubts.push(say![
            "in use is what was mapped there, less what is free now; --malloc sampled measures it"
        ]);
    }
    Some(Finding {
        id: maker.id,
        title: if is_growing { say![maker.title, ", more and more"] } else { say![maker.title] },
        verdict,
        confidence: if is_exact { Confidence::High } else { Confidence::Medium },
        bytes,
        evidence: proofs,
        call: trunk(evidence.recording, &held.stacks),
        doubts,
        remedies: vec![Remedy {
            action: say![maker.action],
            returns: None,
            rests_on: say![maker.rests_on],
            compare: maker.compare,
        }],
    })
}

/// What the stacks hold that are of this maker and of none before it.
fn held(evidence: &Evidence<'_>, index: usize) -> Held {
    let recording = evidence.recording;
    let metric = if recording.malloc.is_some() { Metric::MallocLive } else { Metric::MappedLive };
    let makers: Vec<Option<usize>> =
        recording.frames.iter().map(|frame| maker_of_frame(&frame.name)).collect();
    let mut held = Held::default();
    let mut by_thread = std::collections::BTreeMap::<u32, u64>::new();
    for row in recording.ledger.by_stack(metric) {
        if maker_of(evidence, &makers, row.stack) != Some(index) {
            continue;
        }
        let free =
            if recording.malloc.is_some() { 0 } else { evidence.free_at(row.thread, row.stack) };
        let bytes = row.value.saturating_sub(free);
        held.bytes = held.bytes.saturating_add(bytes);
        held.n_calls = held.n_calls.saturating_add(row.n_events);
        held.stacks.push((row.stack, bytes));
        *by_thread.entry(row.thread).or_default() += bytes;
    }
    held.n_threads = by_thread.len() as u64;
    held.thread = by_thread.into_iter().max_by_key(|&(_, bytes)| bytes).map(|it| it.0);
    held
}

fn maker_of_frame(name: &str) -> Option<usize> {
    MAKERS.iter().position(|maker| maker.frames.iter().any(|start| name.starts_with(start)))
}

/// The first maker in the list that a frame of the stack is of.
fn maker_of(evidence: &Evidence<'_>, makers: &[Option<usize>], stack: StackId) -> Option<usize> {
    let stack = evidence.recording.stacks.get(stack.0 as usize)?;
    stack.frames.iter().filter_map(|id| *makers.get(id.0 as usize)?).min()
}
