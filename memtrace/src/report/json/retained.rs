//! Who made resident what malloc holds free, as JSON has it.

use serde::Serialize;

use crate::{
    owners::{self, ThreadShare},
    trace::Recording,
};

#[derive(Serialize)]
pub(super) struct Retained {
    bytes: u64,
    exact_bytes: u64,
    estimated_bytes: u64,
    samples: u64,
    approximate_bytes: u64,
    unknown_bytes: u64,
    shared_bytes: u64,
    threads: Vec<Thread>,
}

#[derive(Serialize)]
struct Thread {
    tid: u32,
    bytes: u64,
    error_bytes: u64,
}

impl Retained {
    /// `None` where that was not measured.
    pub(super) fn of(recording: &Recording) -> Option<Self> {
        let it = owners::retained(recording)?;
        let thread = |&ThreadShare { thread, bytes, error_bytes, .. }: &ThreadShare| {
            let tid = recording.ledger.threads().get(thread as usize)?.tid;
            Some(Thread { tid, bytes, error_bytes })
        };
        Some(Self {
            bytes: it.bytes,
            exact_bytes: it.exact_bytes,
            estimated_bytes: it.estimated_bytes,
            samples: it.n_samples,
            approximate_bytes: it.approximate_bytes,
            unknown_bytes: it.unknown_bytes,
            shared_bytes: it.shared_bytes,
            threads: it.threads.iter().filter_map(thread).collect(),
        })
    }
}
