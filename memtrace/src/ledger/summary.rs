//! What the ledger adds up to: by thread, by stack, in all.
//!
//! In: a [`Ledger`], at its end or under way. Out: rows in an order that depends on nothing but what was recorded. A
//! value is never counted twice: the rows of a metric add up to [`Ledger::sum`].

use std::{cmp::Reverse, ops::Range};

use super::{BlockTotal, Ledger, Metric, StreamKind, Thread, samples::NBlocks};
use crate::stacks::StackId;

/// What a thread did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadRow<'l> {
    /// The thread.
    pub thread: &'l Thread,
    /// Bytes that it made accessible.
    pub mapped_bytes: u64,
    /// Those of them that were not given back, by whomever.
    pub mapped_live_bytes: u64,
    /// Inflaters and Deflaters that it opened.
    pub inflaters: u64,
    /// Those of them that were not ended.
    pub inflaters_live: u64,
    /// Blocks that it asked for, and what became of them. How many and how large is exact also where only samples of them
    /// are told of: all threads' together are what was allocated.
    pub blocks: BlockTotal,
    /// Who ended the others, the thread that ended the most first.
    pub ended_by: Vec<EndedBy<'l>>,
}

/// A thread that ended Inflaters and Deflaters which one thread had opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedBy<'l> {
    /// The thread that ended them.
    pub thread: &'l Thread,
    /// Whether it is the one that had opened them.
    pub itself: bool,
    /// How many.
    pub n: u64,
}

/// What one thread did at one stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackRow {
    /// Index of the thread in [`Ledger::threads`].
    pub thread: u32,
    /// The stack.
    pub stack: StackId,
    /// The metric's value, never 0.
    pub value: u64,
    /// Calls that the metric counts, those too whose result is gone again.
    pub n_events: u64,
    /// Live blocks of an allocator.
    pub n_live_blocks: u64,
}

/// A stream that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenStream {
    /// Whose.
    pub kind: StreamKind,
    /// Index of the thread that opened it.
    pub thread: u32,
    /// Where.
    pub stack: StackId,
    /// When, in nanoseconds of the monotonic clock.
    pub opened_ns: u64,
}

/// Pages that have one story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pages {
    /// Where they are.
    pub range: Range<u64>,
    /// Who obtained them, as an index into [`Ledger::totals`]; nobody that was traced where there is none.
    pub owner: Option<u32>,
    /// Whether they were given back to the kernel since, and stayed mapped: who has made them resident again is not told
    /// by who obtained them.
    pub is_given_back: bool,
}

impl Ledger {
    /// All threads that were seen, the one that mapped the most first.
    pub fn by_thread(&self) -> Vec<ThreadRow<'_>> {
        let mut rows: Vec<_> = self.threads().iter().map(ThreadRow::of).collect();
        for (total, blocks) in self.totals.with_blocks() {
            let Some(row) = rows.get_mut(total.thread as usize) else { continue };
            row.blocks.add(&blocks);
            add(&mut row.mapped_bytes, total.mapped_bytes);
            add(&mut row.mapped_live_bytes, total.mapped_live_bytes);
            add(&mut row.inflaters, total.streams);
            add(&mut row.inflaters_live, total.streams_live);
        }
        if self.blocks.are_sampled() {
            rows.iter_mut().for_each(ThreadRow::tell_exactly);
        }
        for (opener, ender, n) in self.ended_by() {
            let thread = self.threads().get(ender as usize);
            if let (Some(row), Some(thread)) = (rows.get_mut(opener as usize), thread) {
                row.ended_by.push(EndedBy { thread, itself: opener == ender, n });
            }
        }
        for row in &mut rows {
            row.ended_by.sort_by_key(|by| Reverse(by.n));
        }
        rows.sort_by_key(|row| Reverse(row.weight()));
        rows
    }

    /// Where the values of `metric` are from, the largest first.
    pub fn by_stack(&self, metric: Metric) -> Vec<StackRow> {
        let mut rows: Vec<_> = self
            .totals
            .with_blocks()
            .filter(|(total, blocks)| metric.of(total, blocks) > 0)
            .map(|(total, blocks)| StackRow {
                thread: total.thread,
                stack: total.stack,
                value: metric.of(total, &blocks),
                n_events: metric.n_events(total, &blocks),
                n_live_blocks: blocks.malloc_live.rounded(),
            })
            .collect();
        rows.sort_by_key(|row| (Reverse(row.value), row.thread, row.stack));
        rows
    }

    /// The streams of process `tgid` that are open, the oldest first.
    pub fn open_streams(&self, tgid: u32) -> Vec<OpenStream> {
        let open = self.streams.open_in(tgid).filter_map(|open| {
            let stack = self.totals().get(open.owner as usize)?.stack;
            let (kind, thread, opened_ns) = (open.kind, open.thread, open.opened_ns);
            Some(OpenStream { kind, thread, stack, opened_ns })
        });
        let mut open: Vec<_> = open.collect();
        open.sort_by_key(|it| (it.opened_ns, it.thread, it.stack, it.kind));
        open
    }

    /// What is known of the pages of a range of process `tgid`: parts of it, by address, that make up all of it.
    pub fn pages(&self, tgid: u32, range: Range<u64>) -> Vec<Pages> {
        let Some(process) = self.processes.get(&tgid) else {
            return vec![Pages { range, owner: None, is_given_back: false }];
        };
        process.pages(range)
    }

    /// Who made sampled pages of a range of process `tgid` resident, each time as an index into [`Ledger::totals`].
    pub fn faults_in(&self, tgid: u32, range: Range<u64>) -> impl Iterator<Item = u32> {
        let process = self.processes.get(&tgid).into_iter();
        process.flat_map(move |process| process.faults.within(range.clone()).map(|fault| fault.1))
    }

    /// Who asked for the block at `address` of process `tgid`, which goes on: the index of the thread, and the stack.
    /// `None` where it is not live, or not remembered.
    pub fn owner_of_block(&self, tgid: u32, address: u64) -> Option<(u32, StackId)> {
        let owner = self.blocks.at(tgid, address)?.owner;
        self.totals().get(owner as usize).map(|total| (total.thread, total.stack))
    }

    /// The value of `metric` in all.
    pub fn sum(&self, metric: Metric) -> u64 {
        let values = self.totals.with_blocks().map(|(total, blocks)| metric.of(total, &blocks));
        values.fold(0, u64::saturating_add)
    }

    /// The thread with the largest value of `metric`, and the value; `None` where nothing was counted.
    pub fn top_thread(&self, metric: Metric) -> Option<(&Thread, u64)> {
        let mut values = vec![0; self.threads().len()];
        for (total, blocks) in self.totals.with_blocks() {
            if let Some(value) = values.get_mut(total.thread as usize) {
                add(value, metric.of(total, &blocks));
            }
        }
        let (index, &value) = values.iter().enumerate().rev().max_by_key(|&(_, value)| value)?;
        self.threads().get(index).filter(|_| value > 0).map(|thread| (thread, value))
    }

    /// When the first thing was noted, in nanoseconds of the monotonic clock; 0 if nothing was.
    pub fn start_ns(&self) -> u64 {
        self.first_ns.unwrap_or_default()
    }

    /// How long after the first thing that was noted `time_ns` is, in nanoseconds.
    pub fn since_start_ns(&self, time_ns: u64) -> u64 {
        time_ns.saturating_sub(self.first_ns.unwrap_or(time_ns))
    }
}

impl<'l> ThreadRow<'l> {
    fn of(thread: &'l Thread) -> Self {
        Self {
            thread,
            mapped_bytes: 0,
            mapped_live_bytes: 0,
            inflaters: 0,
            inflaters_live: 0,
            blocks: BlockTotal::default(),
            ended_by: Vec::new(),
        }
    }

    /// What the thread counted itself, in place of what samples of it stand for.
    fn tell_exactly(&mut self) {
        self.blocks.mallocs = NBlocks::whole(self.thread.mallocs);
        self.blocks.malloc_bytes = self.thread.malloc_bytes;
    }

    /// What it is ordered by; among equals the order in which the threads were seen stays.
    fn weight(&self) -> (u64, u64, u64) {
        (self.mapped_bytes, self.inflaters, self.thread.n_events)
    }
}

/// A damaged trace may claim any number.
fn add(sum: &mut u64, value: u64) {
    *sum = sum.saturating_add(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Event, NameFrom, StreamKind, What};

    fn event(tid: u32, stack: u32, what: What) -> Event {
        Event { time_ns: u64::from(tid) * 10, tgid: 1, tid, stack: StackId(stack), what }
    }

    fn mmap(tid: u32, stack: u32, addr: u64, len: u64) -> Event {
        event(tid, stack, What::Mmap { addr, len, access: true })
    }

    fn init(tid: u32, stack: u32, address: u64) -> Event {
        event(tid, stack, What::StreamInit { kind: StreamKind::Inflater, address })
    }

    fn end(tid: u32, address: u64) -> Event {
        event(tid, 0, What::StreamEnd { kind: StreamKind::Inflater, address })
    }

    /// Thread 2 maps the most, thread 3 opens streams that it, thread 1 and nobody end.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        let events = [
            mmap(1, 1, 0, 0x1000),
            mmap(2, 2, 0x10000, 0x3000),
            mmap(2, 1, 0x20000, 0x1000),
            event(1, 0, What::Munmap { addr: 0x10000, len: 0x3000 }),
            init(3, 2, 8),
            init(3, 2, 16),
            init(3, 1, 24),
            init(3, 1, 32),
            end(3, 8),
            end(1, 16),
            end(1, 24),
        ];
        events.iter().for_each(|event| ledger.apply(event));
        ledger.name_thread(1, 3, b"opens", NameFrom::Comm);
        ledger
    }

    #[test]
    fn by_thread() {
        let ledger = ledger();
        let rows = ledger.by_thread();
        let numbers: Vec<_> = rows
            .iter()
            .map(|row| {
                let ThreadRow { mapped_bytes, mapped_live_bytes, inflaters, .. } = row;
                (row.thread.tid, *mapped_bytes, *mapped_live_bytes, *inflaters, row.inflaters_live)
            })
            .collect();
        assert_eq!(
            numbers,
            [(2, 0x4000, 0x1000, 0, 0), (1, 0x1000, 0x1000, 0, 0), (3, 0, 0, 4, 1)]
        );
        let ended_by: Vec<_> =
            rows[2].ended_by.iter().map(|by| (by.thread.tid, by.itself, by.n)).collect();
        assert_eq!(ended_by, [(1, false, 2), (3, true, 1)]);
    }

    #[test]
    fn by_stack() {
        type Row = (u32, u32, u64, u64);
        // (metric, (thread, stack, value, calls) of each row)
        let cases: [(Metric, &[Row]); 4] = [
            (Metric::Mapped, &[(1, 2, 0x3000, 1), (0, 1, 0x1000, 1), (1, 1, 0x1000, 1)]),
            (Metric::MappedLive, &[(0, 1, 0x1000, 1), (1, 1, 0x1000, 1)]),
            (Metric::Inflaters, &[(2, 1, 2, 2), (2, 2, 2, 2)]),
            (Metric::InflatersLive, &[(2, 1, 1, 2)]),
        ];
        let ledger = ledger();
        for (metric, expected) in cases {
            let rows: Vec<_> = ledger
                .by_stack(metric)
                .iter()
                .map(|row| (row.thread, row.stack.0, row.value, row.n_events))
                .collect();
            assert_eq!(rows, expected, "{metric}");
            assert_eq!(ledger.sum(metric), rows.iter().map(|row| row.2).sum::<u64>(), "{metric}");
        }
    }

    #[test]
    fn top_thread() {
        let ledger = ledger();
        let top = |metric| ledger.top_thread(metric).map(|(thread, value)| (thread.tid, value));
        assert_eq!(top(Metric::Mapped), Some((2, 0x4000)));
        // Of equals the first that was seen.
        assert_eq!(top(Metric::MappedLive), Some((1, 0x1000)));
        assert_eq!(top(Metric::InflatersLive), Some((3, 1)));
        assert_eq!(Ledger::default().top_thread(Metric::Mapped), None);
    }

    /// One (thread, stack) may have mapped and opened: each metric counts its own calls.
    #[test]
    fn calls_are_kept_apart() {
        let mut ledger = Ledger::default();
        [mmap(1, 1, 0, 0x1000), init(1, 1, 8), init(1, 1, 16)].iter().for_each(|e| ledger.apply(e));
        assert_eq!(ledger.by_stack(Metric::Mapped)[0].n_events, 1);
        assert_eq!(ledger.by_stack(Metric::Inflaters)[0].n_events, 2);
    }

    #[test]
    fn since_start() {
        let ledger = ledger();
        // (time, nanoseconds since the start); the first event is at 10
        for (time_ns, expected) in [(10, 0), (35, 25), (3, 0)] {
            assert_eq!(ledger.since_start_ns(time_ns), expected);
        }
    }
}
