//! Where a walk goes back to when chunks do not fit, and how often.

use super::walk::{Bounds, State};

/// Chunks between two places that a walk can go back to.
pub(super) const CHECKPOINT_EVERY: u32 = 32;
/// Such places that are kept.
const N_CHECKPOINTS: usize = 16;
/// Times that bytes are read again before a place counts as damaged.
const MAX_TRIES: u32 = 96;
/// Times that the same bytes may be read again: then nobody is changing them.
const MAX_SAME: u32 = 6;

/// Places to go back to, and how often that was done for nothing.
pub(super) struct Again {
    places: [State; N_CHECKPOINTS],
    n_kept: usize,
    /// The farthest that failed.
    failed_at: u64,
    n_tries: u32,
    pub(super) n_same: u32,
    seen: Option<(u64, Option<u64>, Bounds)>,
}

impl Again {
    pub(super) fn new(state: State) -> Self {
        Self {
            places: [state; N_CHECKPOINTS],
            n_kept: 1,
            failed_at: 0,
            n_tries: 0,
            n_same: 0,
            seen: None,
        }
    }

    pub(super) fn keep(&mut self, state: State) {
        self.places[self.n_kept % N_CHECKPOINTS] = state;
        self.n_kept += 1;
        if state.at > self.failed_at && self.n_tries > 0 {
            (self.n_tries, self.n_same, self.seen) = (0, 0, None);
        }
    }

    /// Notes a failure; whether another try makes sense.
    pub(super) fn failed(&mut self, seen: (u64, Option<u64>, Bounds)) -> bool {
        self.n_same = if self.seen == Some(seen) { self.n_same + 1 } else { 0 };
        self.seen = Some(seen);
        self.failed_at = self.failed_at.max(seen.0);
        self.n_tries += 1;
        self.n_tries <= MAX_TRIES && self.n_same < MAX_SAME
    }

    /// The newest place at the first try, older ones then.
    pub(super) fn back(&mut self) -> State {
        let oldest = self.n_kept.saturating_sub(N_CHECKPOINTS);
        let place = self.n_kept.saturating_sub(self.n_tries as usize).max(oldest);
        self.n_kept = place + 1;
        self.places[place % N_CHECKPOINTS]
    }
}
