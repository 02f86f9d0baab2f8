//! What a JVM has put where: its heap, its classes, its code, its stacks, its collector's tables.
//!
//! A [`Vm`] and the map of its process go in, labelled ranges of addresses come out. They may overlap: the earlier one
//! counts. What of them is resident is not this room's matter. Everything is found by what the VM's tables name; what
//! they don't name, or what can't be read, is missing, and a note says which part.

mod class_data;
mod code;
mod collector_tables;
mod fields;
mod g1;
mod generations;
mod heap;
mod metaspace;
mod runs;
mod shenandoah;
mod stacks;
mod z;

use std::ops::Range;

use super::Vm;
use crate::target::maps::Mapping;
use fields::Fields;
pub use heap::{Ages, Collector, Heap};

/// What a range of addresses is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AreaKind {
    /// Where objects are: the used part of the Java heap's regions.
    HeapUsed,
    /// The rest of the Java heap.
    HeapUnused,
    /// Code that was made by the JVM.
    CodeCache,
    /// The archive of classes that the JDK brings along.
    Cds,
    /// Compressed class space.
    ClassSpace,
    /// Metaspace without class space.
    Metaspace,
    /// Stacks of Java threads.
    ThreadStacks,
    /// The collector's tables: card tables, mark bitmaps and the like.
    Gc,
    /// Something else that the VM has mapped for itself: its counters, its polling page.
    Other,
}

/// A range of addresses with what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Area {
    /// Where it is.
    pub range: Range<u64>,
    /// What it is.
    pub kind: AreaKind,
}

/// Everything that is known of a JVM's memory.
#[derive(Clone, Debug, Default)]
pub struct Areas {
    /// Labelled ranges; where two overlap, the earlier one counts.
    pub areas: Vec<Area>,
    /// The Java heap, where it could be read.
    pub heap: Option<Heap>,
    /// What could not be read, a line each.
    pub notes: Vec<String>,
}

impl Areas {
    fn add(&mut self, kind: AreaKind, ranges: impl IntoIterator<Item = Range<u64>>) {
        let whole = ranges.into_iter().filter(|range| range.start < range.end);
        self.areas.extend(whole.map(|range| Area { range, kind }));
    }

    /// Takes what was found of a part, or notes that it was not.
    fn add_found(
        &mut self,
        part: &str,
        kind: AreaKind,
        ranges: Option<impl IntoIterator<Item = Range<u64>>>,
    ) {
        match ranges {
            Some(ranges) => self.add(kind, ranges),
            None => self.notes.push(format!("this JVM's tables do not lead to its {part}")),
        }
    }
}

impl Vm {
    /// The Java heap at this moment, in the process with this map; `None` where it can't be read.
    pub fn heap(&mut self, maps: &[Mapping]) -> Option<Heap> {
        self.memory.forget();
        let collector = Collector::of(self);
        let mut areas = Areas::default();
        let fields = Fields { memory: &*self.memory, structs: &self.structs };
        heap::add(fields, collector, maps, &mut areas);
        areas.heap
    }

    /// Where everything is at this moment, in the process with this map.
    pub fn areas(&mut self, maps: &[Mapping]) -> Areas {
        self.memory.forget();
        let collector = Collector::of(self);
        let mut areas = Areas::default();
        let fields = Fields { memory: &*self.memory, structs: &self.structs };
        heap::add(fields, collector, maps, &mut areas);
        areas.add_found("code cache", AreaKind::CodeCache, code::ranges(fields));
        areas.add(AreaKind::Cds, class_data::ranges(fields, maps));
        areas.add_found("threads", AreaKind::ThreadStacks, stacks::ranges(fields, &self.threads));
        metaspace::add(fields, &self.library, maps, &mut areas);
        areas.add(AreaKind::Other, other(fields));
        let tables = collector_tables::ranges(fields, &self.library, maps, areas.heap.as_ref());
        areas.add(AreaKind::Gc, tables);
        areas
    }
}

/// The counters for `jstat`, and the page whose protection stops threads.
fn other(fields: Fields<'_>) -> Vec<Range<u64>> {
    let counters = || {
        let start = fields.global(&["PerfMemory::_start"])?;
        let end = fields.global(&["PerfMemory::_end"])?;
        (start != 0 && end > start && end - start <= MAX_COUNTER_BYTES).then_some(start..end)
    };
    let polling = || {
        let page = fields.global(&["os::_polling_page"]).filter(|&page| page != 0)?;
        Some(page..page.checked_add(POLLING_BYTES)?)
    };
    counters().into_iter().chain(polling()).collect()
}

/// `PerfDataMemorySize` is at most 32 MiB (share/runtime/globals.hpp, JDK 17).
const MAX_COUNTER_BYTES: u64 = 32 << 20;
const POLLING_BYTES: u64 = 4096;
