//! A made-up heap: classes, then objects at ascending addresses.
//!
//! In: what the population reserves and fills. Out: the dump's records, and counts of everything. An object's address is
//! known once room is reserved for it; objects are filled in the order in which they were reserved.

use std::{
    collections::{HashMap, VecDeque},
    io::{self, Write},
};

use super::{
    classes::{Class, ClassId, Kind, array_bytes, instance_bytes},
    records::{Format, Records, push_id},
};

/// Where the heap begins: ids of 4 bytes reach two gigabytes from here.
const BASE: u64 = 0x8000_0000;
/// Where names are, outside of the heap.
const NAMES: u64 = 0x0800_0000;
/// Objects do not lie across the ends of regions.
const REGION_BYTES: u64 = 1 << 20;
/// Up to this much is left free at the end of a region.
const MAX_HOLE_BYTES: u64 = 4096;
/// Bytes of a class's mirror, whose fields no dump shows.
const MIRROR_BYTES: u64 = 112;

/// What a method on a thread's stack is called.
const METHOD: &str = "run";

/// A heap that is written as it is made.
#[derive(Debug)]
pub struct Heap<W> {
    records: Records<W>,
    classes: Vec<Class>,
    by_name: HashMap<String, ClassId>,
    /// Instances and bytes by class.
    counts: Vec<(u64, u64)>,
    next: u64,
    reserved: VecDeque<u64>,
    /// Bytes of objects that room was reserved for, without holes.
    pub(super) n_reserved_bytes: u64,
    /// References that are not null, in fields of objects and in arrays.
    pub(super) n_references: u64,
    pub(super) n_roots: u64,
    pub(super) random: Random,
}

/// Numbers that look random: splitmix64.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}

impl<W: Write> Heap<W> {
    /// An empty heap, whose dump goes to `file`.
    pub fn new(file: W, format: Format, seed: u64) -> io::Result<Self> {
        Ok(Self {
            records: Records::new(file, format)?,
            classes: Vec::new(),
            by_name: HashMap::new(),
            counts: Vec::new(),
            next: BASE,
            reserved: VecDeque::new(),
            n_reserved_bytes: 0,
            n_references: 0,
            n_roots: 0,
            random: Random(seed),
        })
    }

    /// How the dump is written.
    pub fn format(&self) -> Format {
        self.records.format
    }

    /// Adds a class whose superclass, by name, is there; without one it is `java/lang/Object`.
    pub fn define(&mut self, name: &str, superclass: &str, fields: &[(&str, Kind)]) -> ClassId {
        let format = self.format();
        let address = self.room_for(MIRROR_BYTES);
        let parent = self.by_name.get(superclass).map(|id| &self.classes[id.0]);
        let own = fields.iter().map(|(_, kind)| *kind);
        let all_kinds: Vec<Kind> =
            own.chain(parent.map(|parent| parent.all_kinds.clone()).unwrap_or_default()).collect();
        let is_array = name.starts_with('[');
        let class = Class {
            name: name.to_owned(),
            address,
            superclass: parent.map_or(0, |parent| parent.address),
            is_of_application: name.starts_with("bench/"),
            fields: fields.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect(),
            statics: Vec::new(),
            instance_bytes: if is_array { 0 } else { instance_bytes(format, &all_kinds) },
            all_kinds,
        };
        let id = ClassId(self.classes.len());
        self.by_name.insert(name.to_owned(), id);
        self.classes.push(class);
        self.counts.push((0, 0));
        id
    }

    /// Adds a static field.
    pub fn define_static(&mut self, class: ClassId, name: &str, value: u64) {
        self.classes[class.0].statics.push((name.to_owned(), value));
    }

    /// A class.
    pub fn class(&self, id: ClassId) -> &Class {
        &self.classes[id.0]
    }

    /// The class of a name that was defined.
    pub fn class_named(&self, name: &str) -> ClassId {
        self.by_name[name]
    }

    /// How many classes there are.
    pub fn n_classes(&self) -> u64 {
        self.classes.len() as u64
    }

    /// How many objects are filled.
    pub fn n_objects(&self) -> u64 {
        self.counts.iter().map(|(n, _)| n).sum()
    }

    /// Instances and bytes of each class.
    pub fn histogram(&self) -> Vec<(String, u64, u64)> {
        let rows = self.classes.iter().zip(&self.counts);
        rows.map(|(class, (n, bytes))| (class.name.clone(), *n, *bytes)).collect()
    }

    /// Writes everything that comes before the dump, with a stack of one frame of class `on_stack` for each thread, and the
    /// classes; `loader` is the application's.
    pub(super) fn begin(
        &mut self,
        loader: u64,
        on_stack: ClassId,
        n_threads: u32,
    ) -> io::Result<()> {
        let Self { records, classes, .. } = self;
        let mut names = Names { ids: HashMap::new() };
        let nothing = names.id(records, "")?;
        let method = names.id(records, METHOD)?;
        let mut of_members = Vec::new();
        for (i, class) in classes.iter().enumerate() {
            let name = names.id(records, &class.name)?;
            let fields = class.fields.iter().map(|(name, _)| name);
            let members = fields.chain(class.statics.iter().map(|(name, _)| name));
            let members = members.map(|name| names.id(records, name));
            of_members.push(members.collect::<io::Result<Vec<u64>>>()?);
            records.load_class(i as u32 + 1, class.address, name)?;
        }
        for thread in 1..=n_threads {
            records.frame(thread.into(), method, nothing, on_stack.0 as u32 + 1)?;
            records.trace(thread, thread, &[thread.into()])?;
        }
        for (class, names) in classes.iter().zip(&of_members) {
            let loader = if class.is_of_application { loader } else { 0 };
            records.class(class, names, loader)?;
        }
        records.end_of_classes()
    }

    /// An address with room for `bytes` behind it.
    fn room_for(&mut self, bytes: u64) -> u64 {
        let end_of_region = (self.next + 1).next_multiple_of(REGION_BYTES);
        let hole = self.random.below(MAX_HOLE_BYTES);
        if self.next + bytes + hole > end_of_region && !self.next.is_multiple_of(REGION_BYTES) {
            self.next = end_of_region;
        }
        let address = self.next;
        self.next += bytes;
        address
    }

    fn reserve_bytes(&mut self, class: ClassId, bytes: u64) -> u64 {
        let address = self.room_for(bytes);
        self.reserved.push_back(address);
        self.n_reserved_bytes += bytes;
        let count = &mut self.counts[class.0];
        *count = (count.0 + 1, count.1 + bytes);
        address
    }

    /// Room for an instance.
    pub fn reserve(&mut self, class: ClassId) -> u64 {
        let bytes = self.classes[class.0].instance_bytes;
        self.reserve_bytes(class, bytes)
    }

    /// Room for an array.
    pub fn reserve_array(&mut self, class: ClassId, kind: Kind, length: usize) -> u64 {
        let bytes = array_bytes(self.format(), kind, length);
        self.reserve_bytes(class, bytes)
    }

    fn take_reserved(&mut self, address: u64) {
        let next = self.reserved.pop_front();
        assert_eq!(next, Some(address), "objects are filled in the order of their addresses");
    }

    /// Fills an instance; `values` has one for each of [`Class::all_kinds`].
    pub fn instance(&mut self, address: u64, class: ClassId, values: &[u64]) -> io::Result<()> {
        self.take_reserved(address);
        let id_bytes = self.format().id_bytes;
        let Class { all_kinds, address: id, name, .. } = &self.classes[class.0];
        assert_eq!(all_kinds.len(), values.len(), "{name}");
        let mut fields = Vec::with_capacity(values.len() * 8);
        for (kind, value) in all_kinds.iter().zip(values) {
            if *kind == Kind::Object {
                self.n_references += u64::from(*value != 0);
            }
            push_id(&mut fields, kind.dumped_bytes(id_bytes), *value);
        }
        self.records.instance(address, *id, &fields)
    }

    /// Fills an array of references.
    pub fn references(&mut self, address: u64, class: ClassId, elements: &[u64]) -> io::Result<()> {
        self.take_reserved(address);
        self.n_references += elements.iter().filter(|element| **element != 0).count() as u64;
        self.records.references(address, self.classes[class.0].address, elements)
    }

    /// Fills an array of bytes or other numbers, which are in the file's byte order.
    pub fn primitives(&mut self, address: u64, kind: Kind, elements: &[u8]) -> io::Result<()> {
        self.take_reserved(address);
        self.records.primitives(address, kind, elements)
    }

    /// A class of the boot loader is a root.
    pub(super) fn add_sticky_classes(&mut self) -> io::Result<()> {
        for class in self.classes.iter().filter(|class| !class.is_of_application) {
            self.n_roots += 1;
            self.records.sticky_class(class.address)?;
        }
        Ok(())
    }

    pub(super) fn add_thread(&mut self, thread: u64, serial: u32) -> io::Result<()> {
        self.n_roots += 1;
        self.records.thread(thread, serial)
    }

    pub(super) fn add_local(&mut self, object: u64, thread_serial: u32) -> io::Result<()> {
        self.n_roots += 1;
        self.records.local(object, thread_serial, 0)
    }

    pub(super) fn add_jni_global(&mut self, object: u64) -> io::Result<()> {
        self.n_roots += 1;
        self.records.jni_global(object)
    }

    /// Writes the rest; returns how many bytes the file has.
    pub(super) fn finish(self) -> io::Result<u64> {
        assert!(self.reserved.is_empty(), "every object that room was reserved for is filled");
        self.records.finish()
    }
}

/// Names that were written.
struct Names {
    ids: HashMap<String, u64>,
}

impl Names {
    /// The id of a name, which is written the first time.
    fn id(&mut self, records: &mut Records<impl Write>, name: &str) -> io::Result<u64> {
        if let Some(id) = self.ids.get(name) {
            return Ok(*id);
        }
        let id = NAMES + 16 * self.ids.len() as u64;
        self.ids.insert(name.to_owned(), id);
        records.name(id, name)?;
        Ok(id)
    }
}
