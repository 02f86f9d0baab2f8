//! What is read of a JVM before it is asked for a collection.
//!
//! From its memory and page tables, from outside: nothing is asked of it.

use std::rc::Rc;

use super::returns::{CollectionFlags, HeapBefore, Prediction, of_collection};
use crate::{
    footprint::{Footprint, PageTables, RowKind},
    jvm::{self, Heap, LiveMemory, Vm},
    target::maps,
};

/// A flag of 32 bits, read as one of 64.
const LOW_HALF: u64 = 0xffff_ffff;

/// What is known before a collection.
pub(super) struct Before {
    /// What a collection will return, where a rule is known.
    pub(super) prediction: Option<Prediction>,
    /// Whether the JVM ignores requests for a collection.
    pub(super) is_disabled: bool,
}

/// Looks at process `pid`, of which `footprint` was just taken; `None` where its JVM can't be read.
pub(super) fn look(pid: u32, footprint: &Footprint) -> Option<Before> {
    let maps = maps::read(pid).ok()?;
    let libjvm = jvm::libjvm(&maps)?;
    let mut vm = Vm::open(Rc::new(LiveMemory::new(pid)), libjvm).ok()?;
    let heap = vm.heap(&maps)?;
    let is_disabled = vm.flag("DisableExplicitGC") == Some(true);
    let before = HeapBefore {
        collector: heap.collector,
        resident_bytes: footprint.resident(RowKind::JavaHeapUsed)
            + footprint.resident(RowKind::JavaHeapUnused),
        tables_bytes: footprint.resident(RowKind::Gc),
        committed_bytes: heap.committed_bytes,
        ages: heap.ages,
        flags: flags(&mut vm),
    };
    let prediction = of_collection(&before, resident_below(pid, &heap)?);
    Some(Before { prediction, is_disabled })
}

fn flags(vm: &mut Vm) -> CollectionFlags {
    CollectionFlags {
        max_free_percent: vm.flag_number("MaxHeapFreeRatio"),
        // JDK 11 has no such flag; what the heap began with is the bound that is known.
        min_heap_bytes: vm
            .flag_number("MinHeapSize")
            .or_else(|| vm.flag_number("InitialHeapSize"))
            .unwrap_or(0),
        n_workers: vm.flag_number("ParallelGCThreads").unwrap_or(1) & LOW_HALF,
        uncommits: vm.flag("ShenandoahUncommit").unwrap_or(true),
        is_concurrent: vm.flag("ExplicitGCInvokesConcurrent") == Some(true),
    }
}

/// How much of the heap's first so many bytes is resident.
fn resident_below(pid: u32, heap: &Heap) -> Option<impl Fn(u64) -> u64> {
    let reserved = heap.reserved.clone();
    let resident = PageTables::open(pid).ok()?.read(std::slice::from_ref(&reserved)).ok()?;
    Some(move |bytes: u64| {
        let end = reserved.start.saturating_add(bytes).min(reserved.end);
        resident.bytes_in(reserved.start..end).resident()
    })
}
