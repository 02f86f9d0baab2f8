//! All classes of all class loaders, and the parts of mappings that they lie in.
//!
//! The kernel makes one mapping of neighbours: one that holds classes may hold a collector's table of 32 MiB, too. Nodes of
//! metaspace are aligned to 2 MiB at the least (share/memory/metaspace.cpp, JDK 11, `Metaspace::reserve_alignment`; the
//! demo's 65 MB are such nodes), and in each 2 MiB that are in use some class has something.

use std::{collections::BTreeMap, ops::Range};

use super::super::{fields::Fields, runs::Runs};

/// Class loaders' data and classes that are looked at, together; an application has tens of thousands.
const MAX_STEPS: usize = 1_000_000;

/// What nodes are aligned to.
const SLOT_BYTES: u64 = 2 << 20;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) class_space: Vec<Range<u64>>,
    pub(super) other: Vec<Range<u64>>,
}

/// The mappings that hold classes. `None` where the tables lack the way.
pub(super) fn find(fields: Fields<'_>, mappings: &Runs) -> Option<Found> {
    let mut walk = Walk { fields, mappings, hits: BTreeMap::new(), n_left: MAX_STEPS };
    let mut data = fields.global(&["ClassLoaderDataGraph::_head"])?;
    fields.structs.offset("ClassLoaderData::_klasses")?;
    while data != 0 && walk.step() {
        walk.classes(fields.word(data, &["ClassLoaderData::_klasses"]).unwrap_or(0));
        data = fields.word(data, &["ClassLoaderData::_next"]).unwrap_or(0);
    }
    Some(walk.found())
}

struct Walk<'a> {
    fields: Fields<'a>,
    mappings: &'a Runs,
    /// By mapping and slot: hits by classes, and by what belongs to classes.
    hits: BTreeMap<(usize, u64), (u64, u64)>,
    n_left: usize,
}

impl Walk<'_> {
    /// Whether another step may be taken: a list that leads back into itself ends, too.
    fn step(&mut self) -> bool {
        self.n_left = self.n_left.saturating_sub(1);
        self.n_left > 0
    }

    fn classes(&mut self, first: u64) {
        let fields = self.fields;
        let mut class = first;
        while class != 0 && self.step() {
            if let Some(place) = self.place(class) {
                self.hits.entry(place).or_default().0 += 1;
            }
            // A positive one is that of objects, not of arrays, whose classes have neither pool nor methods.
            if fields.half(class, &["Klass::_layout_helper"]).is_some_and(|n| n.cast_signed() > 0) {
                for part in ["InstanceKlass::_constants", "InstanceKlass::_methods"] {
                    if let Some(place) = fields.word(class, &[part]).and_then(|at| self.place(at)) {
                        self.hits.entry(place).or_default().1 += 1;
                    }
                }
            }
            class = fields.word(class, &["Klass::_next_link"]).unwrap_or(0);
        }
    }

    /// The mapping and the slot that `address` lies in.
    fn place(&self, address: u64) -> Option<(usize, u64)> {
        Some((self.mappings.index(address)?, address / SLOT_BYTES))
    }

    fn found(self) -> Found {
        let mut found = Found::default();
        let mut of_mapping: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
        for ((mapping, _), (classes, others)) in &self.hits {
            let sums = of_mapping.entry(*mapping).or_default();
            *sums = (sums.0 + classes, sums.1 + others);
        }
        for &(mapping, slot) in self.hits.keys() {
            let Some(range) = self.mappings.get(mapping) else { continue };
            let (classes, others) = of_mapping.get(&mapping).copied().unwrap_or_default();
            let list = if classes > others { &mut found.class_space } else { &mut found.other };
            let slot = slot * SLOT_BYTES..slot.saturating_add(1).saturating_mul(SLOT_BYTES);
            list.push(slot.start.max(range.start)..slot.end.min(range.end));
        }
        found
    }
}
