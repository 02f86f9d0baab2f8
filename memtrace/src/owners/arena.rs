//! The retained bytes of one arena, divided among those who made them resident.

use std::ops::Range;

use rustc_hash::FxHashMap;

use crate::{
    footprint::Arena,
    ledger::{Ledger, Pages},
};

/// Fewer samples say too little.
const MIN_SAMPLES: u64 = 8;
/// The pages that a sample stands for where nothing says how many there are: 64 of 4 KiB.
const SAMPLE_BYTES: u64 = 64 * 4096;

/// How an arena's bytes are divided.
#[derive(Debug, Default)]
pub(super) struct Divided {
    pub(super) bytes: u64,
    pub(super) exact_bytes: u64,
    pub(super) estimated_bytes: u64,
    pub(super) n_samples: u64,
    pub(super) approximate_bytes: u64,
    /// Bytes, and samples or pieces, by the index of the ledger's totals.
    pub(super) by_owner: FxHashMap<u32, (f64, u64)>,
    /// Estimated bytes by the same, and of how many in all.
    estimates: Vec<Estimate>,
}

/// Bytes that are divided by samples.
#[derive(Debug)]
struct Estimate {
    bytes: f64,
    n: u64,
    by_owner: FxHashMap<u32, u64>,
}

/// What a thread has of an arena.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    pub(super) bytes: f64,
    pub(super) variance: f64,
}

/// Parts of an arena that are divided in the same way.
#[derive(Debug, Default)]
struct Rest {
    bytes: u64,
    n: u64,
    by_owner: FxHashMap<u32, u64>,
    /// Bytes by who grew the heap there.
    grown: FxHashMap<u32, u64>,
}

impl Divided {
    /// Divides the retained bytes of `arena` of process `tgid`.
    pub(super) fn of(arena: &Arena, ledger: &Ledger, tgid: u32) -> Self {
        let bytes = arena.returnable_bytes + arena.kept_bytes;
        let mut divided = Self { bytes, ..Self::default() };
        let listed: u64 = arena.free_pages.iter().map(|run| run.bytes).sum();
        if listed == 0 {
            return divided;
        }
        // Of very many pages a part is listed.
        let scale = bytes as f64 / listed as f64;
        let (mut since, mut before) = (Rest::default(), Rest::default());
        for run in &arena.free_pages {
            let range = run.start..run.start.saturating_add(run.bytes);
            for Pages { range, owner, is_given_back } in ledger.pages(tgid, range) {
                let n_bytes = range.end - range.start;
                match owner {
                    Some(owner) if !arena.is_main && !is_given_back => {
                        divided.exactly(owner, n_bytes as f64 * scale);
                    }
                    None if !is_given_back => before.add(ledger, tgid, range, None),
                    _ => since.add(ledger, tgid, range, owner.filter(|_| !is_given_back)),
                }
            }
        }
        divided.since_tracing(since, scale);
        divided.before_tracing(before, scale);
        divided
    }

    fn exactly(&mut self, owner: u32, bytes: f64) {
        self.exact_bytes += bytes.round() as u64;
        self.give(owner, bytes, 1);
    }

    fn give(&mut self, owner: u32, bytes: f64, n: u64) {
        let share = self.by_owner.entry(owner).or_default();
        *share = (share.0 + bytes, share.1 + n);
    }

    /// What became resident after tracing began: by samples, if there are enough; else by who grew the heap.
    fn since_tracing(&mut self, rest: Rest, scale: f64) {
        if rest.n >= MIN_SAMPLES {
            return self.estimate(rest.bytes as f64 * scale, rest);
        }
        for (owner, bytes) in rest.grown {
            let bytes = bytes as f64 * scale;
            self.approximate_bytes += bytes.round() as u64;
            self.give(owner, bytes, 1);
        }
    }

    /// What was there before tracing began may have been resident then: no more is given than what samples stand for.
    fn before_tracing(&mut self, rest: Rest, scale: f64) {
        if rest.n >= MIN_SAMPLES {
            let bytes = (rest.bytes as f64 * scale).min((rest.n * SAMPLE_BYTES) as f64);
            self.estimate(bytes, rest);
        }
    }

    fn estimate(&mut self, bytes: f64, rest: Rest) {
        self.estimated_bytes += bytes.round() as u64;
        self.n_samples += rest.n;
        for (&owner, &n) in &rest.by_owner {
            self.give(owner, bytes * n as f64 / rest.n as f64, n);
        }
        self.estimates.push(Estimate { bytes, n: rest.n, by_owner: rest.by_owner });
    }

    /// What is nobody's.
    pub(super) fn unknown_bytes(&self) -> u64 {
        let known = self.exact_bytes + self.estimated_bytes + self.approximate_bytes;
        self.bytes.saturating_sub(known)
    }

    /// What each thread has, with the variance of what is estimated of it.
    pub(super) fn by_thread(&self, ledger: &Ledger) -> FxHashMap<u32, Share> {
        let thread = |owner: u32| ledger.totals().get(owner as usize).map(|total| total.thread);
        let mut shares: FxHashMap<u32, Share> = FxHashMap::default();
        for (&owner, &(bytes, _)) in &self.by_owner {
            if let Some(thread) = thread(owner) {
                shares.entry(thread).or_default().bytes += bytes;
            }
        }
        for Estimate { bytes, n, by_owner } in &self.estimates {
            let mut n_of: FxHashMap<u32, u64> = FxHashMap::default();
            for (&owner, &n) in by_owner {
                thread(owner).into_iter().for_each(|it| *n_of.entry(it).or_default() += n);
            }
            for (thread, n_own) in n_of {
                let part = n_own as f64 / *n as f64;
                let variance = bytes * bytes * part * (1.0 - part) / *n as f64;
                shares.entry(thread).or_default().variance += variance;
            }
        }
        shares
    }
}

impl Rest {
    fn add(&mut self, ledger: &Ledger, tgid: u32, range: Range<u64>, grown_by: Option<u32>) {
        let n_bytes = range.end - range.start;
        self.bytes += n_bytes;
        if let Some(owner) = grown_by {
            *self.grown.entry(owner).or_default() += n_bytes;
        }
        for owner in ledger.faults_in(tgid, range) {
            self.n += 1;
            *self.by_owner.entry(owner).or_default() += 1;
        }
    }
}
