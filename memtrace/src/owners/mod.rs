//! Who made the pages resident that malloc holds although nobody uses them.
//!
//! In: a recording with a footprint: where these pages are, and what the ledger knows of them. Out: their bytes by thread
//! and stack, and how each number came about. Who freed the blocks there is never the answer, and who used them last only
//! a trace of malloc knows: "made resident by" is all that is said.
//!
//! An arena other than the main one grows by just what is written next, so who grew it made the pages resident, unless
//! they were given back since. Everything else is divided by the sampled page faults that are left of it.

mod arena;

use rustc_hash::FxHashMap;

use self::arena::Divided;
use crate::{stacks::StackId, trace::Recording};

/// Half of an interval of 95 % of a normal distribution, in standard errors.
const Z_95: f64 = 1.96;
/// A thread with a smaller share of an arena does not count as one that shares it.
const MIN_SHARE: f64 = 0.05;

/// The retained bytes of a process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Retained {
    /// All of them.
    pub bytes: u64,
    /// Those whose page one thread obtained alone.
    pub exact_bytes: u64,
    /// Those that are divided by samples.
    pub estimated_bytes: u64,
    /// How many samples these are.
    pub n_samples: u64,
    /// Those of which only the last growth of the heap is known, of which others may have used a part.
    pub approximate_bytes: u64,
    /// Those that nobody is known of: resident before tracing began, or again since they were given back.
    pub unknown_bytes: u64,
    /// Those in arenas from which more than one thread has pages: of these another thread than the one that made them
    /// resident may have used them last.
    pub shared_bytes: u64,
    /// By thread, the largest first.
    pub threads: Vec<ThreadShare>,
    /// By thread and stack, the largest first.
    pub stacks: Vec<StackShare>,
}

/// What one thread made resident.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ThreadShare {
    /// Index of the thread in the ledger.
    pub thread: u32,
    /// Bytes.
    pub bytes: u64,
    /// Half of the 95 % interval, where a part is estimated.
    pub error_bytes: u64,
    /// Arenas of which more than a little is its.
    pub n_arenas: u64,
}

/// What one thread made resident at one stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackShare {
    /// Index of the thread in the ledger.
    pub thread: u32,
    /// The stack: of the growth, or of the sampled fault.
    pub stack: StackId,
    /// Bytes.
    pub bytes: u64,
    /// Samples, and pieces of growth.
    pub n: u64,
}

/// Who made the retained pages resident that the last footprint of `recording` tells of; `None` where there is none, or
/// another allocator's.
#[must_use]
pub fn retained(recording: &Recording) -> Option<Retained> {
    let malloc = recording.footprint.as_ref()?.malloc.as_ref()?;
    let mut retained = Retained::default();
    let mut by_owner: FxHashMap<u32, (f64, u64)> = FxHashMap::default();
    let mut by_thread: FxHashMap<u32, OfThread> = FxHashMap::default();
    for arena in &malloc.arenas {
        let divided = Divided::of(arena, &recording.ledger, recording.target.pid);
        retained.add(&divided);
        let threads = divided.by_thread(&recording.ledger);
        let whole: f64 = threads.values().map(|share| share.bytes).sum();
        let n_sharing = threads.values().filter(|share| share.bytes > MIN_SHARE * whole).count();
        let shared = if n_sharing > 1 { whole as u64 } else { 0 };
        retained.shared_bytes = retained.shared_bytes.saturating_add(shared);
        for (thread, share) in threads {
            let sum = by_thread.entry(thread).or_default();
            sum.variance += share.variance;
            sum.n_arenas += u64::from(share.bytes > MIN_SHARE * whole);
        }
        for (owner, (bytes, n)) in divided.by_owner {
            let sum = by_owner.entry(owner).or_default();
            *sum = (sum.0 + bytes, sum.1 + n);
        }
    }
    retained.list(recording, by_owner, &by_thread);
    Some(retained)
}

/// What is known of a thread beside its bytes.
#[derive(Clone, Copy, Debug, Default)]
struct OfThread {
    variance: f64,
    n_arenas: u64,
}

impl Retained {
    fn add(&mut self, divided: &Divided) {
        for (sum, bytes) in [
            (&mut self.bytes, divided.bytes),
            (&mut self.exact_bytes, divided.exact_bytes),
            (&mut self.estimated_bytes, divided.estimated_bytes),
            (&mut self.n_samples, divided.n_samples),
            (&mut self.approximate_bytes, divided.approximate_bytes),
            (&mut self.unknown_bytes, divided.unknown_bytes()),
        ] {
            *sum = sum.saturating_add(bytes);
        }
    }

    fn list(
        &mut self,
        recording: &Recording,
        by_owner: FxHashMap<u32, (f64, u64)>,
        by_thread: &FxHashMap<u32, OfThread>,
    ) {
        let mut threads: FxHashMap<u32, f64> = FxHashMap::default();
        for (owner, (bytes, n)) in by_owner {
            let Some(total) = recording.ledger.totals().get(owner as usize) else { continue };
            *threads.entry(total.thread).or_default() += bytes;
            let (thread, stack) = (total.thread, total.stack);
            self.stacks.push(StackShare { thread, stack, bytes: bytes.round() as u64, n });
        }
        let share = |(thread, bytes): (u32, f64)| {
            let OfThread { variance, n_arenas } =
                by_thread.get(&thread).copied().unwrap_or_default();
            let error_bytes = (Z_95 * variance.sqrt()).round() as u64;
            ThreadShare { thread, bytes: bytes.round() as u64, error_bytes, n_arenas }
        };
        self.threads = threads.into_iter().map(share).collect();
        self.threads.sort_by_key(|it| (std::cmp::Reverse(it.bytes), it.thread));
        self.stacks.retain(|it| it.bytes > 0);
        self.stacks.sort_by_key(|it| (std::cmp::Reverse(it.bytes), it.thread, it.stack));
    }
}

#[cfg(test)]
mod tests;
