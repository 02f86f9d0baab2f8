//! Class loaders that should be gone: whose they are, what keeps them, and what they cost.
//!
//! In: the heap and its edges. Out: each dead loader with its holders, and the same by application. Dead is a loader whose
//! container says so; of containers that say nothing, all but the newest copy.

mod cost;
mod found;
mod groups;
mod holders;

use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    dominators::Edges,
    graph::{Heap, Node},
    reach::Reach,
};
pub(super) use found::{Loader, find};
use groups::Groups;
pub use holders::Holder;

/// Holders that are told of, of each loader.
const MAX_HOLDERS: usize = 20;

/// A class loader that should be gone.
#[derive(Clone, Debug)]
pub struct LeakedLoader {
    /// Its class.
    pub class: String,
    /// Its identifier.
    pub id: u64,
    /// What its container says of it.
    pub state: String,
    /// Whose it was.
    pub application: Option<String>,
    /// Where its classes came from.
    pub urls: Vec<String>,
    /// Whether the container reloads that application by itself.
    pub reloadable: Option<bool>,
    /// How many classes it has defined.
    pub n_classes: u64,
    /// What keeps it.
    pub holders: Vec<Holder>,
    /// Bytes that would go with it.
    pub cost_bytes: u64,
}

/// All of an application's.
#[derive(Clone, Debug)]
pub struct Leak {
    /// Whose they were, or the class of the loaders.
    pub application: String,
    /// How many loaders.
    pub copies: u64,
    /// Bytes that would go with them.
    pub cost_bytes: u64,
    /// Of these, what several keep together.
    pub shared_bytes: u64,
    /// Whether the container reloads that application by itself.
    pub reloadable: Option<bool>,
    /// Where the classes came from.
    pub urls: Vec<String>,
    /// What keeps them.
    pub holders: Vec<Holder>,
    /// What to do about it.
    pub remedy: Vec<String>,
}

/// A class loader, dead or not.
#[derive(Clone, Debug)]
pub struct LoaderRow {
    /// Its class.
    pub class: String,
    /// Its identifier.
    pub id: u64,
    /// How many classes it has defined.
    pub n_classes: u64,
    /// What its container says of it.
    pub state: Option<String>,
    /// Whose it is.
    pub application: Option<String>,
    /// Where its classes came from.
    pub urls: Vec<String>,
}

/// What is said of class loaders.
#[derive(Clone, Debug, Default)]
pub struct LoaderReport {
    /// All that are reached.
    pub all: Vec<LoaderRow>,
    /// Those that should be gone.
    pub leaked: Vec<LeakedLoader>,
    /// These by application, the most bytes first.
    pub leaks: Vec<Leak>,
}

/// Looks for class loaders that should be gone.
pub(super) fn report(heap: &Heap<'_>, edges: &Edges) -> LoaderReport {
    let mut loaders = find(heap);
    let alive = Reach::new(edges, |_, _| true);
    found::mark_copies(heap, &mut loaders, |node| alive.has(node));
    loaders.retain(|loader| alive.has(loader.node));
    drop(alive);
    let all = loaders.iter().map(|loader| row(heap, loader)).collect();
    let groups = Groups::new(heap, &loaders);
    if groups.is_empty() {
        return LoaderReport { all, ..LoaderReport::default() };
    }
    let mut borders: Vec<(u32, Node, Node)> = Vec::new();
    let reach = Reach::new(edges, |from, to| match groups.of(heap, to) {
        None => true,
        Some(group) => {
            borders.push((group, from, to));
            false
        }
    });
    borders.sort_unstable();
    borders.dedup();
    // A thread that runs is held by nothing else, whatever lists it.
    let running: FxHashSet<Node> =
        borders.iter().filter(|(_, from, _)| *from == 0).map(|(_, _, to)| *to).collect();
    borders.retain(|(_, from, to)| *from == 0 || !running.contains(to));
    let mut entries: Vec<(u32, Node)> = borders.iter().map(|&(group, _, to)| (group, to)).collect();
    entries.dedup();
    let costs = cost::costs(heap, edges, &groups, &reach, &entries, loaders.len());
    let leaked: Vec<(u32, LeakedLoader)> = (0..)
        .zip(&loaders)
        .filter(|(_, loader)| loader.is_dead == Some(true))
        .map(|(at, loader)| {
            let of = borders.partition_point(|border| border.0 < at)
                ..borders.partition_point(|border| border.0 <= at);
            let mut leaked = leaked(heap, loader, costs.own[at as usize]);
            leaked.holders = holders_of(heap, &reach, &borders[of]);
            if leaked.holders.is_empty() {
                let kept_by = costs.kept_by.iter().filter(|(kept, _)| *kept == at);
                leaked.holders =
                    kept_by.take(1).map(|&(_, by)| by_other(heap, &loaders[by as usize])).collect();
            }
            (at, leaked)
        })
        .collect();
    let leaks = leaks(&leaked, &costs.shared);
    LoaderReport { all, leaked: leaked.into_iter().map(|(_, leaked)| leaked).collect(), leaks }
}

fn row(heap: &Heap<'_>, loader: &Loader) -> LoaderRow {
    LoaderRow {
        class: loader.class.clone(),
        id: heap.id(loader.node),
        n_classes: loader.classes.len() as u64,
        state: loader.state.clone(),
        application: loader.application.clone(),
        urls: loader.urls.clone(),
    }
}

fn leaked(heap: &Heap<'_>, loader: &Loader, cost_bytes: u64) -> LeakedLoader {
    LeakedLoader {
        class: loader.class.clone(),
        id: heap.id(loader.node),
        state: loader.state.clone().unwrap_or_default(),
        application: loader.application.clone(),
        urls: loader.urls.clone(),
        reloadable: loader.reloadable,
        n_classes: loader.classes.len() as u64,
        holders: Vec::new(),
        cost_bytes,
    }
}

fn by_other(heap: &Heap<'_>, other: &Loader) -> Holder {
    let path = vec![format!("{} {:#x}", other.class, heap.id(other.node))];
    Holder { kind: "leaked_loader", thread: None, path }
}

/// Holders, threads first, then by the length of their ways; one of each kind, thread and way.
fn holders_of(heap: &Heap<'_>, reach: &Reach, borders: &[(u32, Node, Node)]) -> Vec<Holder> {
    /// More would be told of the same few roots.
    const MAX_LOOKED_AT: usize = 2000;
    let mut holders: Vec<Holder> = borders
        .iter()
        .take(MAX_LOOKED_AT)
        .map(|&(_, from, to)| holders::holder(heap, reach, from, to))
        .collect();
    let rank = |holder: &Holder| (holder.thread.is_none(), holder.path.len());
    holders.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.cmp(b)));
    // One thread, or one field, holds a loader in many ways; the shortest tells where to look.
    let mut seen: Vec<(&'static str, Option<String>, Option<String>)> = Vec::new();
    holders.retain(|holder| {
        let first = holder.path.first().filter(|_| holder.thread.is_none());
        let key = (holder.kind, holder.thread.clone(), first.cloned());
        let is_new = !seen.contains(&key);
        if is_new {
            seen.push(key);
        }
        is_new
    });
    holders.truncate(MAX_HOLDERS);
    holders
}

fn leaks(leaked: &[(u32, LeakedLoader)], shared: &[u64]) -> Vec<Leak> {
    let mut by_name: FxHashMap<&str, Leak> = FxHashMap::default();
    for (at, loader) in leaked {
        let name = loader.application.as_deref().unwrap_or(&loader.class);
        let leak = by_name.entry(name).or_insert_with(|| Leak {
            application: name.to_owned(),
            copies: 0,
            cost_bytes: 0,
            shared_bytes: 0,
            reloadable: loader.reloadable,
            urls: loader.urls.clone(),
            holders: Vec::new(),
            remedy: Vec::new(),
        });
        let shared = shared[*at as usize];
        leak.copies += 1;
        leak.cost_bytes += loader.cost_bytes + shared;
        leak.shared_bytes += shared;
        leak.holders.extend(loader.holders.iter().cloned());
    }
    let mut leaks: Vec<Leak> = by_name.into_values().collect();
    for leak in &mut leaks {
        leak.holders.sort();
        leak.holders.dedup();
        let mut remedy: Vec<String> = leak.holders.iter().map(Holder::remedy).collect();
        remedy.sort();
        remedy.dedup();
        if leak.reloadable == Some(true) {
            remedy.push(
                "set reloadable=\"false\": each change of a class reloads the application"
                    .to_owned(),
            );
        }
        leak.remedy = remedy;
    }
    leaks.sort_by(|a, b| (b.cost_bytes, &a.application).cmp(&(a.cost_bytes, &b.application)));
    leaks
}
