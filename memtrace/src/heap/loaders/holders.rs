//! What keeps a dead class loader: the thread, the static field or the global reference, and the way from there.

use super::super::{
    graph::{Heap, Node},
    objects::RootKind,
    reach::Reach,
};

/// What is shown of a way.
const MAX_PATH: usize = 24;

/// Something that keeps a class loader.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// `thread`, `timer`, `thread_local`, `shutdown_hook`, `jdbc_driver`, `static` or the kind of root.
    pub kind: &'static str,
    /// The thread, where there is one.
    pub thread: Option<String>,
    /// From the root to the first object that goes with the loader.
    pub path: Vec<String>,
}

impl Holder {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self.kind {
            "thread" => "end the thread when the application stops".to_owned(),
            "timer" => "call Timer.cancel() when the application stops".to_owned(),
            "thread_local" => {
                "call ThreadLocal.remove() before the thread goes back to its pool".to_owned()
            }
            "shutdown_hook" => {
                "call Runtime.removeShutdownHook() when the application stops".to_owned()
            }
            "jdbc_driver" => {
                "call DriverManager.deregisterDriver() when the application stops".to_owned()
            }
            "static" => {
                let field = self.path.first().map_or("the field", String::as_str);
                format!(
                    "take it out of {} when the application stops",
                    field.trim_start_matches("static ")
                )
            }
            _ => "release the reference when the application stops".to_owned(),
        }
    }
}

/// What the edge from `from` to `entry`, which goes with a dead loader, is.
pub(super) fn holder(heap: &Heap<'_>, reach: &Reach, from: Node, entry: Node) -> Holder {
    let mut nodes = reach.path(from, MAX_PATH);
    nodes.push(entry);
    let mut path: Vec<String> = Vec::new();
    let is_thread = |node: Node| {
        heap.class_of(node).is_some_and(|class| heap.classes.is_a(class, "java.lang.Thread"))
    };
    let root = nodes[0];
    let root_kind = root_kind(heap, root);
    if heap.as_class(root).is_none() {
        path.push(describe(heap, root));
    }
    path.extend(nodes.windows(2).map(|edge| heap.edge_name(edge[0], edge[1])));
    if nodes.len() > 1 {
        path.push(describe(heap, entry));
    }
    if from == 0 && is_thread(entry) {
        // It goes with the loader itself: by its context, its class, or what it runs.
        path.push("java.lang.Thread.contextClassLoader".to_owned());
    }
    let is_in = |name: &str| path.iter().any(|step| step.contains(name));
    let kind = if is_in("ApplicationShutdownHooks") {
        "shutdown_hook"
    } else if is_in("java.sql.DriverManager") {
        "jdbc_driver"
    } else if is_in(".threadLocals") || is_in(".inheritableThreadLocals") {
        "thread_local"
    } else if root_kind == Some(RootKind::Thread) {
        let is_timer = heap.class_name(root) == "java.util.TimerThread";
        if is_timer { "timer" } else { "thread" }
    } else if heap.as_class(root).is_some() {
        "static"
    } else {
        root_kind.unwrap_or(RootKind::Unknown).name()
    };
    let thread = nodes.iter().find(|&&node| is_thread(node)).map(|&node| heap.thread_name(node));
    Holder { kind, thread, path }
}

fn describe(heap: &Heap<'_>, node: Node) -> String {
    let class = heap.class_name(node);
    match heap.class_of(node) {
        None => format!("class {class}"),
        Some(number) if heap.classes.is_a(number, "java.lang.Thread") => {
            format!("{class} \"{}\"", heap.thread_name(node))
        }
        Some(_) => class.to_owned(),
    }
}

fn root_kind(heap: &Heap<'_>, root: Node) -> Option<RootKind> {
    let id = heap.id(root);
    heap.roots.iter().filter(|root| root.id == id).map(|root| root.kind).min()
}
