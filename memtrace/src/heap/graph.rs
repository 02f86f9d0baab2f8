//! The heap as a graph: nodes with class, size and edges, in compact arrays.
//!
//! Node 0 is what keeps all roots. Then come the classes, then the objects in the order of the file.

use rustc_hash::FxHashMap;

use super::{
    bytes::{Bytes, id_at},
    classes::{ClassNumber, Classes},
    dominators::Edges,
    histogram,
    histogram::DumpFacts,
    ids::Ids,
    object_bytes::ObjectBytes,
    objects::{Entry, Root, RootKind, entry},
    parallel::in_parallel,
    records::{NoDump, Records, Segment},
    scan::{Part, SAMPLE_EVERY, scan},
    sizes::Sizes,
};

/// Number of a node.
pub(super) type Node = u32;

/// What an object takes at the most while the graph is made: as measured, of a heap with two references an object.
const GRAPH_BYTES: u64 = 32;

/// Loaders whose classes are never unloaded, besides the VM's own.
const FOREVER: [&str; 4] = [
    "jdk.internal.loader.ClassLoaders$AppClassLoader",
    "jdk.internal.loader.ClassLoaders$PlatformClassLoader",
    "sun.misc.Launcher$AppClassLoader",
    "sun.misc.Launcher$ExtClassLoader",
];

/// A dump with everything that can be asked of it.
#[derive(Debug)]
pub(super) struct Heap<'d> {
    pub(super) dump: &'d [u8],
    pub(super) records: Records,
    pub(super) classes: Classes,
    pub(super) sizes: Sizes,
    pub(super) facts: DumpFacts,
    pub(super) roots: Vec<Root>,
    parts: Vec<Part>,
    /// The number of each part's first object, and of what would follow the last.
    begins: Vec<usize>,
    ids: Ids,
    /// The class of each object.
    class_of: Vec<ClassNumber>,
    object_bytes: ObjectBytes,
    /// By class number, whether it is never unloaded.
    pub(super) is_forever: Vec<bool>,
}

impl<'d> Heap<'d> {
    /// Reads a dump, and who refers to whom.
    pub(super) fn read(dump: &'d [u8]) -> Result<(Self, Edges), NoDump> {
        Self::read_within(dump, u64::MAX)
    }

    /// The same, if `max_bytes` of memory will do.
    pub(super) fn read_within(dump: &'d [u8], max_bytes: u64) -> Result<(Self, Edges), NoDump> {
        let records = Records::read(dump)?;
        let (mut parts, tally) = scan(dump, &records, true);
        let classes = histogram::classes(dump, &records, &parts, &tally);
        let sizes = Sizes::infer(&tally, &classes, records.id_bytes);
        let facts = histogram::facts(dump, &records, &parts, &sizes);
        let n: usize = parts.iter().map(|part| part.n_objects).sum();
        if u32::try_from(n + classes.len() + 1).is_err() {
            return Err(NoDump::TooMany(u32::MAX, "objects"));
        }
        let needed_bytes = n as u64 * GRAPH_BYTES;
        if needed_bytes > max_bytes {
            return Err(NoDump::NoRoom(needed_bytes));
        }
        let ids = Ids::new(parts.iter_mut().map(|part| std::mem::take(&mut part.ids)).collect());
        let mut roots = Vec::new();
        let mut begins = vec![0];
        for part in &mut parts {
            roots.append(&mut part.roots);
            begins.push(begins[begins.len() - 1] + part.n_objects);
        }
        let (class_of, is_forever) = (Vec::new(), Vec::new());
        let mut heap = Self {
            dump,
            records,
            classes,
            sizes,
            facts,
            roots,
            parts,
            begins,
            ids,
            class_of,
            object_bytes: ObjectBytes::default(),
            is_forever,
        };
        heap.is_forever = heap.find_forever();
        let edges = heap.connect()?;
        Ok((heap, edges))
    }

    fn first_object(&self) -> usize {
        self.classes.len() + 1
    }

    pub(super) fn n_objects(&self) -> usize {
        self.begins.last().copied().unwrap_or_default()
    }

    /// The node of an identifier.
    #[inline]
    pub(super) fn node(&self, id: u64) -> Option<Node> {
        match self.ids.number(id) {
            Some(number) => Some(self.first_object() as Node + number),
            None if id == 0 => None,
            None => self.classes.number(id).map(Self::node_of_class),
        }
    }

    pub(super) fn node_of_class(number: ClassNumber) -> Node {
        number + 1
    }

    /// The class that a node is.
    pub(super) fn as_class(&self, node: Node) -> Option<ClassNumber> {
        let number = node.checked_sub(1)?;
        ((number as usize) < self.classes.len()).then_some(number)
    }

    /// The class of an object.
    #[inline]
    pub(super) fn class_of(&self, node: Node) -> Option<ClassNumber> {
        let object = (node as usize).checked_sub(self.first_object())?;
        self.class_of.get(object).copied()
    }

    /// All objects whose class is `wanted`, by number.
    pub(super) fn objects_by_class(&self, wanted: &[bool]) -> Vec<Node> {
        let first = self.first_object() as Node;
        let all = (first..).zip(&self.class_of);
        all.filter(|(_, class)| wanted[**class as usize]).map(|(node, _)| node).collect()
    }

    #[inline]
    pub(super) fn bytes(&self, node: Node) -> u64 {
        let object = (node as usize).checked_sub(self.first_object());
        object.map_or(0, |object| self.object_bytes.of(object))
    }

    /// What the dump has of an object.
    pub(super) fn entry(&self, node: Node) -> Option<Entry<'d>> {
        let object = (node as usize).checked_sub(self.first_object())?;
        let at = self.begins.partition_point(|&begin| begin <= object).checked_sub(1)?;
        let part = self.parts.get(at)?;
        let in_part = object - self.begins[at];
        let place = *part.samples.get(in_part / SAMPLE_EVERY)?;
        let ranges = part.ranges.iter().filter(|range| range.end > place);
        let ranges = ranges.map(|range| Segment { at: range.at.max(place), ..*range });
        let mut left = in_part % SAMPLE_EVERY;
        for entry in Entries::new(self.dump, self.records.id_bytes, ranges) {
            match entry {
                Entry::Root(_) | Entry::Class(_) => {}
                object if left == 0 => return Some(object),
                _ => left -= 1,
            }
        }
        None
    }

    /// An object's or a class's identifier.
    pub(super) fn id(&self, node: Node) -> u64 {
        if let Some(class) = self.as_class(node) {
            return self.classes.get(class).id;
        }
        match self.entry(node) {
            Some(
                Entry::Instance { id, .. }
                | Entry::Objects { id, .. }
                | Entry::Primitives { id, .. },
            ) => id,
            _ => 0,
        }
    }

    fn find_forever(&self) -> Vec<bool> {
        let mut is_forever = FxHashMap::default();
        let mut of_loader = |loader: u64| {
            *is_forever.entry(loader).or_insert_with(|| {
                let class = match self.node(loader).and_then(|node| self.entry(node)) {
                    Some(Entry::Instance { class, .. }) => self.classes.number(class),
                    _ => None,
                };
                class.is_some_and(|class| FOREVER.contains(&self.classes.name(class)))
            })
        };
        (0..self.classes.len() as ClassNumber)
            .map(|number| {
                let loader = self.classes.get(number).loader;
                loader == 0 || of_loader(loader)
            })
            .collect()
    }

    /// What node 0 refers to, and which local variables each thread has.
    fn root_edges(&self) -> (Vec<Node>, Vec<(Node, Node)>) {
        let threads: FxHashMap<u32, Node> = self
            .roots
            .iter()
            .filter(|root| root.kind == RootKind::Thread)
            .filter_map(|root| Some((root.thread_serial, self.node(root.id)?)))
            .collect();
        let (mut roots, mut locals) = (Vec::new(), Vec::new());
        for root in &self.roots {
            let Some(node) = self.node(root.id) else { continue };
            let is_local = matches!(root.kind, RootKind::JavaFrame | RootKind::JniLocal);
            match threads.get(&root.thread_serial).filter(|_| is_local) {
                Some(&thread) => locals.push((thread, node)),
                None => roots.push(node),
            }
        }
        let forever = self.classes.numbers().filter(|&number| self.is_forever[number as usize]);
        roots.extend(forever.map(Self::node_of_class));
        roots.sort_unstable();
        roots.dedup();
        locals.sort_unstable();
        locals.dedup();
        (roots, locals)
    }

    /// Looks at every object once more, for its references.
    fn connect(&mut self) -> Result<Edges, NoDump> {
        let (roots, locals) = self.root_edges();
        let connected = in_parallel(self.parts.len(), |at| self.connect_part(at, &locals));
        let n_targets: usize = connected.iter().map(|part| part.targets.len()).sum();
        let mut edges = Edges { starts: vec![0], targets: roots };
        edges.starts.push(edges.targets.len() as u32);
        for number in 0..self.classes.len() {
            let class = self.classes.get(number as ClassNumber);
            edges.targets.extend(class.targets().filter_map(|id| self.node(id)));
            edges.starts.push(edges.targets.len() as u32);
        }
        if u32::try_from(n_targets + edges.targets.len()).is_err() {
            return Err(NoDump::TooMany(u32::MAX, "references"));
        }
        edges.targets.reserve_exact(n_targets);
        edges.starts.reserve_exact(self.n_objects() + 1);
        self.class_of.reserve_exact(self.n_objects());
        self.object_bytes.reserve_exact(self.n_objects());
        for part in connected {
            let mut end = edges.targets.len() as u32;
            edges.starts.extend(part.degrees.iter().map(|degree| {
                end += degree;
                end
            }));
            edges.targets.extend(part.targets);
            self.class_of.extend(part.class_of);
            self.object_bytes.append(part.object_bytes);
        }
        Ok(edges)
    }

    fn connect_part(&self, at: usize, locals: &[(Node, Node)]) -> Connected {
        let part = &self.parts[at];
        let mut node = (self.first_object() + self.begins[at]) as Node;
        let mut connected = Connected::with_capacity(part.n_objects);
        let mut locals = &locals[locals.partition_point(|(thread, _)| *thread < node)..];
        let ranges = part.ranges.iter().copied();
        for entry in Entries::new(self.dump, self.records.id_bytes, ranges) {
            let begin = connected.targets.len();
            match entry {
                Entry::Root(_) | Entry::Class(_) => continue,
                Entry::Instance { class, data, .. } => self.instance(class, data, &mut connected),
                Entry::Objects { class, elements, .. } => {
                    self.objects(class, elements, &mut connected);
                }
                Entry::Primitives { kind, elements, .. } => {
                    let bytes = self.sizes.primitives(elements.len() as u64);
                    connected.node(Classes::of_primitive(kind), bytes);
                }
            }
            while let Some((&(thread, local), rest)) = locals
                .split_first()
                .filter(|_| locals.first().is_some_and(|(thread, _)| *thread <= node))
            {
                if thread == node {
                    connected.targets.push(local);
                }
                locals = rest;
            }
            connected.degrees.push((connected.targets.len() - begin) as u32);
            node += 1;
        }
        connected
    }

    #[inline]
    fn class_edge(&self, number: ClassNumber, connected: &mut Connected) {
        if !self.is_forever[number as usize] {
            connected.targets.push(Self::node_of_class(number));
        }
    }

    #[inline]
    fn instance(&self, class: u64, data: &[u8], connected: &mut Connected) {
        let number = connected.number(class, &self.classes);
        connected.node(number, self.sizes.instance(number));
        self.class_edge(number, connected);
        let id_bytes = self.records.id_bytes;
        for &place in &self.classes.get(number).references {
            let Some(id) = id_at(data, place as usize, id_bytes) else { break };
            connected.targets.extend(self.node(id));
        }
    }

    #[inline]
    fn objects(&self, class: u64, elements: &[u8], connected: &mut Connected) {
        let number = connected.number(class, &self.classes);
        let id_bytes = self.records.id_bytes;
        connected.node(number, self.sizes.objects((elements.len() / id_bytes) as u64));
        self.class_edge(number, connected);
        for element in elements.chunks_exact(id_bytes) {
            let id = id_at(element, 0, id_bytes).unwrap_or_default();
            connected.targets.extend(self.node(id));
        }
    }
}

/// What one part adds to the graph.
#[derive(Debug, Default)]
struct Connected {
    class_of: Vec<ClassNumber>,
    object_bytes: ObjectBytes,
    degrees: Vec<u32>,
    targets: Vec<Node>,
    last_class: (u64, ClassNumber),
}

impl Connected {
    fn with_capacity(n: usize) -> Self {
        Self {
            class_of: Vec::with_capacity(n),
            object_bytes: ObjectBytes::with_capacity(n),
            degrees: Vec::with_capacity(n),
            targets: Vec::with_capacity(2 * n),
            last_class: (0, 0),
        }
    }

    #[inline]
    fn node(&mut self, class: ClassNumber, bytes: u64) {
        self.class_of.push(class);
        self.object_bytes.push(bytes);
    }

    /// The number of a class. Each that an object has is known.
    #[inline]
    fn number(&mut self, class: u64, classes: &Classes) -> ClassNumber {
        if self.last_class.0 != class || class == 0 {
            self.last_class = (class, classes.number(class).unwrap_or_default());
        }
        self.last_class.1
    }
}

/// The entries of some ranges of a dump.
struct Entries<'d, R> {
    dump: &'d [u8],
    id_bytes: usize,
    ranges: R,
    bytes: Option<Bytes<'d>>,
}

impl<'d, R: Iterator<Item = Segment>> Entries<'d, R> {
    fn new(dump: &'d [u8], id_bytes: usize, ranges: R) -> Self {
        Self { dump, id_bytes, ranges, bytes: None }
    }
}

impl<'d, R: Iterator<Item = Segment>> Iterator for Entries<'d, R> {
    type Item = Entry<'d>;

    #[inline]
    fn next(&mut self) -> Option<Entry<'d>> {
        loop {
            if let Some(entry) = self.bytes.as_mut().and_then(entry) {
                return Some(entry);
            }
            let Segment { at, end } = self.ranges.next()?;
            self.bytes = Some(Bytes::new(self.dump, at, end, self.id_bytes));
        }
    }
}
