//! How many bytes an object takes in the heap, which a dump does not say.
//!
//! In: how near the next object is at least, of each class, see [`super::tally`]. Out: the size of each class's instances
//! and the layout of arrays. Where too little was seen, sizes follow from the fields and the header that others have.

use super::{
    classes::{ClassNumber, Classes},
    objects::{FIRST_PRIMITIVE, N_PRIMITIVES, width},
    tally::{Counted, Tally},
};

/// HotSpot pads an instance by less, but for classes that ask for it with `@Contended`.
const MAX_PADDING: u64 = 16;
/// These have no more, with two or three of their fields apart.
const MAX_CONTENDED: u64 = 1024;
/// So many objects at the same distance from the next are no accident.
const MANY: u64 = 3;

/// The layout of the heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeapLayout {
    /// Bytes before the fields of an instance.
    pub header_bytes: u64,
    /// Bytes before the elements of an array.
    pub array_header_bytes: u64,
    /// Bytes of a reference.
    pub reference_bytes: u64,
    /// Sizes are multiples of it.
    pub alignment_bytes: u64,
    /// Whether addresses told all that, or it is what HotSpot mostly does.
    pub is_measured: bool,
}

/// Sizes of all objects.
#[derive(Debug)]
pub(super) struct Sizes {
    pub(super) layout: HeapLayout,
    /// Of an instance, by number of the class.
    instances: Vec<u64>,
    /// Bytes of all instances or arrays, by number of the class.
    pub(super) sums: Vec<(u64, u64)>,
}

impl Sizes {
    /// Sizes by what was counted; `id_bytes` is what a reference has in the dump.
    pub(super) fn infer(tally: &Tally, classes: &Classes, id_bytes: usize) -> Self {
        let layout = layout(tally, classes, id_bytes);
        let mut sizes = Self {
            layout,
            instances: Vec::with_capacity(classes.len()),
            sums: vec![(0, 0); classes.len()],
        };
        for number in 0..classes.len() {
            sizes.instances.push(sizes.least(classes, number as ClassNumber));
        }
        for (at, counted) in tally.primitives_counted().iter().enumerate() {
            let width = width(FIRST_PRIMITIVE + at as u8, 0).unwrap_or_default() as u64;
            sizes.sums[at] = (counted.n, sizes.arrays(counted, width));
        }
        let mut counted: Vec<_> = tally
            .by_class()
            .filter_map(|(id, counted)| Some((classes.number(id)?, counted)))
            .collect();
        // Superclasses first: a class is padded where its superclass is.
        counted.sort_by_key(|(number, _)| classes.get(*number).supers.len());
        for (number, counted) in counted {
            let bytes = if counted.by_residue.is_some() {
                sizes.arrays(counted, layout.reference_bytes)
            } else {
                let supers = classes.get(number).supers.iter();
                let padding = supers.map(|&class| {
                    sizes.instance(class).saturating_sub(sizes.least(classes, class))
                });
                let padding = padding.max().filter(|&padding| padding > MAX_PADDING);
                sizes.instance_by(number, counted, padding.unwrap_or_default())
            };
            let sum = &mut sizes.sums[number as usize];
            *sum = (sum.0 + counted.n, sum.1.saturating_add(bytes));
        }
        sizes
    }

    /// What an instance has at least, by its fields.
    fn least(&self, classes: &Classes, number: ClassNumber) -> u64 {
        let HeapLayout { header_bytes, reference_bytes, alignment_bytes, .. } = self.layout;
        let fields = classes.get(number).field_bytes[usize::from(reference_bytes == 8)];
        (header_bytes + fields).next_multiple_of(alignment_bytes)
    }

    /// Settles the size of a class's instances by the distance that most of them have; what all of them have.
    fn instance_by(&mut self, number: ClassNumber, counted: &Counted, padding: u64) -> u64 {
        let size = &mut self.instances[number as usize];
        let least = *size + padding;
        let most = counted.least_rest;
        let is_usual = counted.n_least * 2 >= counted.n;
        let is_near = most <= least + MAX_PADDING
            || (counted.n_least >= MANY && most <= least + MAX_CONTENDED);
        *size = least;
        if self.layout.is_measured && most > least && is_usual && is_near {
            *size = most;
        }
        size.saturating_mul(counted.n)
    }

    fn arrays(&self, counted: &Counted, width: u64) -> u64 {
        let HeapLayout { array_header_bytes, alignment_bytes, .. } = self.layout;
        counted.array_bytes(array_header_bytes, width, alignment_bytes)
    }

    /// Bytes of an instance of a class.
    #[inline]
    pub(super) fn instance(&self, number: ClassNumber) -> u64 {
        self.instances[number as usize]
    }

    /// Bytes of an array of so many references.
    #[inline]
    pub(super) fn objects(&self, n: u64) -> u64 {
        self.primitives(n * self.layout.reference_bytes)
    }

    /// Bytes of an array whose elements have so many bytes.
    #[inline]
    pub(super) fn primitives(&self, bytes: u64) -> u64 {
        (self.layout.array_header_bytes + bytes).next_multiple_of(self.layout.alignment_bytes)
    }
}

/// The largest of `headers` that leaves room for `rest`.
fn header(headers: &[u64], rest: u64) -> Option<u64> {
    headers.iter().copied().filter(|&header| header <= rest).max()
}

fn layout(tally: &Tally, classes: &Classes, id_bytes: usize) -> HeapLayout {
    let is_64_bits = id_bytes == 8;
    let guess = HeapLayout {
        header_bytes: if is_64_bits { 12 } else { 8 },
        array_header_bytes: if is_64_bits { 16 } else { 12 },
        reference_bytes: 4,
        alignment_bytes: 8,
        is_measured: false,
    };
    let arrays = || tally.by_class().filter(|(_, counted)| counted.by_residue.is_some());
    let wide = arrays().map(|(_, counted)| counted.least_rest_wide).min();
    let is_wide = is_64_bits && wide.is_some_and(|rest| (12..i64::MAX).contains(&rest));
    let rest = |counted: &Counted| match is_wide {
        true => counted.least_rest_wide.max(0) as u64,
        false => counted.least_rest,
    };
    let of_bytes = &tally.primitives_counted()[..N_PRIMITIVES];
    let array_rest =
        of_bytes.iter().map(|it| it.least_rest).chain(arrays().map(|(_, it)| rest(it))).min();
    let array_header_bytes = array_rest
        .filter(|&rest| rest != u64::MAX)
        .and_then(|rest| header(&[12, 16, 20, 24], rest));
    let fields = |id: u64| {
        let number = classes.number(id)?;
        Some(classes.get(number).field_bytes[usize::from(is_wide)])
    };
    let instance_rest = tally
        .by_class()
        .filter(|(_, counted)| counted.by_residue.is_none() && counted.least_rest != u64::MAX)
        .filter_map(|(id, counted)| counted.least_rest.checked_sub(fields(id)?))
        .min();
    let header_bytes = instance_rest.and_then(|rest| header(&[8, 12, 16], rest));
    let Some((header_bytes, array_header_bytes)) = header_bytes.zip(array_header_bytes) else {
        return guess;
    };
    let alignment = 1_u64 << tally.id_bits.trailing_zeros().min(8);
    HeapLayout {
        header_bytes,
        array_header_bytes,
        reference_bytes: if is_wide { 8 } else { 4 },
        alignment_bytes: alignment.max(8),
        is_measured: alignment >= 8,
    }
}
