//! What lives in a made-up heap.
//!
//! In: how many objects. Out: chunks of them, each reachable only through its head, so that what a head retains is known:
//! chains and linked lists of 25,000 links and more, hash maps, lists of a few thousand classes, buffers. Everything hangs on
//! a list that the first thread has as a local variable. Objects refer to others of their chunk, and to strings that all
//! share and that a static field keeps.

use std::io::{self, Write};

use super::{
    classes::{ClassId, Kind},
    heap::Heap,
    records::Format,
};

/// Classes of the application's own.
const N_ENTITY_CLASSES: usize = 3000;
const N_SHARED: usize = 50_000;
const N_THREADS: u32 = 20;
const CHAIN_LENGTHS: [u64; 3] = [20_500, 25_332, 60_000];
/// Of each kind of chunk so many are told what they retain.
const N_TOLD: usize = 5;

/// What is in the dump.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Instances and arrays, without the mirrors of classes.
    pub n_objects: u64,
    /// Classes, with those of arrays.
    pub n_classes: u64,
    /// References that are not null, in fields of instances and in arrays of references.
    pub n_references: u64,
    /// Bytes of the instances and arrays.
    pub shallow_bytes: u64,
    /// Roots, each time that an object is one.
    pub n_roots: u64,
    /// Name, instances and bytes of each class.
    pub histogram: Vec<(String, u64, u64)>,
    /// What some objects retain; the last is the thread that has everything but what all share.
    pub retained: Vec<Retained>,
}

/// An object and what it retains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retained {
    /// Its id.
    pub id: u64,
    /// The name of its class.
    pub class: String,
    /// What would be freed with it, itself too.
    pub bytes: u64,
}

/// Classes that the population is made of.
struct Known {
    string: ClassId,
    characters: ClassId,
    objects: ClassId,
    integer: ClassId,
    long: ClassId,
    thread: ClassId,
    loader: ClassId,
    array_list: ClassId,
    hash_map: ClassId,
    map_node: ClassId,
    map_nodes: ClassId,
    linked_list: ClassId,
    list_node: ClassId,
    chain: ClassId,
    link: ClassId,
    entities: Vec<ClassId>,
}

/// A population being made.
struct Making<W> {
    heap: Heap<W>,
    known: Known,
    shared: Vec<u64>,
    heads: Vec<u64>,
    retained: Vec<Retained>,
    /// How many of each kind were made.
    n_chunks: [usize; 5],
    /// Bytes of what came before the first of them.
    n_bytes_before: u64,
}

/// Fills the heap with `n_objects` objects or a chunk more, and ends its dump.
pub fn populate(heap: Heap<impl Write>, n_objects: u64) -> io::Result<Truth> {
    let mut making = Making::begin(heap)?;
    let rounds: [fn(&mut Making<_>, usize) -> io::Result<u64>; 5] =
        [Making::chain, Making::linked_list, Making::hash_map, Making::entities, Making::buffers];
    while making.heap.n_objects() < n_objects {
        // Weights by objects: links are quickly many, maps and lists are what heaps consist of.
        let kind = match making.heap.random.below(24) {
            0 => 0,
            1 => 1,
            2..8 => 2,
            8..16 => 3,
            _ => 4,
        };
        let before = making.heap.n_reserved_bytes;
        let made = making.n_chunks[kind];
        let left = n_objects - making.heap.n_objects();
        let small = if n_objects < 1_000_000 { (left as usize / 50).max(10) } else { usize::MAX };
        let head = rounds[kind](&mut making, small)?;
        let bytes = making.heap.n_reserved_bytes - before;
        making.heads.push(head);
        making.n_chunks[kind] += 1;
        if made < N_TOLD {
            let class = [
                making.known.chain,
                making.known.linked_list,
                making.known.hash_map,
                making.known.array_list,
                making.known.array_list,
            ][kind];
            making.tell(head, class, bytes);
        }
    }
    making.end()
}

impl Known {
    fn define(heap: &mut Heap<impl Write>) -> Self {
        use Kind::{Boolean, Byte, Char, Float, Int, Long, Object};
        let text = if heap.format().compact_strings { ("[B", Byte) } else { ("[C", Char) };
        let of_string: &[(&str, Kind)] = match text.1 {
            Byte => &[("value", Object), ("hash", Int), ("coder", Byte), ("hashIsZero", Boolean)],
            _ => &[("value", Object), ("hash", Int)],
        };
        let object = "java/lang/Object";
        heap.define(object, "", &[]);
        let mut class = |name: &str, fields: &[(&str, Kind)]| heap.define(name, object, fields);
        class("java/lang/Class", &[]);
        let mut known = Self {
            string: class("java/lang/String", of_string),
            characters: class(text.0, &[]),
            objects: class("[Ljava/lang/Object;", &[]),
            integer: class("java/lang/Integer", &[("value", Int)]),
            long: class("java/lang/Long", &[("value", Long)]),
            thread: class(
                "java/lang/Thread",
                &[("name", Object), ("contextClassLoader", Object), ("tid", Long), ("eetop", Long)],
            ),
            loader: class("java/lang/ClassLoader", &[("parent", Object), ("name", Object)]),
            array_list: class(
                "java/util/ArrayList",
                &[("elementData", Object), ("size", Int), ("modCount", Int)],
            ),
            hash_map: class(
                "java/util/HashMap",
                &[
                    ("table", Object),
                    ("entrySet", Object),
                    ("size", Int),
                    ("modCount", Int),
                    ("threshold", Int),
                    ("loadFactor", Float),
                ],
            ),
            map_node: class(
                "java/util/HashMap$Node",
                &[("hash", Int), ("key", Object), ("value", Object), ("next", Object)],
            ),
            map_nodes: class("[Ljava/util/HashMap$Node;", &[]),
            linked_list: class(
                "java/util/LinkedList",
                &[("first", Object), ("last", Object), ("size", Int), ("modCount", Int)],
            ),
            list_node: class(
                "java/util/LinkedList$Node",
                &[("item", Object), ("next", Object), ("prev", Object)],
            ),
            chain: class("bench/Chain", &[("head", Object), ("length", Int)]),
            link: class("bench/Link", &[("next", Object), ("item", Object), ("label", Object)]),
            entities: Vec::new(),
        };
        if text.1 == Char {
            class("[B", &[]);
        }
        known.entities = define_entities(heap);
        known
    }
}

/// Classes with four to seven references and up to four numbers of their own, some of them subclasses of others.
fn define_entities(heap: &mut Heap<impl Write>) -> Vec<ClassId> {
    use Kind::{Boolean, Int, Long, Object};
    let mut names: Vec<String> = Vec::new();
    let mut classes = Vec::new();
    for i in 0..N_ENTITY_CLASSES {
        let mut fields = vec![("name", Object)];
        let references = ["owner", "peer", "note", "kind", "parent", "first"];
        let n_references = 3 + heap.random.below(4) as usize;
        fields.extend(references[..n_references].iter().map(|name| (*name, Object)));
        let numbers = [("id", Long), ("created", Long), ("count", Int), ("open", Boolean)];
        fields.extend(&numbers[..heap.random.below(5) as usize]);
        // One in four extends one that extends nothing.
        let parent = heap.random.below(i as u64) as usize;
        let extends = i % 4 == 3 && parent % 4 != 3;
        let parent = if extends { names[parent].as_str() } else { "java/lang/Object" };
        let name = format!("bench/model/Entity{i:04}");
        classes.push(heap.define(&name, parent, &fields));
        names.push(name);
    }
    classes
}

impl<W: Write> Making<W> {
    /// Classes, the strings that all share, the class loader.
    fn begin(mut heap: Heap<W>) -> io::Result<Self> {
        let known = Known::define(&mut heap);
        let holder = heap.define("bench/Shared", "java/lang/Object", &[]);
        let loader = heap.reserve(known.loader);
        let pool = heap.reserve_array(known.objects, Kind::Object, N_SHARED);
        heap.define_static(holder, "STRINGS", pool);
        heap.begin(loader, known.chain, N_THREADS)?;
        heap.instance(loader, known.loader, &[0, 0])?;
        let texts: Vec<String> = (0..N_SHARED).map(|i| format!("shared-{i}")).collect();
        let room: Vec<[u64; 2]> =
            texts.iter().map(|text| room_for_string(&mut heap, &known, text)).collect();
        let shared: Vec<u64> = room.iter().map(|[string, _]| *string).collect();
        heap.references(pool, known.objects, &shared)?;
        for (text, room) in texts.iter().zip(room) {
            string(&mut heap, &known, text, room)?;
        }
        let n_chunks = [0; 5];
        let n_bytes_before = heap.n_reserved_bytes;
        let (heads, retained) = (Vec::new(), Vec::new());
        Ok(Self { heap, known, shared, heads, retained, n_chunks, n_bytes_before })
    }

    fn tell(&mut self, id: u64, class: ClassId, bytes: u64) {
        let class = self.heap.class(class).name.clone();
        self.retained.push(Retained { id, class, bytes });
    }

    fn any_shared(&mut self) -> u64 {
        self.shared[self.heap.random.below(self.shared.len() as u64) as usize]
    }

    /// Links that know the next only, each with a number of its own: the one in the middle retains half of them.
    fn chain(&mut self, at_most: usize) -> io::Result<u64> {
        let length = CHAIN_LENGTHS[self.n_chunks[0] % CHAIN_LENGTHS.len()].min(at_most as u64);
        let Self { heap, known, .. } = self;
        let head = heap.reserve(known.chain);
        let room: Vec<[u64; 2]> =
            (0..length).map(|_| [heap.reserve(known.link), heap.reserve(known.long)]).collect();
        heap.instance(head, known.chain, &[room[0][0], length])?;
        for (i, [link, long]) in room.iter().enumerate() {
            let next = room.get(i + 1).map_or(0, |next| next[0]);
            let label = self.any_shared();
            let Self { heap, known, .. } = self;
            heap.instance(*link, known.link, &[next, *long, label])?;
            heap.instance(*long, known.long, &[i as u64])?;
        }
        if self.n_chunks[0] < N_TOLD {
            let middle = room.len() / 2;
            let Known { link, long, .. } = self.known;
            let each = self.heap.class(link).instance_bytes + self.heap.class(long).instance_bytes;
            self.tell(room[middle][0], link, each * (room.len() - middle) as u64);
        }
        Ok(head)
    }

    /// A `LinkedList` of strings.
    fn linked_list(&mut self, at_most: usize) -> io::Result<u64> {
        let length = (21_000 + self.heap.random.below(10_000) as usize).min(at_most);
        let Self { heap, known, .. } = self;
        let head = heap.reserve(known.linked_list);
        let texts: Vec<String> = (0..length).map(|i| format!("item {i}")).collect();
        let room: Vec<(u64, [u64; 2])> = texts
            .iter()
            .map(|text| (heap.reserve(known.list_node), room_for_string(heap, known, text)))
            .collect();
        let ends = [room[0].0, room[length - 1].0, length as u64, length as u64];
        heap.instance(head, known.linked_list, &ends)?;
        for (i, (node, of_string)) in room.iter().enumerate() {
            let next = room.get(i + 1).map_or(0, |next| next.0);
            let previous = i.checked_sub(1).map_or(0, |i| room[i].0);
            heap.instance(*node, known.list_node, &[of_string[0], next, previous])?;
            string(heap, known, &texts[i], *of_string)?;
        }
        Ok(head)
    }

    /// A `HashMap` from strings to entities of one class.
    fn hash_map(&mut self, at_most: usize) -> io::Result<u64> {
        let n = (100 + self.heap.random.below(20_000) as usize).min(at_most);
        let of = self.any_entity_class();
        let Self { heap, known, .. } = self;
        let n_slots = (n * 4 / 3).next_power_of_two().max(16);
        let head = heap.reserve(known.hash_map);
        let table = heap.reserve_array(known.map_nodes, Kind::Object, n_slots);
        let texts: Vec<String> =
            (0..n).map(|i| format!("com.example.shop/customers/{i:08}")).collect();
        let room: Vec<(u64, [u64; 2], u64)> = texts
            .iter()
            .map(|text| {
                let node = heap.reserve(known.map_node);
                (node, room_for_string(heap, known, text), heap.reserve(of))
            })
            .collect();
        let mut slots = vec![0; n_slots];
        let hashes: Vec<usize> = (0..n).map(|_| heap.random.below(1 << 31) as usize).collect();
        let mut nexts = vec![0; n];
        for (i, hash) in hashes.iter().enumerate() {
            nexts[i] = std::mem::replace(&mut slots[hash % n_slots], room[i].0);
        }
        let size = n as u64;
        let load_factor = u64::from(0.75_f32.to_bits());
        let of_map = [table, 0, size, size, (n_slots * 3 / 4) as u64, load_factor];
        heap.instance(head, known.hash_map, &of_map)?;
        heap.references(table, known.map_nodes, &slots)?;
        for (i, (node, of_string, value)) in room.iter().enumerate() {
            let Self { heap, known, .. } = self;
            let of_node = [hashes[i] as u64, of_string[0], *value, nexts[i]];
            heap.instance(*node, known.map_node, &of_node)?;
            string(heap, known, &texts[i], *of_string)?;
            let peer = room[self.heap.random.below(n as u64) as usize].2;
            self.entity(*value, of, of_string[0], peer)?;
        }
        Ok(head)
    }

    /// An `ArrayList` of entities of several classes.
    fn entities(&mut self, at_most: usize) -> io::Result<u64> {
        let n = (10 + self.heap.random.below(10_000) as usize).min(at_most);
        let classes: Vec<ClassId> = (0..n).map(|_| self.any_entity_class()).collect();
        let Self { heap, known, .. } = self;
        let head = heap.reserve(known.array_list);
        let capacity = n + n / 2;
        let array = heap.reserve_array(known.objects, Kind::Object, capacity);
        let texts: Vec<String> =
            (0..n).map(|i| format!("the name of entity {i}, as customers see it")).collect();
        let room: Vec<(u64, [u64; 2])> = classes
            .iter()
            .zip(&texts)
            .map(|(class, text)| (heap.reserve(*class), room_for_string(heap, known, text)))
            .collect();
        let mut elements: Vec<u64> = room.iter().map(|(entity, _)| *entity).collect();
        elements.resize(capacity, 0);
        heap.instance(head, known.array_list, &[array, n as u64, n as u64])?;
        heap.references(array, known.objects, &elements)?;
        for (i, (entity, of_string)) in room.iter().enumerate() {
            let peer = elements[self.heap.random.below(n as u64) as usize];
            self.entity(*entity, classes[i], of_string[0], peer)?;
            string(&mut self.heap, &self.known, &texts[i], *of_string)?;
        }
        Ok(head)
    }

    /// An `ArrayList` of byte arrays, and of an `Integer` beside each: its length.
    fn buffers(&mut self, at_most: usize) -> io::Result<u64> {
        let n = (10 + self.heap.random.below(1000) as usize).min(at_most);
        let lengths: Vec<usize> = (0..n)
            .map(|_| match self.heap.random.below(200) {
                0 => 1 << 18,
                _ => 16 + self.heap.random.below(2000) as usize,
            })
            .collect();
        let Self { heap, known, .. } = self;
        let bytes = heap.class_named("[B");
        let head = heap.reserve(known.array_list);
        let array = heap.reserve_array(known.objects, Kind::Object, 2 * n);
        let room: Vec<[u64; 2]> = lengths
            .iter()
            .map(|n| [heap.reserve_array(bytes, Kind::Byte, *n), heap.reserve(known.integer)])
            .collect();
        heap.instance(head, known.array_list, &[array, 2 * n as u64, 2 * n as u64])?;
        heap.references(array, known.objects, room.as_flattened())?;
        for ([buffer, length], n) in room.iter().zip(lengths) {
            heap.primitives(*buffer, Kind::Byte, &vec![0; n])?;
            heap.instance(*length, known.integer, &[n as u64])?;
        }
        Ok(head)
    }

    fn any_entity_class(&mut self) -> ClassId {
        self.known.entities[self.heap.random.below(N_ENTITY_CLASSES as u64) as usize]
    }

    /// An entity: its first reference is the name, others are to a peer, to what all share, or null.
    fn entity(&mut self, address: u64, class: ClassId, name: u64, peer: u64) -> io::Result<()> {
        let kinds = self.heap.class(class).all_kinds.clone();
        let mut values = Vec::with_capacity(kinds.len());
        for (i, kind) in kinds.iter().enumerate() {
            values.push(match (kind, i) {
                (Kind::Object, 0) => name,
                (Kind::Object, _) => match self.heap.random.below(8) {
                    0 => 0,
                    1..=3 => peer,
                    _ => self.any_shared(),
                },
                (Kind::Boolean, _) => 1,
                _ => self.heap.random.below(1 << 20),
            });
        }
        self.heap.instance(address, class, &values)
    }

    /// The list of all chunks, threads, roots.
    fn end(mut self) -> io::Result<Truth> {
        let Self { heap, known, heads, n_bytes_before, .. } = &mut self;
        let before = heap.n_reserved_bytes;
        let of_chunks: u64 = before - *n_bytes_before;
        let list = heap.reserve(known.array_list);
        let array = heap.reserve_array(known.objects, Kind::Object, heads.len());
        let size = heads.len() as u64;
        heap.instance(list, known.array_list, &[array, size, size])?;
        heap.references(array, known.objects, heads)?;
        let mut first = Retained { id: 0, class: String::new(), bytes: 0 };
        for serial in 1..=N_THREADS {
            let text = format!("worker-{serial}");
            let thread = heap.reserve(known.thread);
            let room = room_for_string(heap, known, &text);
            heap.instance(thread, known.thread, &[room[0], 0, serial.into(), 0])?;
            string(heap, known, &text, room)?;
            heap.add_thread(thread, serial)?;
            if serial == 1 {
                // With the list that is its local variable, and all that this holds.
                let bytes = of_chunks + heap.n_reserved_bytes - before;
                first =
                    Retained { id: thread, class: heap.class(known.thread).name.clone(), bytes };
            }
        }
        heap.add_local(list, 1)?;
        heap.add_sticky_classes()?;
        let holder = heap.class_named("bench/Shared");
        heap.add_jni_global(heap.class(holder).address)?;
        let mut truth = Truth {
            n_objects: heap.n_objects(),
            n_classes: heap.n_classes(),
            n_references: heap.n_references,
            shallow_bytes: heap.n_reserved_bytes,
            n_roots: heap.n_roots,
            histogram: heap.histogram(),
            retained: [self.retained, vec![first]].concat(),
            ..Truth::default()
        };
        truth.file_bytes = self.heap.finish()?;
        Ok(truth)
    }
}

/// Characters as they stand in a string's array.
fn characters(format: Format, text: &str) -> (Kind, Vec<u8>) {
    match format.compact_strings {
        true => (Kind::Byte, text.as_bytes().to_vec()),
        false => (Kind::Char, text.encode_utf16().flat_map(u16::to_be_bytes).collect()),
    }
}

fn room_for_string(heap: &mut Heap<impl Write>, known: &Known, text: &str) -> [u64; 2] {
    let kind = if heap.format().compact_strings { Kind::Byte } else { Kind::Char };
    [heap.reserve(known.string), heap.reserve_array(known.characters, kind, text.len())]
}

/// Fills a string, of ASCII.
fn string(
    heap: &mut Heap<impl Write>,
    known: &Known,
    text: &str,
    [string, array]: [u64; 2],
) -> io::Result<()> {
    let (kind, characters) = characters(heap.format(), text);
    let values = [array, 0, 0, 0];
    let n_fields = heap.class(known.string).all_kinds.len();
    heap.instance(string, known.string, &values[..n_fields])?;
    heap.primitives(array, kind, &characters)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(format: Format, seed: u64) -> (Vec<u8>, Truth) {
        let mut file = Vec::new();
        let heap = Heap::new(&mut file, format, seed).unwrap();
        let truth = populate(heap, 150_000).unwrap();
        (file, truth)
    }

    /// The same seed gives the same file, another seed another; what is told of a file adds up.
    #[test]
    fn dumps_are_reproducible() {
        for format in [Format::JDK_17, Format::JDK_5_32_BITS, Format::AGENT_32_BITS] {
            let (file, truth) = made(format, 1);
            assert!(file == made(format, 1).0, "{format:?}");
            assert!(file != made(format, 2).0, "{format:?}");
            assert_eq!(truth.file_bytes, file.len() as u64);
            assert!(truth.n_objects >= 150_000 && truth.retained.len() >= 5, "{truth:?}");
            let objects: u64 = truth.histogram.iter().map(|(_, n, _)| n).sum();
            let bytes: u64 = truth.histogram.iter().map(|(_, _, bytes)| bytes).sum();
            assert_eq!((objects, bytes), (truth.n_objects, truth.shallow_bytes));
            assert!(truth.retained.iter().all(|it| it.bytes < truth.shallow_bytes), "{truth:?}");
        }
    }
}
