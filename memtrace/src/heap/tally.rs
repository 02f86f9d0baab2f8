//! How many objects there are of each class, and how near the next object is to them at least.
//!
//! Identifiers are addresses and nothing lies between two objects that follow each other, so the smallest distance from
//! an object to the next one is the size of its class.

use rustc_hash::FxHashMap;

use super::objects::{FIRST_PRIMITIVE, N_PRIMITIVES, width};

/// Alignments of objects are divisors of it.
const RESIDUES: usize = 16;

/// What was counted of one class.
#[derive(Clone, Debug)]
pub(super) struct Counted {
    pub(super) n: u64,
    /// Elements of all its arrays.
    pub(super) n_elements: u64,
    /// The smallest distance to the next object, without the elements, of which a reference has four bytes.
    pub(super) least_rest: u64,
    /// How often it was that.
    pub(super) n_least: u64,
    /// The same with references of eight bytes; negative where they don't fit.
    pub(super) least_rest_wide: i64,
    /// Arrays by the number of their elements modulo 16, from which the sum of their sizes follows.
    pub(super) by_residue: Option<Box<[u64; RESIDUES]>>,
}

impl Default for Counted {
    fn default() -> Self {
        Self {
            n: 0,
            n_elements: 0,
            least_rest: u64::MAX,
            n_least: 0,
            least_rest_wide: i64::MAX,
            by_residue: None,
        }
    }
}

impl Counted {
    fn array(&mut self, n: u64) {
        self.n += 1;
        self.n_elements = self.n_elements.saturating_add(n);
        let by_residue = self.by_residue.get_or_insert_default();
        by_residue[(n % RESIDUES as u64) as usize] += 1;
    }

    #[inline]
    fn rest(&mut self, rest: u64, n: u64) {
        if rest < self.least_rest {
            (self.least_rest, self.n_least) = (rest, 0);
        }
        if rest == self.least_rest {
            self.n_least += n;
        }
    }

    fn add(&mut self, other: &Self) {
        self.n += other.n;
        self.n_elements = self.n_elements.saturating_add(other.n_elements);
        self.rest(other.least_rest, other.n_least);
        self.least_rest_wide = self.least_rest_wide.min(other.least_rest_wide);
        if let Some(other) = &other.by_residue {
            let by_residue = self.by_residue.get_or_insert_default();
            by_residue.iter_mut().zip(&other[..]).for_each(|(n, other)| *n += other);
        }
    }

    /// Bytes of all arrays of `element_bytes` each behind `header_bytes`.
    pub(super) fn array_bytes(&self, header_bytes: u64, element_bytes: u64, align: u64) -> u64 {
        let by_residue = self.by_residue.as_deref().map_or(&[][..], |by_residue| &by_residue[..]);
        let padding = |residue: usize| {
            let used = header_bytes + residue as u64 * element_bytes;
            used.next_multiple_of(align) - used
        };
        let padding: u64 = by_residue.iter().enumerate().map(|(at, n)| n * padding(at)).sum();
        let elements = self.n_elements.saturating_mul(element_bytes);
        elements.saturating_add(self.n * header_bytes + padding)
    }
}

/// The object before.
#[derive(Clone, Copy, Debug, Default)]
struct Last {
    id: u64,
    slot: usize,
    bytes: u64,
    bytes_wide: u64,
}

/// What was counted of all classes.
#[derive(Debug)]
pub(super) struct Tally {
    /// First the arrays of primitives, then the classes in the order in which they were met.
    counted: Vec<Counted>,
    classes: Vec<u64>,
    slots: FxHashMap<u64, usize>,
    last: Last,
    last_class: (u64, usize),
    /// All bits that identifiers have.
    pub(super) id_bits: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            counted: vec![Counted::default(); N_PRIMITIVES],
            classes: Vec::new(),
            slots: FxHashMap::default(),
            last: Last::default(),
            last_class: (u64::MAX, 0),
            id_bits: 0,
        }
    }
}

impl Tally {
    #[inline]
    fn slot(&mut self, class: u64) -> usize {
        if self.last_class.0 != class || class == u64::MAX {
            let next = self.counted.len();
            let slot = *self.slots.entry(class).or_insert(next);
            if slot == next {
                self.counted.push(Counted::default());
                self.classes.push(class);
            }
            self.last_class = (class, slot);
        }
        self.last_class.1
    }

    #[inline]
    fn next(&mut self, next: Last) {
        let last = std::mem::replace(&mut self.last, next);
        self.id_bits |= next.id;
        if last.id == 0 || next.id <= last.id {
            return;
        }
        let distance = next.id - last.id;
        let counted = &mut self.counted[last.slot];
        let wide = (distance as i64).saturating_sub(last.bytes_wide as i64);
        counted.rest(distance.saturating_sub(last.bytes), 1);
        counted.least_rest_wide = counted.least_rest_wide.min(wide);
    }

    #[inline]
    pub(super) fn instance(&mut self, id: u64, class: u64) {
        let slot = self.slot(class);
        self.counted[slot].n += 1;
        self.next(Last { id, slot, bytes: 0, bytes_wide: 0 });
    }

    #[inline]
    pub(super) fn objects(&mut self, id: u64, class: u64, n: u64) {
        let slot = self.slot(class);
        self.counted[slot].array(n);
        self.next(Last { id, slot, bytes: n * 4, bytes_wide: n * 8 });
    }

    #[inline]
    pub(super) fn primitives(&mut self, id: u64, kind: u8, bytes: u64) {
        let slot = usize::from(kind - FIRST_PRIMITIVE).min(N_PRIMITIVES - 1);
        let width = width(kind, 1).unwrap_or(1) as u64;
        self.counted[slot].array(bytes / width);
        self.next(Last { id, slot, bytes, bytes_wide: bytes });
    }

    /// Adds what was counted of another part.
    pub(super) fn add(&mut self, other: &Self) {
        for (mine, other) in self.counted.iter_mut().zip(&other.counted[..N_PRIMITIVES]) {
            mine.add(other);
        }
        for (&class, counted) in other.classes.iter().zip(&other.counted[N_PRIMITIVES..]) {
            let slot = self.slot(class);
            self.counted[slot].add(counted);
        }
        self.id_bits |= other.id_bits;
    }

    /// The arrays of primitives, in the order of their types.
    pub(super) fn primitives_counted(&self) -> &[Counted] {
        &self.counted[..N_PRIMITIVES]
    }

    /// Ids of classes with what was counted.
    pub(super) fn by_class(&self) -> impl Iterator<Item = (u64, &Counted)> {
        self.classes.iter().copied().zip(&self.counted[N_PRIMITIVES..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sums of sizes follow from residues.
    #[test]
    fn array_bytes() {
        let mut counted = Counted::default();
        let lengths = [0, 1, 2, 3, 7, 8, 9, 31, 1000];
        lengths.iter().for_each(|&n| counted.array(n));
        for (header, element, align) in [(16, 1, 8), (12, 4, 8), (20, 2, 16), (24, 8, 8)] {
            let size = |n: &u64| (header + n * element).next_multiple_of(align);
            let want: u64 = lengths.iter().map(size).sum();
            assert_eq!(counted.array_bytes(header, element, align), want, "{header} {element}");
        }
    }

    /// The least distance is kept, of each class; what does not ascend says nothing.
    #[test]
    fn distances() {
        let mut tally = Tally::default();
        for (id, class) in [(100, 1), (140, 1), (164, 2), (50, 1), (90, 2)] {
            tally.instance(id, class);
        }
        tally.primitives(100, 8, 5);
        tally.instance(124, 1);
        let found: Vec<_> = tally.by_class().map(|(id, it)| (id, it.n, it.least_rest)).collect();
        assert_eq!(found, [(1, 4, 24), (2, 2, 10)]);
        assert_eq!(tally.primitives_counted()[4].least_rest, 19);
        let mut sum = Tally::default();
        sum.add(&tally);
        sum.add(&tally);
        assert_eq!(sum.by_class().next().unwrap().1.n, 8);
    }
}
