//! Rests between looks at a process, for the process's sake.
//!
//! Each look takes the lock of its map for reading. Who waits for that lock to change the map is woken between two looks,
//! but a reader that comes back at once is faster (kernel/locking/rwsem.c: it may pass a waiting writer for 4 ms), again
//! and again. So who reads for long lets go for a moment now and then.

use std::{
    cell::Cell,
    thread,
    time::{Duration, Instant},
};

/// How long to read on without a rest.
const READING: Duration = Duration::from_millis(1);
/// Time to wake up for one that waits; with what the kernel adds to a sleep that is 0.1 ms.
const REST: Duration = Duration::from_micros(50);

/// When the last rest was.
#[derive(Debug)]
pub(super) struct Rest(Cell<Instant>);

impl Rest {
    pub(super) fn new() -> Self {
        Self(Cell::new(Instant::now()))
    }

    /// To be called after each look: rests, if it is time.
    pub(super) fn if_due(&self) {
        if self.0.get().elapsed() >= READING {
            thread::sleep(REST);
            self.0.set(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who reads on and on rests for a small part of the time, and never for long.
    #[test]
    fn rests() {
        let (began, rest, mut n) = (Instant::now(), Rest::new(), 0);
        while began.elapsed() < 20 * READING {
            let before = rest.0.get();
            rest.if_due();
            n += u32::from(rest.0.get() != before);
        }
        assert!((1..=20).contains(&n), "{n}");
    }
}
