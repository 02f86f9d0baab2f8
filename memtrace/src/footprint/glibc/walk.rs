//! From chunk to chunk through a heap, while its process goes on.
//!
//! Every chunk is checked against the next. Where they do not fit, mostly the process has moved on since the bytes were
//! copied: its top has moved, pages became resident, the heap has grown. Then the bounds and the bytes are read again and
//! the walk goes on from a place a little before. What does not fit even so is damaged: it is counted as unknown up to the
//! next chain of chunks that fit.

use std::{
    ops::Range,
    thread,
    time::{Duration, Instant},
};

use super::{
    again::{Again, CHECKPOINT_EVERY},
    chunk_set::ChunkSet,
    free_pages::FreePages,
    layout::{ALIGN, FLAGS, IS_MMAPPED, MIN_CHUNK, PREV_INUSE},
    lists::CacheKey,
    space::{PAGE_BYTES, Space},
    tally::{Class, Tally, TopTrim},
    window::Window,
};

/// Chunks between two looks at the clock.
const LOOK_AT_CLOCK_EVERY: u32 = 4096;
/// How long a walk rests before it reads the same bytes again, twice as long each time: who was changing them waits for a
/// processor.
const FIRST_REST: Duration = Duration::from_millis(1);
/// Chunks that must fit for a walk to go on behind a damaged place.
const CHAIN: usize = 24;
/// Resident bytes that are searched for such a chain at one place, and how far away.
const MAX_SEARCH_BYTES: u64 = 64 << 20;
const MAX_SEARCH_DISTANCE: u64 = 1 << 30;

/// What the walks of one process may do in all.
#[derive(Debug)]
pub(super) struct Budget {
    pub(super) n_resyncs: u64,
    pub(super) n_skips: u64,
    /// Times that may still be read again.
    pub(super) tries_left: u64,
    /// Bytes that may still be searched.
    pub(super) search_left: u64,
    /// How long it may still rest.
    pub(super) rest_left: Duration,
    pub(super) deadline: Instant,
    pub(super) is_late: bool,
}

/// The end of a heap and the top of its arena, as they are at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Where chunks end.
    pub(super) end: u64,
    /// The top, if it is in this heap; else `u64::MAX`.
    pub(super) top: u64,
}

/// A heap, or the part of the main arena's memory that lies in one mapping.
pub(super) struct Region<'a> {
    /// Where chunks begin, or may begin.
    pub(super) first: u64,
    /// Reads its bounds again.
    pub(super) bounds: &'a dyn Fn() -> Bounds,
    /// Whether it is the main arena's: others' memory may lie between its chunks.
    pub(super) is_main: bool,
    /// Where it ended when the map was read.
    pub(super) was_end: u64,
    /// How a trim treats its top.
    pub(super) top_trim: Option<TopTrim>,
}

/// Chunks that look as if in use, and are free.
pub(super) struct Marks<'a> {
    pub(super) fastbins: &'a ChunkSet,
    pub(super) cache_key: &'a CacheKey,
}

#[derive(Clone, Copy)]
pub(super) struct State {
    pub(super) at: u64,
    /// The word with the size of the chunk at `at`, if it was read.
    head: Option<u64>,
    tally: Tally,
    /// How many ranges of free pages had been met.
    n_free_pages: usize,
}

enum Step {
    Next,
    Done,
    /// Here others' memory begins.
    Foreign,
    /// What is here does not fit.
    Bad,
}

pub(super) struct Walk<'a> {
    space: &'a Space<'a>,
    region: &'a Region<'a>,
    marks: &'a Marks<'a>,
    window: Window<'a>,
    bounds: Bounds,
    budget: &'a mut Budget,
    free_pages: &'a mut FreePages,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        space: &'a Space<'a>,
        region: &'a Region<'a>,
        marks: &'a Marks<'a>,
        budget: &'a mut Budget,
        free_pages: &'a mut FreePages,
    ) -> Self {
        let bounds = (region.bounds)();
        Self { space, region, marks, window: Window::new(space), bounds, budget, free_pages }
    }

    /// Walks from the first chunk to the end; where it ended, and what there was.
    pub(super) fn run(mut self) -> (u64, Tally) {
        let tally = Tally::beginning_at(self.space.resident, self.region.first);
        let n_free_pages = self.free_pages.len();
        let mut state = State { at: self.region.first, head: None, tally, n_free_pages };
        let mut again = Again::new(state);
        let mut n = 0_u32;
        loop {
            n += 1;
            self.note_free_pages(&mut state);
            if n.is_multiple_of(CHECKPOINT_EVERY) {
                again.keep(state);
            }
            if n.is_multiple_of(LOOK_AT_CLOCK_EVERY) {
                self.budget.is_late |= Instant::now() > self.budget.deadline;
            }
            match self.step(&mut state) {
                Step::Next => {}
                Step::Done => return self.ended(state),
                Step::Foreign => {
                    let next = self.next_chain(state.at);
                    if !self.pass_over(&mut state, next, Class::Foreign) {
                        return self.ended(state);
                    }
                    again = Again::new(state);
                }
                Step::Bad if self.may_try_again(&mut again, &state) => {
                    state = again.back();
                    self.free_pages.cut(state.n_free_pages);
                    self.refresh();
                }
                Step::Bad => {
                    self.budget.n_skips += 1;
                    let next = self.next_chain(state.at + ALIGN);
                    if !self.pass_over(&mut state, next, Class::Unknown) {
                        return self.ended(state);
                    }
                    again = Again::new(state);
                }
            }
        }
    }

    fn ended(mut self, mut state: State) -> (u64, Tally) {
        self.note_free_pages(&mut state);
        (state.at, state.tally)
    }

    #[inline]
    fn note_free_pages(&mut self, state: &mut State) {
        if let Some(range) = state.tally.take_free_pages() {
            self.free_pages.add(range);
            state.n_free_pages = self.free_pages.len();
        }
    }

    /// One chunk.
    #[inline]
    fn step(&mut self, state: &mut State) -> Step {
        let at = state.at;
        if at == self.bounds.top {
            return self.top(state);
        }
        if self.budget.is_late {
            return Step::Bad;
        }
        let Some(head) = state.head.or_else(|| self.window.word(at.wrapping_add(8))) else {
            return Step::Bad;
        };
        let bytes = head & !FLAGS;
        if head & (IS_MMAPPED | 8) != 0 {
            return Step::Bad;
        }
        if bytes < MIN_CHUNK {
            return self.mark(state, bytes);
        }
        let Some(next) = at.checked_add(bytes).filter(|next| self.is_before_end(at, *next)) else {
            return Step::Bad;
        };
        let key = self.key_at(at);
        let Some(next_head) = self.window.word(next + 8) else { return Step::Bad };
        let is_in_use = next_head & PREV_INUSE != 0;
        if !is_in_use && self.window.word(next) != Some(bytes) {
            return Step::Bad;
        }
        let class = match () {
            () if !is_in_use => Class::Free,
            () if self.is_end_mark(bytes, next, next_head) => Class::Overhead,
            () if self.is_cached(at, key) => Class::Tcache,
            () if !self.marks.fastbins.is_empty() && self.marks.fastbins.contains(at) => {
                Class::Fastbin
            }
            () => Class::Live,
        };
        state.tally.add(self.space.resident, at..next, class);
        state.at = next;
        state.head = Some(next_head);
        Step::Next
    }

    fn is_before_end(&self, at: u64, next: u64) -> bool {
        next <= self.bounds.end.saturating_sub(ALIGN)
            && !(at < self.bounds.top && self.bounds.top < next)
    }

    /// The word that tells of a chunk that it is cached.
    #[inline]
    fn key_at(&mut self, at: u64) -> Option<u64> {
        match self.marks.cache_key {
            CacheKey::Word(_) | CacheKey::Caches(_) => self.window.word(at + 24),
            CacheKey::None | CacheKey::Listed(_) => None,
        }
    }

    #[inline]
    fn is_cached(&self, at: u64, key: Option<u64>) -> bool {
        match self.marks.cache_key {
            CacheKey::Word(word) => key == Some(*word),
            CacheKey::Caches(caches) => key.is_some_and(|key| key != 0 && caches.contains(&key)),
            CacheKey::Listed(listed) => listed.contains(at),
            CacheKey::None => false,
        }
    }

    /// Whether a chunk of the smallest size is what was left of an old top, too small to be freed.
    fn is_end_mark(&self, bytes: u64, next: u64, next_head: u64) -> bool {
        bytes == MIN_CHUNK
            && next_head & !FLAGS == 0
            && !self.region.is_main
            && next + ALIGN == self.bounds.end
    }

    /// What is smaller than any chunk: marks that malloc sets where a heap ended.
    fn mark(&mut self, state: &mut State, bytes: u64) -> Step {
        let at = state.at;
        if self.region.is_main {
            return self.foreign_mark(state, bytes);
        }
        let has_top = self.bounds.top != u64::MAX && at < self.bounds.top;
        let mark_bytes = match bytes {
            0 => ALIGN,
            _ if self.window.word(at + ALIGN + 8).is_some_and(|word| word & !FLAGS == 0) => {
                2 * ALIGN
            }
            _ => return Step::Bad,
        };
        // A size of 0 alone is also what memory is that was never written.
        let is_at_end = at + mark_bytes == self.bounds.end;
        if has_top || !is_at_end {
            return Step::Bad;
        }
        state.tally.add(self.space.resident, at..at + mark_bytes, Class::Overhead);
        state.at = at + mark_bytes;
        Step::Done
    }

    /// Two marks of 16 bytes or more stand where others' memory begins.
    fn foreign_mark(&mut self, state: &mut State, bytes: u64) -> Step {
        let mut at = state.at;
        let mut n_marks = 0;
        let mut word = Some(bytes);
        while word.is_some_and(|word| word & !FLAGS == ALIGN) && n_marks < 3 {
            n_marks += 1;
            at += ALIGN;
            word = self.window.word(at + 8);
        }
        if n_marks < 2 || at > self.bounds.end {
            return Step::Bad;
        }
        state.tally.add(self.space.resident, state.at..at, Class::Overhead);
        (state.at, state.head) = (at, None);
        Step::Foreign
    }

    fn top(&mut self, state: &mut State) -> Step {
        let Some(head) = self.window.word(state.at + 8) else { return Step::Bad };
        let bytes = head & !FLAGS;
        let end = state.at.checked_add(bytes).filter(|&end| end <= self.bounds.end);
        let is_whole = |end: &u64| self.region.is_main || *end == self.bounds.end;
        let is_size = bytes >= ALIGN && bytes.is_multiple_of(ALIGN);
        let Some(end) = end.filter(|end| is_size && is_whole(end)) else {
            return if self.budget.is_late { self.unknown_top(state) } else { Step::Bad };
        };
        let page_end = end.next_multiple_of(PAGE_BYTES);
        // Elsewhere than at the end of the heap the main arena's top stays.
        let is_last = page_end == self.bounds.end;
        let trim = self.region.top_trim.filter(|_| is_last);
        // What the heap was longer by when the snapshot was taken was a part of the top, too.
        let was_end = if is_last { self.bounds.end.max(self.region.was_end) } else { end };
        state.tally.add_top(self.space.resident, state.at..end, was_end, trim);
        if !is_last {
            state.tally.add(self.space.resident, end..self.bounds.end, Class::Foreign);
        }
        state.at = self.bounds.end.max(was_end);
        Step::Done
    }

    fn unknown_top(&mut self, state: &mut State) -> Step {
        self.pass_over(state, None, Class::Unknown);
        Step::Done
    }

    /// Whether the process may have moved on since: then bytes are read again.
    fn may_try_again(&mut self, again: &mut Again, state: &State) -> bool {
        let seen = (state.at, self.window.word(state.at.wrapping_add(8)), self.bounds);
        let may = again.failed(seen) && self.budget.tries_left > 0 && !self.budget.is_late;
        if may {
            self.budget.tries_left -= 1;
            self.budget.n_resyncs += 1;
            self.rest(again.n_same);
        }
        may
    }

    /// Lets the process go on for a while, if the same bytes were read `n_same` times.
    fn rest(&mut self, n_same: u32) {
        let Some(n_doubled) = n_same.checked_sub(1) else { return };
        let rest = (FIRST_REST * (1 << n_doubled)).min(self.budget.rest_left);
        self.budget.rest_left -= rest;
        thread::sleep(rest);
    }

    fn refresh(&mut self) {
        self.space.memory.forget();
        self.window.drop_copy();
        self.bounds = (self.region.bounds)();
        self.budget.is_late |= Instant::now() > self.budget.deadline;
    }

    /// Counts what lies before `next` as `class`, and goes on there; without it, at the top. Says whether there is more.
    fn pass_over(&mut self, state: &mut State, next: Option<u64>, class: Class) -> bool {
        let to_top = Some(self.bounds.top).filter(|&top| {
            top != u64::MAX && top > state.at && top < self.bounds.end && !self.budget.is_late
        });
        let end = next.or(to_top).unwrap_or(self.bounds.end).max(state.at);
        state.tally.add(self.space.resident, state.at..end, class);
        (state.at, state.head) = (end, None);
        end < self.bounds.end && (next.is_some() || to_top.is_some())
    }

    /// Where, from `start` on, a chain of chunks begins of which each fits to the next.
    fn next_chain(&mut self, start: u64) -> Option<u64> {
        if self.budget.is_late {
            return None;
        }
        let start = start.next_multiple_of(ALIGN);
        let range = start..self.bounds.end.min(start.saturating_add(MAX_SEARCH_DISTANCE));
        let now = self.space.pages.now(range.clone())?;
        let runs: Vec<Range<u64>> = now.runs_in(range).map(|run| run.start..run.end).collect();
        let mut searched = 0;
        for run in runs {
            let mut at = run.start.next_multiple_of(ALIGN);
            while at < run.end {
                if searched >= MAX_SEARCH_BYTES || self.budget.search_left == 0 {
                    return None;
                }
                searched += ALIGN;
                self.budget.search_left -= ALIGN.min(self.budget.search_left);
                if self.is_chain(at) {
                    return Some(at);
                }
                at += ALIGN;
            }
        }
        None
    }

    fn is_chain(&mut self, start: u64) -> bool {
        let mut at = start;
        let Some(mut head) = self.window.word(at + 8) else { return false };
        for n in 0..CHAIN {
            if at == self.bounds.top {
                return n > 0;
            }
            let bytes = head & !FLAGS;
            if head & (IS_MMAPPED | 8) != 0 || bytes < MIN_CHUNK {
                // Marks at the end of a heap end a chain, too.
                return n > 1 && bytes < MIN_CHUNK && at + 2 * ALIGN >= self.bounds.end;
            }
            let Some(next) = at.checked_add(bytes).filter(|next| self.is_before_end(at, *next))
            else {
                return false;
            };
            // Far links are looked up one by one: the window stays where the search is.
            let Some(next_head) = self.peek(next + 8) else { return false };
            if next_head & PREV_INUSE == 0 && self.peek(next) != Some(bytes) {
                return false;
            }
            (at, head) = (next, next_head);
        }
        true
    }

    fn peek(&mut self, address: u64) -> Option<u64> {
        self.window.copied(address).or_else(|| self.space.word(address))
    }
}
