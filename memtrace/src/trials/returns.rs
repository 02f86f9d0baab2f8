//! What a trim or a collection gives back: predicted from what is known before.
//!
//! Pure: numbers in, a range out. What it rests on stands beside it: the live objects of a heap are known only to who marks
//! them, so for a collection there is an assumption that the JVM's state does not prove.

use crate::jvm::{Ages, Collector};

/// How much of what is old is likely to be alive, in percent: of applications that had started it was 57 to 100.
const LIKELY_ALIVE: u64 = 85;
/// By how much rows of a heap whose pages stay differ all the same, in percent of what is resident.
const STAYS_WITHIN: u64 = 3;
/// What Parallel moves to pages of the old generation that were not resident yet, at the most, in percent.
const MAX_MOVED: u64 = 18;
/// No range is wider than this, in percent of what is resident: beyond, it would say nothing.
const MAX_WIDTH: u64 = 25;
/// Marking makes bitmaps resident, one bit for each 8 bytes of the heap, of which JDK 11 and 17 have two.
const BITMAP_PART: u64 = 32;
/// The largest share of the heap that is alive where nothing tells, in percent.
const MAX_LIVE: u64 = 25;

/// What was predicted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prediction {
    /// It returns no less than this; below 0, more may become resident.
    pub from_bytes: i64,
    /// And no more than this.
    pub to_bytes: i64,
    /// What that rests on.
    pub rests_on: String,
}

/// A Java heap before it is collected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeapBefore {
    /// Its collector.
    pub collector: Collector,
    /// Its resident bytes, each page once.
    pub resident_bytes: u64,
    /// Resident bytes of the collector's tables.
    pub tables_bytes: u64,
    /// What it has of the kernel.
    pub committed_bytes: u64,
    /// Used bytes by generation.
    pub ages: Option<Ages>,
    /// Flags of the JVM that count.
    pub flags: CollectionFlags,
}

/// What a JVM was told about collections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CollectionFlags {
    /// `MaxHeapFreeRatio`, in percent.
    pub max_free_percent: Option<u64>,
    /// `MinHeapSize`.
    pub min_heap_bytes: u64,
    /// `ParallelGCThreads`.
    pub n_workers: u64,
    /// `ShenandoahUncommit`.
    pub uncommits: bool,
    /// `ExplicitGCInvokesConcurrent`: what is asked for is no full collection.
    pub is_concurrent: bool,
}

/// What a full collection returns of the heap and the collector's tables. `resident_below` tells how much of the heap's
/// first so many bytes is resident. `None` where no rule is known.
#[must_use]
pub fn of_collection(heap: &HeapBefore, resident_below: impl Fn(u64) -> u64) -> Option<Prediction> {
    let part = |percent: u64| signed(heap.resident_bytes / 100 * percent);
    let stays = part(STAYS_WITHIN);
    let prediction = |from_bytes, to_bytes, rests_on: &str| Prediction {
        from_bytes,
        to_bytes,
        rests_on: rests_on.to_owned(),
    };
    match heap.collector {
        // What is asked for is then no full collection. ZGC and Shenandoah have no other kind.
        Collector::G1 | Collector::Serial | Collector::Parallel if heap.flags.is_concurrent => None,
        Collector::G1 => of_g1(heap, resident_below),
        Collector::Serial => {
            Some(prediction(-stays, stays, "Serial keeps the pages of what it has collected"))
        }
        Collector::Parallel => {
            let young = heap.ages.map(|ages| ages.eden_bytes.saturating_add(ages.survivor_bytes));
            let moved = part(MAX_MOVED).min(young.map_or(i64::MAX, signed));
            let why = "Parallel keeps its pages, and what is alive among the young moves to others";
            Some(prediction(-moved - stays, stays, why))
        }
        Collector::Z => {
            let why = "ZGC gives nothing back at once, but what has been free for ZUncommitDelay";
            Some(prediction(-stays, stays, why))
        }
        Collector::Shenandoah if heap.flags.uncommits => {
            let why = "Shenandoah gives back all that is not alive; at most a quarter of the heap is \
                       taken to be alive, which nothing tells before";
            let all = part(100);
            let all = all + signed(heap.tables_bytes);
            Some(prediction(all - part(MAX_LIVE), all, why))
        }
        Collector::Shenandoah | Collector::Other => None,
    }
}

/// G1 compacts to the low end, and keeps of its regions as many as `MaxHeapFreeRatio` lets be free
/// (g1HeapSizingPolicy.cpp, `full_collection_resize_amount`, JDK 11 to 25), the lowest ones.
fn of_g1(heap: &HeapBefore, resident_below: impl Fn(u64) -> u64) -> Option<Prediction> {
    let Ages { survivor_bytes, old_bytes, region_bytes, .. } = heap.ages?;
    let region = region_bytes.filter(|&bytes| bytes > 0)?;
    let max_free = heap.flags.max_free_percent.unwrap_or(70).min(100);
    let after = |alive: u64, n_more: u64| {
        let in_use = (alive.div_ceil(region) + n_more).saturating_mul(region);
        // Of 100 percent free there is no bound.
        let most = in_use.saturating_mul(100).checked_div(100 - max_free).unwrap_or(u64::MAX);
        let kept = most.max(heap.flags.min_heap_bytes).min(heap.committed_bytes);
        let kept = kept.div_ceil(region).saturating_mul(region);
        signed(resident_below(kept).max(alive.min(kept)))
    };
    let most_alive = old_bytes.saturating_add(survivor_bytes);
    // Each worker leaves a region that is not full.
    let n_partly = heap.flags.n_workers.clamp(1, 1 + most_alive / region);
    let most = after(most_alive, n_partly);
    let likely = after(old_bytes / 100 * LIKELY_ALIVE, n_partly.div_ceil(2));
    let least = after(old_bytes / 2, 0);
    let resident = signed(heap.resident_bytes);
    let bitmaps = signed(heap.committed_bytes / BITMAP_PART).min(resident / 20);
    let slack = signed(region).min(resident / 50) + bitmaps;
    let half_width = signed(heap.resident_bytes / 200 * MAX_WIDTH);
    Some(Prediction {
        from_bytes: (resident - most - slack).max(resident - likely - half_width),
        to_bytes: (resident - least + signed(heap.tables_bytes)).min(resident - likely + half_width),
        rests_on: "G1 keeps as many free regions as MaxHeapFreeRatio and -Xms allow, the lowest; most of what is old is \
                   taken to be alive, what is in eden not"
            .to_owned(),
    })
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn before(collector: Collector, ages: Option<Ages>) -> HeapBefore {
        HeapBefore {
            collector,
            resident_bytes: 300 * MIB,
            tables_bytes: 2 * MIB,
            committed_bytes: 1000 * MIB,
            ages,
            flags: CollectionFlags {
                max_free_percent: Some(70),
                n_workers: 2,
                uncommits: true,
                ..CollectionFlags::default()
            },
        }
    }

    fn ages() -> Option<Ages> {
        let (eden_bytes, survivor_bytes) = (200 * MIB, 2 * MIB);
        let (old_bytes, region_bytes) = (20 * MIB, Some(MIB));
        Some(Ages { eden_bytes, survivor_bytes, old_bytes, region_bytes })
    }

    fn range(prediction: Option<Prediction>) -> Option<(i64, i64)> {
        prediction.map(|it| (it.from_bytes / MIB as i64, it.to_bytes / MIB as i64))
    }

    /// By collector, of a heap all of whose low end is resident.
    #[test]
    fn collectors() {
        let concurrent = CollectionFlags { is_concurrent: true, ..CollectionFlags::default() };
        // (collector, ages, MiB from, to)
        let cases = [
            (Collector::G1, ages(), Some((204, 268))),
            (Collector::G1, None, None),
            (Collector::Serial, ages(), Some((-9, 9))),
            (Collector::Parallel, ages(), Some((-63, 9))),
            (Collector::Z, None, Some((-9, 9))),
            (Collector::Shenandoah, None, Some((227, 302))),
            (Collector::Other, None, None),
        ];
        for (collector, ages, expected) in cases {
            let heap = before(collector, ages);
            let prediction = of_collection(&heap, |bytes| bytes.min(heap.resident_bytes));
            assert_eq!(range(prediction), expected, "{collector:?}");
            let concurrently = HeapBefore { flags: concurrent, ..heap };
            let is_full = matches!(collector, Collector::Z);
            assert_eq!(of_collection(&concurrently, |_| 0).is_some(), is_full);
        }
    }

    /// A heap that may not shrink gives nothing back, and a flag without bound is no division by 0.
    #[test]
    fn bounds_of_g1() {
        let heap = before(Collector::G1, ages());
        let with = |flags| HeapBefore { flags, ..heap.clone() };
        let fixed = with(CollectionFlags { min_heap_bytes: 1000 * MIB, ..heap.flags });
        assert_eq!(range(of_collection(&fixed, |_| 300 * MIB)), Some((-16, 2)));
        let unbounded = with(CollectionFlags { max_free_percent: Some(100), ..heap.flags });
        assert_eq!(range(of_collection(&unbounded, |_| 300 * MIB)), Some((-16, 2)));
    }
}
