//! What became of the blocks of each stack: held and growing, held, or soon given back.
//!
//! In: the ledger at a moment. Out: a row for each stack, of all threads together, and what it looks like:
//!
//! - *growing*: what it holds at the least rose from the second to the third to the last quarter of the run, and a line
//!   through those three quarters rises by an eighth of what it holds in the last, or more. The first quarter is left out: programs
//!   fill their caches when they start. The least is taken because what is held for a while goes up and down.
//! - *churn*: nine of ten of its blocks were given back, after a tenth of the run or less, on average.
//! - *steady*: anything else.
//!
//! What was handed out in the last tenth of the run may be given back soon, so it is not called old.

use std::cmp::Reverse;

use rustc_hash::FxHashMap;

use super::{BlockTotal, Ledger, blocks::ticks_ns, samples::NBlocks};
use crate::stacks::StackId;

/// The youngest part of the run, in hundredths, whose blocks are not old (async-profiler's `--tail` has the same).
pub const TAIL_PERCENT: u64 = 10;
/// Moments at which what a stack holds is looked at.
const N_LOOKS: usize = 32;
/// Of what a stack holds, the part by which it must have grown to be called growing: one of so many.
const MIN_GROWTH: f64 = 8.0;
/// Of the blocks of a stack, the part that may be live for it to be churn: one of so many.
const MAX_CHURN_LEFT: u64 = 10;

/// How what a stack holds goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trend {
    /// It holds more and more.
    Growing,
    /// It holds what it holds.
    Steady,
    /// Nearly all of its blocks are given back soon.
    Churn,
}

/// The blocks that were asked for at one stack, by all threads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StackBlocks {
    /// The stack.
    pub stack: StackId,
    /// Index of the thread that holds the most of it, or else asked for the most.
    pub thread: u32,
    /// How many blocks, and what became of them.
    pub blocks: BlockTotal,
    /// Live blocks that are not of the last tenth of the run.
    pub old: NBlocks,
    /// Bytes in them.
    pub old_bytes: u64,
    /// How long the blocks that were given back had lived on average, in nanoseconds; `None` if none was.
    pub mean_life_ns: Option<u64>,
    /// How it goes on; `None` if the run was too short to say.
    pub trend: Option<Trend>,
    /// By how many bytes it grows in a second, if it does.
    pub growth_per_second: u64,
}

impl Ledger {
    /// What became of blocks by the stacks that asked for them, those first that hold the most that is old.
    pub fn stacks_of_blocks(&self) -> Vec<StackBlocks> {
        let mut by_stack: FxHashMap<StackId, (StackBlocks, (u64, u64))> = FxHashMap::default();
        let old = self.old_by_owner();
        for ((total, blocks), (old, old_bytes)) in self.totals.with_blocks().zip(old) {
            if blocks.mallocs.is_none() {
                continue;
            }
            let weight = (blocks.malloc_live_bytes, blocks.malloc_bytes);
            let (row, most) = by_stack
                .entry(total.stack)
                .or_insert_with(|| (StackBlocks::of(total.stack, total.thread), weight));
            row.blocks.add(&blocks);
            row.old.add(old);
            row.old_bytes = row.old_bytes.saturating_add(old_bytes);
            if weight > *most {
                (row.thread, *most) = (total.thread, weight);
            }
        }
        let mut rows: Vec<_> = by_stack.into_values().map(|(row, _)| self.judged(row)).collect();
        rows.sort_unstable_by_key(|row| {
            (Reverse(row.old_bytes), Reverse(row.blocks.malloc_live_bytes), row.stack)
        });
        rows
    }

    /// Live blocks that are old, and their bytes, by the index of their total.
    fn old_by_owner(&self) -> Vec<(NBlocks, u64)> {
        let run_ns = self.live_over_time.run_ns(self.last_ns);
        let tail_ns = run_ns / 100 * TAIL_PERCENT;
        let mut old = vec![(NBlocks::default(), 0_u64); self.totals.all().len()];
        for (owner, weight) in self.blocks.older_than(self.last_ns.saturating_sub(tail_ns)) {
            if let Some((n, bytes)) = old.get_mut(owner as usize) {
                n.add(weight.blocks);
                *bytes = bytes.saturating_add(weight.bytes);
            }
        }
        old
    }

    /// Takes note of what stacks hold, if that is due before what happens at `time_ns`.
    pub(super) fn note_live(&mut self, time_ns: u64) {
        if self.live_over_time.is_due(time_ns) {
            let mut held: FxHashMap<StackId, u64> = FxHashMap::default();
            for (total, blocks) in self.totals.with_blocks() {
                if blocks.malloc_live_bytes > 0 {
                    let bytes = held.entry(total.stack).or_default();
                    *bytes = bytes.saturating_add(blocks.malloc_live_bytes);
                }
            }
            self.live_over_time.push(time_ns, held.into_iter().collect());
        }
    }

    /// Takes note of what stacks have mapped and not given back, if that is due before what happens at `time_ns`.
    pub(super) fn note_mapped(&mut self, time_ns: u64) {
        if self.mapped_over_time.is_due(time_ns) {
            let mut held: FxHashMap<StackId, u64> = FxHashMap::default();
            for total in self.totals.all().iter().filter(|total| total.mapped_live_bytes > 0) {
                let bytes = held.entry(total.stack).or_default();
                *bytes = bytes.saturating_add(total.mapped_live_bytes);
            }
            self.mapped_over_time.push(time_ns, held.into_iter().collect());
        }
    }

    /// By how many bytes in a second grows what some stacks together have mapped and not given back: `Some(0)` if it does
    /// not, by the same rule as for blocks; `None` if the run was too short to say.
    pub fn growth_of_mapped(&self, stacks: &[(StackId, u64)]) -> Option<u64> {
        let mut sums = [0_u64; N_LOOKS];
        for &(stack, now) in stacks {
            let looks = self.mapped_over_time.of::<N_LOOKS>(stack, self.last_ns, now)?;
            sums.iter_mut().zip(looks).for_each(|(sum, bytes)| *sum = sum.saturating_add(bytes));
        }
        let look_seconds = self.mapped_over_time.run_ns(self.last_ns) as f64 / 1e9 / N_LOOKS as f64;
        Some((growth(&sums).unwrap_or_default() / look_seconds.max(1e-9)) as u64)
    }

    fn judged(&self, mut row: StackBlocks) -> StackBlocks {
        let BlockTotal { mallocs, malloc_live, malloc_live_bytes, freed, life_ticks, .. } =
            row.blocks;
        let (mallocs, freed) = (mallocs.parts(), freed.parts());
        row.mean_life_ns = life_ticks.checked_div(freed).map(|_| mean_ns(life_ticks, freed));
        let looks = self.live_over_time.of::<N_LOOKS>(row.stack, self.last_ns, malloc_live_bytes);
        let Some(looks) = looks else { return row };
        let run_ns = self.live_over_time.run_ns(self.last_ns);
        let growth = growth(&looks).filter(|_| !malloc_live.is_none());
        let is_short = |life_ns| life_ns <= run_ns / 100 * TAIL_PERCENT;
        let is_freed = freed >= mallocs - mallocs / MAX_CHURN_LEFT;
        row.trend = Some(match growth {
            Some(_) => Trend::Growing,
            None if is_freed && row.mean_life_ns.is_some_and(is_short) => Trend::Churn,
            None => Trend::Steady,
        });
        let look_seconds = run_ns as f64 / 1e9 / N_LOOKS as f64;
        row.growth_per_second = (growth.unwrap_or_default() / look_seconds) as u64;
        row
    }
}

impl StackBlocks {
    fn of(stack: StackId, thread: u32) -> Self {
        Self {
            stack,
            thread,
            blocks: BlockTotal::default(),
            old: NBlocks::default(),
            old_bytes: 0,
            mean_life_ns: None,
            trend: None,
            growth_per_second: 0,
        }
    }
}

fn mean_ns(ticks: u64, n: u64) -> u64 {
    let ns = u128::from(ticks_ns(1)) * u128::from(ticks) / u128::from(n.max(1));
    u64::try_from(ns).unwrap_or(u64::MAX)
}

/// By how many bytes what is held grows from look to look, if that is to be called growing.
fn growth(looks: &[u64; N_LOOKS]) -> Option<f64> {
    let looks = &looks[N_LOOKS / 4..];
    let least = looks.chunks(N_LOOKS / 4).map(|quarter| quarter.iter().min());
    if !least.is_sorted_by(|a, b| a < b) {
        return None;
    }
    let slope = slope(looks);
    let last = &looks[looks.len() - N_LOOKS / 4..];
    let held = last.iter().map(|&bytes| bytes as f64).sum::<f64>() / last.len() as f64;
    (slope * looks.len() as f64 >= held / MIN_GROWTH).then_some(slope)
}

/// The slope of the line of least squares through values one step apart.
fn slope(values: &[u64]) -> f64 {
    let n = values.len() as f64;
    let middle = (n - 1.0) / 2.0;
    let mean = values.iter().map(|&value| value as f64).sum::<f64>() / n;
    let at = values.iter().enumerate().map(|(x, &y)| (x as f64 - middle, y as f64 - mean));
    let (xy, xx) = at.fold((0.0, 0.0), |(xy, xx), (x, y)| (xy + x * y, xx + x * x));
    if xx > 0.0 { xy / xx } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Allocation, Event, Freeing, Metric, What};

    const MS: u64 = 1_000_000;
    const RUN_MS: u64 = 100_000;

    /// What a program does at a stack of its own in each tenth of a second.
    type Behaviour = fn(&mut Ledger, u32, u64);

    fn alloc(ledger: &mut Ledger, stack: u32, ms: u64, addr: u64, size: u64) {
        let what = What::Alloc { by: Allocation::Malloc, addr, size };
        ledger.apply(&Event {
            time_ns: 5_000_000 + ms * MS,
            tgid: 1,
            tid: 1,
            stack: StackId(stack),
            what,
        });
    }

    fn free(ledger: &mut Ledger, ms: u64, addr: u64) {
        let what = What::Free { addr, by: Freeing::Free };
        let stack = StackId::NOT_KEPT;
        ledger.apply(&Event { time_ns: 5_000_000 + ms * MS, tgid: 1, tid: 1, stack, what });
    }

    /// An address that only this stack has at this time.
    fn place(stack: u32, ms: u64) -> u64 {
        u64::from(stack) << 32 | ms << 4
    }

    fn leaks(ledger: &mut Ledger, stack: u32, ms: u64) {
        alloc(ledger, stack, ms, place(stack, ms), 100);
    }

    fn starts_up(ledger: &mut Ledger, stack: u32, ms: u64) {
        if ms < RUN_MS / 5 {
            alloc(ledger, stack, ms, place(stack, ms), 100);
        }
    }

    fn comes_and_goes(ledger: &mut Ledger, stack: u32, ms: u64) {
        alloc(ledger, stack, ms, place(stack, ms), 100);
        free(ledger, ms + 40, place(stack, ms));
    }

    /// A cache that has entries of ten seconds.
    fn caches(ledger: &mut Ledger, stack: u32, ms: u64) {
        alloc(ledger, stack, ms, place(stack, ms), 100);
        if let Some(old) = ms.checked_sub(40_000) {
            free(ledger, ms, place(stack, old));
        }
    }

    /// Collected every five seconds, but for a part that stays.
    fn saws_and_leaks(ledger: &mut Ledger, stack: u32, ms: u64) {
        alloc(ledger, stack, ms, place(stack, ms), 100);
        if ms % 5000 == 4900 {
            for old in (ms - 4900..=ms).step_by(100).filter(|old| old % 500 != 0) {
                free(ledger, ms, place(stack, old));
            }
        }
    }

    fn saws(ledger: &mut Ledger, stack: u32, ms: u64) {
        alloc(ledger, stack, ms, place(stack, ms), 100);
        if ms % 5000 == 4900 {
            for old in (ms - 4900..=ms).step_by(100) {
                free(ledger, ms, place(stack, old));
            }
        }
    }

    /// Something in the first moment and in the last: so long is the run.
    fn frames(ledger: &mut Ledger, stack: u32, ms: u64) {
        if ms == 0 || ms == RUN_MS {
            alloc(ledger, stack, ms, place(stack, ms), 1);
        }
    }

    #[test]
    fn trends() {
        use Trend::{Churn, Growing, Steady};
        // (what is done, how it goes on, old blocks, mean life in ms)
        let cases: [(Behaviour, Trend, u64, Option<u64>); 7] = [
            (leaks, Growing, 900, None),
            (starts_up, Steady, 200, None),
            (comes_and_goes, Churn, 0, Some(40)),
            (caches, Steady, 300, Some(40_000)),
            (saws_and_leaks, Growing, 180, Some(2400)),
            (saws, Churn, 0, Some(2450)),
            (frames, Steady, 1, None),
        ];
        let mut ledger = Ledger::default();
        for ms in (0..=RUN_MS).step_by(100) {
            for (stack, (behave, ..)) in (1..).zip(&cases) {
                behave(&mut ledger, stack, ms);
            }
        }
        let rows = ledger.stacks_of_blocks();
        for (stack, (_, trend, old, life_ms)) in (1..).zip(cases) {
            let row = rows.iter().find(|row| row.stack == StackId(stack)).unwrap();
            assert_eq!(row.trend, Some(trend), "{row:?}");
            assert!(row.old.rounded().abs_diff(old) <= 1, "{old} {row:?}");
            assert_eq!(
                row.old_bytes,
                row.old.rounded() * if old == 1 { 1 } else { 100 },
                "{row:?}"
            );
            let seen_ms = row.mean_life_ns.map(|ns| ns / MS);
            let differ = |(a, b): (u64, u64)| a.abs_diff(b) > 10;
            assert!(!seen_ms.zip(life_ms).is_some_and(differ), "{life_ms:?} {row:?}");
            assert_eq!(seen_ms.is_some(), life_ms.is_some(), "{row:?}");
            assert_eq!(row.growth_per_second > 0, trend == Growing, "{row:?}");
        }
        let growth = rows[0].growth_per_second;
        assert!((950..=1050).contains(&growth), "{growth}");
        assert!(rows.is_sorted_by_key(|row| Reverse(row.old_bytes)));
        let live: u64 = rows.iter().map(|row| row.blocks.malloc_live_bytes).sum();
        assert_eq!(live, ledger.sum(Metric::MallocLive));
    }

    /// What is held all the time grows at no time, however seldom anything happens.
    #[test]
    fn steady_and_seldom() {
        for until_ms in (5000..30_000).step_by(500) {
            let mut ledger = Ledger::default();
            alloc(&mut ledger, 1, 0, place(1, 0), 1 << 20);
            for n in 0.. {
                let ms = n * 2503 / 10;
                if ms > until_ms {
                    break;
                }
                alloc(&mut ledger, 2, ms, place(2, 0), 10);
                free(&mut ledger, ms, place(2, 0));
            }
            let rows = ledger.stacks_of_blocks();
            let row = rows.iter().find(|row| row.stack == StackId(1)).unwrap();
            assert_eq!(row.trend, Some(Trend::Steady), "{until_ms} ms: {row:?}");
            let looks: [u64; N_LOOKS] =
                ledger.live_over_time.of(StackId(1), ledger.last_ns, 1 << 20).unwrap();
            assert!(looks.iter().skip(2).all(|&bytes| bytes == 1 << 20), "{until_ms}: {looks:?}");
        }
    }

    /// Of a short run nothing is said of how it goes on.
    #[test]
    fn too_short() {
        let mut ledger = Ledger::default();
        (0..900).step_by(100).for_each(|ms| leaks(&mut ledger, 1, ms));
        let rows = ledger.stacks_of_blocks();
        assert_eq!((rows[0].trend, rows[0].growth_per_second), (None, 0));
    }

    /// A stack is of the thread that holds the most of it, and counts what all do there.
    #[test]
    fn threads_together() {
        let mut ledger = Ledger::default();
        for (tid, addr, size) in [(1, 16, 50), (2, 32, 30), (2, 48, 30), (3, 64, 900)] {
            let what = What::Alloc { by: Allocation::Malloc, addr, size };
            ledger.apply(&Event { time_ns: 0, tgid: 1, tid, stack: StackId(1), what });
        }
        free(&mut ledger, 0, 64);
        let rows = ledger.stacks_of_blocks();
        let tid = ledger.threads()[rows[0].thread as usize].tid;
        assert_eq!((rows.len(), tid, rows[0].blocks.malloc_bytes), (1, 2, 1010));
        assert_eq!(rows[0].blocks.malloc_live_bytes, 110);
    }

    #[test]
    fn slopes() {
        for (values, want) in [(&[5_u64, 5, 5][..], 0.0), (&[0, 10, 20], 10.0), (&[3], 0.0)] {
            assert!((slope(values) - want).abs() < 1e-9, "{values:?}");
        }
    }
}
