//! Single things of a dump: one object with its fields, the threads, and the ways from the roots to a class's objects.

use std::collections::BTreeMap;

use super::{
    bytes::Bytes,
    graph::{Heap, Node},
    histogram::DumpFacts,
    objects::{Entry, OBJECT, RootKind},
    reach::Reach,
    records::NoDump,
};

/// Elements of an array that are told of.
const MAX_FIELDS: usize = 200;
/// Objects of a class whose ways are looked for, ways that are told of, and steps of each.
const MAX_STARTS: usize = 100_000;
const MAX_PATHS: usize = 20;
const MAX_STEPS: usize = 64;
/// Local variables of a thread that are told of.
const MAX_LOCALS: usize = 50;

/// An object with its fields.
#[derive(Clone, Debug)]
pub struct ObjectView {
    /// Its class; of a class, `class` and its name.
    pub class: String,
    /// Its identifier.
    pub id: u64,
    /// Its own bytes.
    pub shallow_bytes: u64,
    /// Names and values.
    pub fields: Vec<(String, String)>,
    /// Elements that are not among them.
    pub n_left_out: u64,
}

/// A thread.
#[derive(Clone, Debug)]
pub struct ThreadView {
    /// What it is called.
    pub name: String,
    /// Its class.
    pub class: String,
    /// Its identifier.
    pub id: u64,
    /// Its context class loader.
    pub context_loader: Option<String>,
    /// The methods that it is in, the innermost first.
    pub frames: Vec<String>,
    /// What its local variables refer to.
    pub locals: Vec<String>,
}

/// A way from a root that some objects have in common.
#[derive(Clone, Debug)]
pub struct PathView {
    /// How many objects.
    pub n: u64,
    /// The kind of root.
    pub root: &'static str,
    /// From the root on.
    pub steps: Vec<String>,
}

/// Reads one object; `None` where the dump has none with this identifier.
///
/// # Errors
///
/// Where it is no dump.
pub fn object(
    dump: &[u8],
    id: u64,
    references_only: bool,
) -> Result<(DumpFacts, Option<ObjectView>), NoDump> {
    let (heap, _) = Heap::read(dump)?;
    let view = heap.node(id).map(|node| object_view(&heap, node, id, references_only));
    Ok((heap.facts, view))
}

fn object_view(heap: &Heap<'_>, node: Node, id: u64, references_only: bool) -> ObjectView {
    let (mut fields, mut n_left_out) = (Vec::new(), 0);
    let value = |kind: u8, value: u64| match kind {
        OBJECT => shown(heap, value),
        6 => f32::from_bits(value as u32).to_string(),
        7 => f64::from_bits(value).to_string(),
        4 => (value != 0).to_string(),
        5 => format!("{:?}", char::from_u32(value as u32).unwrap_or('\u{fffd}')),
        8 => (value as u8).cast_signed().to_string(),
        9 => (value as u16).cast_signed().to_string(),
        10 => (value as u32).cast_signed().to_string(),
        _ => value.cast_signed().to_string(),
    };
    let named = match heap.as_class(node) {
        Some(class) => heap.statics(class),
        None => heap.fields(node),
    };
    for it in named {
        if it.kind == OBJECT || !references_only {
            fields.push((it.name, value(it.kind, it.value)));
        }
    }
    if let Some(Entry::Objects { elements, .. }) = heap.entry(node) {
        let mut bytes = Bytes::new(elements, 0, elements.len(), heap.records.id_bytes);
        let n = elements.len() / heap.records.id_bytes;
        let ids = std::iter::from_fn(|| bytes.id()).take(MAX_FIELDS).enumerate();
        fields.extend(ids.map(|(at, id)| (format!("[{at}]"), shown(heap, id))));
        n_left_out = n.saturating_sub(MAX_FIELDS) as u64;
    } else if let (Some(text), false) = (heap.text(node), references_only) {
        fields.push(("text".to_owned(), format!("{text:?}")));
    }
    let prefix = if heap.as_class(node).is_some() { "class " } else { "" };
    let class = format!("{prefix}{}", heap.class_name(node));
    ObjectView { class, id, shallow_bytes: heap.bytes(node), fields, n_left_out }
}

/// What an identifier stands for.
fn shown(heap: &Heap<'_>, id: u64) -> String {
    if id == 0 {
        return "null".to_owned();
    }
    let Some(node) = heap.node(id) else { return format!("{id:#x} (not in the dump)") };
    let class = heap.class_name(node);
    if heap.as_class(node).is_some() {
        return format!("class {class} {id:#x}");
    }
    match heap.text(node) {
        Some(text) if class == "java.lang.String" => format!("{text:?} {id:#x}"),
        _ => format!("{class} {id:#x}"),
    }
}

/// All threads that ran.
///
/// # Errors
///
/// Where it is no dump.
pub fn threads(dump: &[u8]) -> Result<(DumpFacts, Vec<ThreadView>), NoDump> {
    let (heap, _) = Heap::read(dump)?;
    let mut locals: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for root in &heap.roots {
        if matches!(root.kind, RootKind::JavaFrame | RootKind::JniLocal) {
            let of = locals.entry(root.thread_serial).or_default();
            if of.len() < MAX_LOCALS {
                of.push(root.id);
            }
        }
    }
    let of_thread = heap.roots.iter().filter(|root| root.kind == RootKind::Thread);
    let thread = |root: &super::objects::Root| {
        let node = heap.node(root.id)?;
        let loader = heap.value(node, "contextClassLoader").filter(|&loader| loader != 0);
        let locals = locals.get(&root.thread_serial).into_iter().flatten();
        Some(ThreadView {
            name: heap.thread_name(node),
            class: heap.class_name(node).to_owned(),
            id: root.id,
            context_loader: loader.map(|loader| shown(&heap, loader)),
            frames: heap.frames(root.extra),
            locals: locals.map(|&id| shown(&heap, id)).collect(),
        })
    };
    let threads = of_thread.filter_map(thread).collect();
    Ok((heap.facts, threads))
}

/// The shortest ways from the roots to objects that `is_wanted` by class and identifier, those that are alike as one.
///
/// # Errors
///
/// Where it is no dump.
pub fn paths(
    dump: &[u8],
    wanted_id: Option<u64>,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<(DumpFacts, Vec<PathView>), NoDump> {
    let (heap, edges) = Heap::read(dump)?;
    let starts: Vec<Node> = match wanted_id {
        Some(id) => heap.node(id).into_iter().collect(),
        None => heap.instances(|class| is_wanted(heap.classes.name(class))),
    };
    let reach = Reach::new(&edges, |_, _| true);
    // Alike are ways through objects of classes of the same names.
    let mut alike: BTreeMap<Vec<&str>, (u64, Vec<Node>)> = BTreeMap::new();
    for &start in starts.iter().filter(|&&start| reach.has(start)).take(MAX_STARTS) {
        let path = reach.path(start, MAX_STEPS);
        let classes = path.iter().map(|&node| heap.class_name(node)).collect();
        alike.entry(classes).or_insert((0, path)).0 += 1;
    }
    let mut alike: Vec<(u64, Vec<Node>)> = alike.into_values().collect();
    alike.sort_by_key(|(n, path)| (std::cmp::Reverse(*n), path.len()));
    alike.truncate(MAX_PATHS);
    let view = |(n, path): (u64, Vec<Node>)| {
        let id = path.first().map_or(0, |&root| heap.id(root));
        let kind = heap.roots.iter().filter(|root| root.id == id).map(|root| root.kind).min();
        let begin = path.first().map(|&root| shown(&heap, heap.id(root)));
        let end = path.last().filter(|_| path.len() > 1).map(|&end| shown(&heap, heap.id(end)));
        let edges = path.windows(2).map(|edge| heap.edge_name(edge[0], edge[1]));
        let steps = begin.into_iter().chain(edges).chain(end).collect();
        PathView { n, root: kind.map_or("class", RootKind::name), steps }
    };
    let paths = alike.into_iter().map(view).collect();
    Ok((heap.facts, paths))
}
