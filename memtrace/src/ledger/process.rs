//! The memory of one process, and who obtained it: what each call does to it.
//!
//! A call goes in with who is to own what it obtains; out come the bytes obtained and what was given back, by owner.

use std::ops::Range;

use rustc_hash::FxHashMap;

use super::{
    Before, Event, Pages, What,
    faults::Faults,
    regions::{Given, Piece, Regions, given},
};

const PAGE: u64 = 4096;

/// The memory of one process.
#[derive(Debug, Default)]
pub(super) struct Process {
    pub(super) regions: Regions,
    pub(super) faults: Faults,
    brk: Option<u64>,
    /// What an `mremap` of each thread has taken from its place and not put down yet.
    pub(super) moving: FxHashMap<u32, Vec<Piece>>,
    attached_segments: FxHashMap<u64, u64>,
    /// Whether it began during the trace, as a child of a traced process.
    pub(super) is_child: bool,
    /// What was mapped before was read at this time, or sooner: until then events may tell of it, too.
    settled_ns: u64,
}

/// Who gives back what nobody was seen obtaining.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unowned {
    /// It was mapped before tracing began.
    Before,
    /// It was found mapped, but while events told of it already: it is theirs, and was not there before.
    Unsettled,
    /// It is a child's copy of what its parent has.
    Inherited,
}

impl Process {
    /// A process with a new image; a child began during the trace.
    pub(super) fn new(is_child: bool) -> Self {
        Self { is_child, ..Self::default() }
    }

    /// What a child has that is forked now.
    pub(super) fn forked(&self) -> Self {
        Self {
            regions: self.regions.inherited(),
            faults: Faults::default(),
            brk: self.brk,
            moving: FxHashMap::default(),
            attached_segments: self.attached_segments.clone(),
            is_child: true,
            settled_ns: 0,
        }
    }

    /// Takes note of `mapping`, and returns the accessible bytes of it that were not known yet.
    pub(super) fn before(&mut self, mapping: Before) -> u64 {
        self.settled_ns = self.settled_ns.max(mapping.read_ns);
        if mapping.is_brk {
            self.brk = Some(mapping.end.next_multiple_of(PAGE));
        }
        self.regions.mark_before(mapping.start, mapping.end, mapping.access)
    }

    /// What memory is that is given back at `time_ns` and that nobody was seen obtaining.
    pub(super) fn unowned(&self, time_ns: u64) -> Unowned {
        if self.is_child {
            Unowned::Inherited
        } else if time_ns < self.settled_ns {
            Unowned::Unsettled
        } else {
            Unowned::Before
        }
    }

    /// What is known of a range: parts that make up all of it.
    pub(super) fn pages(&self, range: Range<u64>) -> Vec<Pages> {
        let mut parts = Vec::new();
        let mut at = range.start;
        for (known, _, owner) in self.regions.within(range.clone()) {
            parts.push((at..known.start, None));
            at = known.end;
            parts.push((known, owner));
        }
        parts.push((at..range.end, None));
        let parts = parts.into_iter().filter(|(range, _)| !range.is_empty());
        parts.flat_map(|(range, owner)| self.split_by_story(range, owner)).collect()
    }

    fn split_by_story(&self, range: Range<u64>, owner: Option<u32>) -> Vec<Pages> {
        let mut pages = Vec::new();
        let mut at = range.start;
        let mut add = |range: Range<u64>, is_given_back| {
            if !range.is_empty() {
                pages.push(Pages { range, owner, is_given_back });
            }
        };
        for back in self.faults.given_back_within(range.clone()) {
            add(at..back.start, false);
            at = back.end;
            add(back, true);
        }
        add(at..range.end, false);
        pages
    }

    /// Takes note of what becomes resident by `event`, or is not resident any more.
    pub(super) fn note_pages(&mut self, event: &Event, owner: u32) {
        let faults = &mut self.faults;
        match event.what {
            What::PageFault { addr } => faults.add(addr, owner),
            What::Mmap { addr, len, .. }
            | What::Munmap { addr, len }
            | What::MremapFrom { addr, len }
            | What::MremapTo { addr, len } => faults.renew(addr..end(addr, len)),
            What::Madvise { addr, len, advice } if drops_pages(advice) => {
                faults.give_back(addr..end(addr, len));
            }
            What::Brk { to } => {
                let to = to.next_multiple_of(PAGE);
                let from = self.brk.unwrap_or(to);
                faults.renew(to.min(from)..to.max(from));
            }
            // What was given back is obtained anew where it was closed meanwhile.
            What::Mprotect { addr, len, access: true, .. } => {
                let closed = self.regions.within(addr..end(addr, len)).into_iter();
                let closed = closed.filter(|(_, access, _)| !access).map(|(range, ..)| range);
                closed.for_each(|range| faults.renew(range));
            }
            _ => {}
        }
    }

    /// Returns the bytes that `owner` obtained by `event`, and what was given back.
    pub(super) fn apply(&mut self, event: &Event, owner: u32) -> (u64, Given) {
        let regions = &mut self.regions;
        match event.what {
            What::Mmap { addr, len, access } => {
                let back = regions.map(addr, end(addr, len), access, Some(owner));
                (if access { len } else { 0 }, back)
            }
            What::Munmap { addr, len } => (0, given(&regions.cut(addr, end(addr, len)))),
            What::MremapFrom { addr, len } => {
                self.moving.insert(event.tid, regions.cut(addr, end(addr, len)));
                (0, Given::new())
            }
            What::MremapTo { addr, len } => self.put_down(event.tid, addr, len, owner),
            What::Mprotect { addr, len, access, .. } => {
                regions.protect(addr, end(addr, len), access, Some(owner))
            }
            What::Brk { to } => self.brk(to, owner),
            What::Shmat { addr, len } => {
                self.attached_segments.insert(addr, len);
                (len, regions.map(addr, end(addr, len), true, Some(owner)))
            }
            What::Shmdt { addr } => {
                let len = self.attached_segments.remove(&addr).unwrap_or_default();
                (0, given(&regions.cut(addr, end(addr, len))))
            }
            _ => (0, Given::new()),
        }
    }

    /// What was taken from its place arrives; it stays with who obtained it, and only what is more is new.
    fn put_down(&mut self, tid: u32, addr: u64, len: u64, owner: u32) -> (u64, Given) {
        let pieces = self.moving.remove(&tid).unwrap_or_default();
        let mut back = given(&self.regions.cut(addr, end(addr, len)));
        back.extend(given(&self.regions.paste(addr, len, &pieces)));
        let moved: u64 = pieces.iter().map(|piece| piece.end()).max().unwrap_or_default().min(len);
        let access = pieces.first().is_none_or(|piece| piece.access());
        let new = len - moved;
        if new > 0 {
            back.extend(self.regions.map(addr + moved, end(addr, len), access, Some(owner)));
        }
        (if access { new } else { 0 }, back)
    }

    fn brk(&mut self, to: u64, owner: u32) -> (u64, Given) {
        let to = to.next_multiple_of(PAGE);
        let Some(from) = self.brk.replace(to) else { return (0, Given::new()) };
        if to > from {
            let back = self.regions.map(from, to, true, Some(owner));
            return (to - from, back);
        }
        (0, given(&self.regions.cut(to, from)))
    }
}

/// Advice that makes pages go at once: MADV_DONTNEED, MADV_REMOVE, MADV_DONTNEED_LOCKED
/// (Linux, include/uapi/asm-generic/mman-common.h).
fn drops_pages(advice: u32) -> bool {
    matches!(advice, 4 | 9 | 24)
}

fn end(addr: u64, len: u64) -> u64 {
    addr.saturating_add(len)
}
