//! All classes of all class loaders, and the mappings that they lie in.

use std::{collections::BTreeMap, ops::Range};

use super::super::{fields::Fields, runs::Runs};

/// Class loaders' data and classes that are looked at, together; an application has tens of thousands.
const MAX_STEPS: usize = 1_000_000;

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
    /// By mapping: hits by classes, and by what belongs to classes.
    hits: BTreeMap<usize, (u64, u64)>,
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
            if let Some(mapping) = self.mappings.index(class) {
                self.hits.entry(mapping).or_default().0 += 1;
            }
            // A positive one is that of objects, not of arrays, whose classes have neither pool nor methods.
            if fields.half(class, &["Klass::_layout_helper"]).is_some_and(|n| n.cast_signed() > 0) {
                for part in ["InstanceKlass::_constants", "InstanceKlass::_methods"] {
                    let at = fields.word(class, &[part]).and_then(|at| self.mappings.index(at));
                    if let Some(mapping) = at {
                        self.hits.entry(mapping).or_default().1 += 1;
                    }
                }
            }
            class = fields.word(class, &["Klass::_next_link"]).unwrap_or(0);
        }
    }

    fn found(self) -> Found {
        let mut found = Found::default();
        for (mapping, (classes, others)) in self.hits {
            let Some(range) = self.mappings.get(mapping) else { continue };
            let list = if classes > others { &mut found.class_space } else { &mut found.other };
            list.push(range.clone());
        }
        found
    }
}
