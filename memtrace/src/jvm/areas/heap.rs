//! The Java heap: where it is, what of it holds objects, how large it is.

use std::ops::Range;

use super::{AreaKind, Areas, fields::Fields, g1, generations, shenandoah, z};
use crate::{jvm::Vm, target::maps::Mapping};

/// More than any heap: a range beyond is nonsense.
const MAX_HEAP_BYTES: u64 = 1 << 46;

/// Which collector a JVM has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collector {
    /// G1.
    G1,
    /// Serial.
    Serial,
    /// Parallel.
    Parallel,
    /// Z, with generations or without.
    Z,
    /// Shenandoah.
    Shenandoah,
    /// Another one, of which only the heap's bounds are known.
    Other,
}

impl Collector {
    /// By the flag that chose it.
    pub(super) fn of(vm: &mut Vm) -> Self {
        let by_flag = [
            ("UseG1GC", Self::G1),
            ("UseSerialGC", Self::Serial),
            ("UseParallelGC", Self::Parallel),
            ("UseZGC", Self::Z),
            ("UseShenandoahGC", Self::Shenandoah),
        ];
        let on = by_flag.into_iter().find(|(flag, _)| vm.flag(flag) == Some(true));
        on.map_or(Self::Other, |(_, collector)| collector)
    }

    /// As people call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::G1 => "G1",
            Self::Serial => "Serial",
            Self::Parallel => "Parallel",
            Self::Z => "ZGC",
            Self::Shenandoah => "Shenandoah",
            Self::Other => "another collector",
        }
    }
}

/// The Java heap at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heap {
    /// Its collector.
    pub collector: Collector,
    /// The addresses that it may have. Nothing for ZGC, whose heap is a file that is mapped in several places.
    pub reserved: Range<u64>,
    /// Bytes of it that can be touched.
    pub committed_bytes: u64,
    /// Bytes in the used parts of its regions; `None` where this JVM does not tell.
    pub used_bytes: Option<u64>,
    /// How old they are; `None` where the collector has no generations, or this JVM does not tell.
    pub ages: Option<Ages>,
}

/// Used bytes of a heap by generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ages {
    /// New objects.
    pub eden_bytes: u64,
    /// What has survived a collection and is not old yet.
    pub survivor_bytes: u64,
    /// What is old, or too large to be moved.
    pub old_bytes: u64,
    /// How large a region is, where the heap has such.
    pub region_bytes: Option<u64>,
}

/// Whether this mapping shows the file that ZGC keeps its heap in (gc/z/zPhysicalMemoryBacking_linux.cpp).
pub(super) fn is_z_heap(mapping: &Mapping) -> bool {
    mapping.path.starts_with(b"/memfd:java_heap")
}

/// Adds the heap.
pub(super) fn add(fields: Fields<'_>, collector: Collector, maps: &[Mapping], areas: &mut Areas) {
    let object = fields.global(&["Universe::_collectedHeap"]).unwrap_or(0);
    if object == 0 {
        return areas.notes.push("the JVM has no Java heap yet".to_owned());
    }
    if collector == Collector::Z {
        let views = maps.iter().filter(|mapping| is_z_heap(mapping));
        areas.add(AreaKind::HeapUsed, views.map(|mapping| mapping.start..mapping.end));
        let (used, capacity) = z::used_and_capacity(fields, object);
        if used.is_none() {
            areas.notes.push("this JVM does not tell how much of its heap is used".to_owned());
        }
        areas.heap = Some(Heap {
            collector,
            reserved: 0..0,
            // JDK 11 does not tell: what is mapped of the file is what it has.
            committed_bytes: capacity.unwrap_or_else(|| mapped_once(maps)),
            used_bytes: used,
            ages: None,
        });
        return;
    }
    let Some(reserved) = reserved(fields, object) else {
        return areas.notes.push("the bounds of the Java heap can't be read".to_owned());
    };
    let regions = if collector == Collector::G1 { g1::regions(fields, object) } else { None };
    let used = match collector {
        Collector::G1 => regions.as_deref().map(g1::used),
        Collector::Serial => generations::used_serial(fields, object),
        Collector::Parallel => generations::used_parallel(fields, object),
        Collector::Shenandoah => shenandoah::used(fields, object),
        Collector::Z | Collector::Other => None,
    };
    let ages = match collector {
        Collector::G1 => regions.map(|regions| g1::ages(fields, &regions)),
        Collector::Serial | Collector::Parallel => used.as_deref().and_then(generations::ages),
        Collector::Shenandoah | Collector::Z | Collector::Other => None,
    };
    let used = used.map(|parts| apart(parts, &reserved));
    let used_bytes =
        used.as_ref().map(|parts| parts.iter().map(|part| part.end - part.start).sum());
    // JDK 11's Shenandoah tells how much it is, not where.
    let used_bytes = used_bytes.or_else(|| shenandoah::used_bytes(fields, object, &reserved));
    let committed = maps.iter().filter(|mapping| mapping.access);
    let committed =
        committed.filter_map(|mapping| overlap(&(mapping.start..mapping.end), &reserved));
    let committed_bytes = committed.map(|part| part.end - part.start).sum();
    match used {
        Some(parts) => {
            areas.add(AreaKind::HeapUsed, parts);
            areas.add(AreaKind::HeapUnused, [reserved.clone()]);
        }
        None => {
            areas.notes.push(
                "this JVM does not tell which parts of its heap are used: all of it counts as used"
                    .to_owned(),
            );
            areas.add(AreaKind::HeapUsed, [reserved.clone()]);
        }
    }
    areas.heap = Some(Heap { collector, reserved, committed_bytes, used_bytes, ages });
}

/// Bytes of the file that ZGC keeps its heap in which some view shows.
fn mapped_once(maps: &[Mapping]) -> u64 {
    let views = maps.iter().filter(|mapping| is_z_heap(mapping) && mapping.access);
    let parts = views.map(|view| view.offset..view.offset.saturating_add(view.size_bytes()));
    apart(parts.collect(), &(0..u64::MAX)).iter().map(|part| part.end - part.start).sum()
}

/// `CollectedHeap::_reserved`, a `MemRegion`.
fn reserved(fields: Fields<'_>, object: u64) -> Option<Range<u64>> {
    let region = fields.place(object, &["CollectedHeap::_reserved"])?;
    let start = fields.word(region, &["MemRegion::_start"])?;
    let bytes = fields.word(region, &["MemRegion::_word_size"])?.checked_mul(8)?;
    (start != 0 && bytes != 0 && bytes <= MAX_HEAP_BYTES)
        .then(|| Some(start..start.checked_add(bytes)?))?
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> Option<Range<u64>> {
    let part = a.start.max(b.start)..a.end.min(b.end);
    (part.start < part.end).then_some(part)
}

/// By address, inside of the heap, each byte once, joined where they touch.
fn apart(mut parts: Vec<Range<u64>>, reserved: &Range<u64>) -> Vec<Range<u64>> {
    parts.retain(|part| part.start < part.end);
    parts.sort_by_key(|part| part.start);
    let mut whole: Vec<Range<u64>> = Vec::new();
    for part in parts.iter().filter_map(|part| overlap(part, reserved)) {
        match whole.last_mut() {
            Some(last) if part.start <= last.end => last.end = last.end.max(part.end),
            _ => whole.push(part),
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What three views show of a file counts once; what is no view, or has no access, does not count.
    #[test]
    fn views_of_a_file() {
        let maps = crate::target::maps::parse(
            b"10000-30000 rw-s 0 00:01 7 /memfd:java_heap (deleted)\n40000-50000 rw-s 10000 00:01 7 /memfd:java_heap (deleted)\n\
              60000-70000 rw-s 80000 00:01 7 /memfd:java_heap (deleted)\n70000-80000 ---s 90000 00:01 7 /memfd:java_heap (deleted)\n\
              80000-90000 rw-s 0 00:01 8 /memfd:x (deleted)\n",
        );
        assert_eq!(mapped_once(&maps), 0x30000);
    }

    /// Whatever regions a JVM claims, no byte counts twice or outside of the heap.
    #[test]
    fn parts_of_a_heap() {
        type Parts = &'static [(u64, u64)];
        let cases: [(Parts, Parts); 4] = [
            (&[], &[]),
            (&[(30, 40), (10, 20)], &[(10, 20), (30, 40)]),
            (&[(10, 20), (20, 25), (22, 23), (24, 30)], &[(10, 30)]),
            (&[(0, 12), (90, u64::MAX), (50, 40)], &[(10, 12), (90, 100)]),
        ];
        for (parts, want) in cases {
            let parts = parts.iter().map(|&(start, end)| start..end).collect();
            let want: Vec<Range<u64>> = want.iter().map(|&(start, end)| start..end).collect();
            assert_eq!(apart(parts, &(10..100)), want);
        }
    }
}
