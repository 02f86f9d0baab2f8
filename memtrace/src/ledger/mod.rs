//! Who obtained memory, who holds it, whose blocks live, who opened and ended zlib streams: by stack and thread.
//!
//! The ledger is a plain state machine: events go in through [`Ledger::apply`], totals come out. It performs no I/O,
//! reads no clock and cannot fail, and knows no allocator, so a test is a list of events and a number.

mod block_table;
mod blocks;
mod event;
mod faults;
mod fold;
mod last_frees;
mod leaks;
mod live_over_time;
mod meaning;
mod metric;
mod process;
mod regions;
mod rss;
mod samples;
mod streams;
mod summary;
mod threads;
mod totals;

use memtrace_common::{Kind, N_KINDS};
use rustc_hash::FxHashMap;

pub use blocks::BlockCounts;
pub use event::{Allocation, Event, Freeing, StreamKind, What};
pub use leaks::{StackBlocks, TAIL_PERCENT, Trend};
pub use meaning::{Meaning, Steps};
pub use metric::{Metric, Unit, UnknownMetric};
pub use rss::{Rss, Sample};
pub use samples::NBlocks;
pub use summary::{EndedBy, OpenStream, Pages, StackRow, ThreadRow};
pub use threads::{NameFrom, Thread};
pub use totals::{BlockTotal, Total, Totals};

use blocks::{Blocks, Handed, Origin, Returned};
use live_over_time::LiveOverTime;
use process::{Process, Unowned};
use regions::Given;
use streams::{Ended, Open, Streams};
use threads::Threads;

/// No address of user space is larger (Linux on x86-64 with five-level page tables); what claims to be is passed over.
const MAX_ADDRESS: u64 = 1 << 56;

/// A mapping that was there when tracing began. An empty one only tells where the heap of `brk` will begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Before {
    /// First address.
    pub start: u64,
    /// One past the last address.
    pub end: u64,
    /// Whether it can be accessed at all.
    pub access: bool,
    /// Whether it is the heap that `brk` moves the end of.
    pub is_brk: bool,
    /// When it was read, or later. Events up to then may tell of it, too.
    pub read_ns: u64,
}

/// Everything that was given back though nobody was seen obtaining it, and the like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Accessible bytes that were mapped before tracing began.
    pub before_bytes: u64,
    /// Those of them that were given back since.
    pub before_given_back_bytes: u64,
    /// Streams ended that were opened before tracing began.
    pub streams_ended_before: u64,
    /// Streams whose end was never seen, though another was opened at their address.
    pub streams_end_missed: u64,
    /// Threads that were not kept apart.
    pub threads_grouped: u64,
    /// (thread, stack) pairs that were not kept apart.
    pub totals_grouped: u64,
}

/// Who obtained memory and who holds it.
#[derive(Debug, Default)]
pub struct Ledger {
    processes: FxHashMap<u32, Process>,
    threads: Threads,
    totals: Totals,
    streams: Streams,
    blocks: Blocks,
    live_over_time: LiveOverTime,
    /// Streams ended, by the threads that opened and that ended them.
    ended_by: FxHashMap<(u32, u32), u64>,
    /// When a stream was ended last by another thread than the one that had opened it.
    ended_by_other_ns: Option<u64>,
    /// What stacks have mapped and not given back, at a few moments.
    mapped_over_time: LiveOverTime,
    n_by_kind: ByKind,
    counts: Counts,
    rss: Rss,
    first_ns: Option<u64>,
    last_ns: u64,
}

/// How often each kind was recorded.
#[derive(Debug)]
struct ByKind([u64; N_KINDS]);

impl Default for ByKind {
    fn default() -> Self {
        Self([0; N_KINDS])
    }
}

impl ByKind {
    fn of(&mut self, kind: Kind) -> &mut u64 {
        &mut self.0[kind.0 as usize]
    }
}

impl Ledger {
    /// Takes note of `event`.
    pub fn apply(&mut self, event: &Event) {
        self.first_ns.get_or_insert(event.time_ns);
        self.last_ns = self.last_ns.max(event.time_ns);
        self.fold_threads();
        // A thread whose end is all that is told of it, or is told once more, is no row.
        if let What::Exit { ended, .. } = event.what {
            return self.exit(event, ended);
        }
        let thread = self.threads.index(event.tgid, event.tid);
        if let Some(kind) = event.what.kind().filter(|&kind| self.is_counted(kind)) {
            *self.n_by_kind.of(kind) += 1;
            if kind.is_call() {
                self.threads.count_event(thread);
            }
        }
        match event.what {
            What::Alloc { addr, size, .. } => self.alloc(event, thread, addr, size),
            What::Free { addr, by } => self.free(event, thread, addr, by),
            What::Tally { blocks, bytes, given_back } => {
                self.tally(thread, blocks, bytes, given_back);
            }
            What::StreamInit { kind, address } => self.stream_init(event, thread, kind, address),
            What::StreamEnd { kind, address } => self.stream_end(event, thread, kind, address),
            What::ThreadStart { tid } => {
                self.threads.begin(event.tgid, tid, Some(event.tid));
            }
            What::Fork { child, followed } => self.fork(event, child, followed),
            What::Exec => self.exec(event),
            What::Leaves => self.blocks.leave(event.tid),
            _ => self.memory(event, thread),
        }
    }

    /// Takes note of what was mapped before tracing began, and is not known yet.
    ///
    /// A process goes on while its map is read: of two that tell of the same memory, the map and an event up to the end
    /// of the reading, the event is right, and the memory is counted once.
    pub fn before(&mut self, tgid: u32, mapping: Before) {
        if mapping.end > MAX_ADDRESS || mapping.start > mapping.end {
            return;
        }
        let marked = self.processes.entry(tgid).or_default().before(mapping);
        // As many processes as a trace file likes may claim a whole address space each.
        self.counts.before_bytes = self.counts.before_bytes.saturating_add(marked);
    }

    /// From here on only one block for so many bytes is told of, on average.
    pub fn sample_blocks(&mut self, mean_bytes: u64) {
        self.blocks.sample(mean_bytes);
    }

    /// From here on blocks of fewer bytes are not told of.
    pub fn ignore_blocks(&mut self, min_bytes: u64) {
        self.blocks.ignore(min_bytes);
    }

    /// Takes note of a thread's name.
    pub fn name_thread(&mut self, tgid: u32, tid: u32, name: &[u8], from: NameFrom) {
        self.threads.rename(tgid, tid, name, from);
    }

    /// Takes note of resident bytes.
    pub fn sample(&mut self, sample: Sample) {
        self.first_ns.get_or_insert(sample.time_ns);
        self.last_ns = self.last_ns.max(sample.time_ns);
        self.rss.push(sample);
    }

    /// All threads, by the index that totals refer to.
    pub fn threads(&self) -> &[Thread] {
        self.threads.all()
    }

    /// What was obtained and opened, by thread and stack.
    pub fn totals(&self) -> &[Total] {
        self.totals.all()
    }

    /// Streams of Java's ended: (index of the thread that opened, index of the thread that ended, how many).
    pub fn ended_by(&self) -> Vec<(u32, u32, u64)> {
        let mut rows: Vec<_> =
            self.ended_by.iter().map(|(&(opener, ender), &n)| (opener, ender, n)).collect();
        rows.sort_unstable();
        rows
    }

    /// When a stream was ended last by another thread than the one that had opened it, as the JVM's cleaner does after a
    /// collection; in nanoseconds of the monotonic clock.
    pub fn streams_ended_by_other_ns(&self) -> Option<u64> {
        self.ended_by_other_ns
    }

    /// How many calls and streams of `kind` were recorded; of an allocator's, of which only samples are told of, 0.
    pub fn n(&self, kind: Kind) -> u64 {
        self.n_by_kind.0.get(kind.0 as usize).copied().unwrap_or_default()
    }

    /// What was counted apart.
    pub fn counts(&self) -> Counts {
        Counts {
            threads_grouped: self.threads.n_grouped,
            totals_grouped: self.totals.n_grouped,
            ..self.counts
        }
    }

    /// The blocks of allocators.
    pub fn blocks(&self) -> BlockCounts {
        self.blocks.counts()
    }

    /// Resident bytes over time.
    pub fn rss(&self) -> &Rss {
        &self.rss
    }

    /// From the first to the last thing that was noted, in nanoseconds.
    pub fn duration_ns(&self) -> u64 {
        self.last_ns.saturating_sub(self.first_ns.unwrap_or(self.last_ns))
    }

    fn memory(&mut self, event: &Event, thread: u32) {
        if event.what.last_address().is_some_and(|last| last > MAX_ADDRESS) {
            return;
        }
        self.note_mapped(event.time_ns);
        let owner = self.totals.index(thread, event.stack);
        let process = self.processes.entry(event.tgid).or_default();
        process.note_pages(event, owner);
        let (obtained, back) = process.apply(event, owner);
        let unowned = process.unowned(event.time_ns);
        self.totals.obtain(owner, obtained);
        self.give_back(back, unowned);
    }

    fn give_back(&mut self, given: Given, unowned: Unowned) {
        let before = &mut self.counts;
        for (owner, bytes) in given {
            match (owner, unowned) {
                (Some(owner), _) => self.totals.give_back(owner, bytes),
                (None, Unowned::Before) => {
                    before.before_given_back_bytes =
                        before.before_given_back_bytes.saturating_add(bytes);
                }
                (None, Unowned::Unsettled) => {
                    before.before_bytes = before.before_bytes.saturating_sub(bytes);
                }
                (None, Unowned::Inherited) => {}
            }
        }
    }

    fn alloc(&mut self, event: &Event, thread: u32, address: u64, size: u64) {
        self.note_live(event.time_ns);
        let owner = self.totals.index(thread, event.stack);
        let Event { tgid, tid, .. } = *event;
        let block = Handed { tgid, tid, address, size, owner };
        self.blocks.begin(&mut self.totals, block, event.time_ns);
    }

    fn tally(&mut self, thread: u32, blocks: u64, bytes: u64, given_back: u64) {
        if self.blocks.min_bytes().is_some() {
            self.threads.ignore(thread, blocks, bytes);
            self.blocks.count_ignored(blocks, bytes);
        } else {
            self.threads.tally(thread, blocks, bytes);
            self.blocks.tally(blocks, bytes, given_back);
        }
    }

    fn free(&mut self, event: &Event, thread: u32, address: u64, by: Freeing) {
        self.note_live(event.time_ns);
        let Event { tgid, tid, .. } = *event;
        let block = Returned { tgid, tid, address, thread, by };
        self.blocks.end(&mut self.totals, block, event.time_ns);
    }

    fn stream_init(&mut self, event: &Event, thread: u32, kind: StreamKind, address: u64) {
        if self.streams.is_of_java(event.tgid, address, kind, thread) {
            return self.take_back(thread, kind.init());
        }
        if let Some(same) = self.streams.take_native(event.tgid, address, kind, thread) {
            self.totals.unopen(same.owner);
            self.take_back(thread, same.kind.init());
        }
        let owner = self.totals.index(thread, event.stack);
        let stream = Open { kind, owner, thread, opened_ns: event.time_ns };
        if let Some(old) = self.streams.open(event.tgid, address, stream) {
            self.counts.streams_end_missed += 1;
            self.totals.end(old.owner);
        }
        self.totals.open(owner);
    }

    fn stream_end(&mut self, event: &Event, thread: u32, kind: StreamKind, address: u64) {
        match self.streams.end(event.tgid, address, kind, thread) {
            Ended::Known(open) => {
                self.totals.end(open.owner);
                if open.thread != thread {
                    self.ended_by_other_ns = Some(event.time_ns);
                }
                *self.ended_by.entry((open.thread, thread)).or_default() += 1;
            }
            Ended::Same => self.take_back(thread, kind.end()),
            Ended::Before => self.counts.streams_ended_before += 1,
        }
    }

    /// Where only samples of blocks are told of, as many calls as those say nothing.
    fn is_counted(&self, kind: Kind) -> bool {
        !(kind.is_malloc() && self.blocks.are_sampled())
    }

    /// What was counted turned out to be a part of something else that is counted.
    fn take_back(&mut self, thread: u32, kind: Kind) {
        let n = self.n_by_kind.of(kind);
        *n = n.saturating_sub(1);
        self.threads.uncount_event(thread);
    }

    fn fork(&mut self, event: &Event, child: u32, followed: bool) {
        if !followed {
            return;
        }
        let process = self.processes.entry(event.tgid).or_default().forked();
        self.processes.insert(child, process);
        self.blocks.renew(&mut self.totals, child, Origin::Inherited);
        self.threads.begin(child, child, Some(event.tid));
    }

    /// A process that no fork was seen of is taken for the one that the trace is of: which others are its children whose
    /// fork was lost, and which were there before, can't be told.
    fn exit(&mut self, event: &Event, ended: bool) {
        if let Some(thread) = self.threads.end(event.tid) {
            self.streams.forget_thread(thread);
            self.end_of_blocks(event, ended, thread);
        }
        if !ended {
            return;
        }
        // Of threads that end at once the kernel side may tell one end only.
        self.end_threads(event.tgid, None);
        if self.processes.get(&event.tgid).is_some_and(|process| process.is_child) {
            self.end_image(event);
        } else {
            // What the process that was asked for held at its end is its answer: it stays counted as live.
            self.processes.remove(&event.tgid);
            self.streams.close_process(event.tgid);
            self.blocks.leave_behind(event.tgid);
        }
    }

    /// What a thread gives back as its last act is no call of the program's.
    fn end_of_blocks(&mut self, event: &Event, ended: bool, thread: u32) {
        // The first thread, and the last one of a process, do not end by what ends a thread.
        if ended || event.tid == event.tgid {
            return self.blocks.goes_on(event.tid);
        }
        let n = self.blocks.end_thread(event.tgid, event.tid, event.time_ns);
        if self.is_counted(Kind::FREE) {
            (0..n).for_each(|_| self.take_back(thread, Kind::FREE));
        }
    }

    fn end_threads(&mut self, tgid: u32, but: Option<u32>) {
        for thread in self.threads.end_all(tgid, but) {
            self.streams.forget_thread(thread);
        }
    }

    fn exec(&mut self, event: &Event) {
        // The thread that executes takes the first one's id, and is the only one that is left.
        self.end_threads(event.tgid, Some(event.tid));
        let is_child = self.end_image(event);
        self.processes.insert(event.tgid, Process::new(is_child));
        self.blocks.renew(&mut self.totals, event.tgid, Origin::Nowhere);
    }

    /// The memory, the streams and the blocks of an image are gone with it; tells whether it was a child's.
    fn end_image(&mut self, event: &Event) -> bool {
        for open in self.streams.close_process(event.tgid) {
            self.totals.end(open.owner);
        }
        self.blocks.clear(&mut self.totals, event.tgid);
        let Some(mut process) = self.processes.remove(&event.tgid) else { return false };
        let unowned = process.unowned(event.time_ns);
        self.give_back(process.regions.clear(), unowned);
        process.is_child
    }
}

#[cfg(test)]
mod tests;
