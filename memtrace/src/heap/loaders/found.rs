//! Class loaders as they are in the heap: of which application, from where, and whether that still runs.

use rustc_hash::FxHashMap;

use super::super::{
    classes::ClassNumber,
    graph::{Heap, Node},
};

const TOMCAT: &str = "org.apache.catalina.loader.";
const DEVTOOLS: &str = "org.springframework.boot.devtools.restart.classloader.RestartClassLoader";
/// Loaders of which there are many by design, or whose number is that of scripts or pages.
const MANY_BY_DESIGN: [&str; 9] = [
    "DelegatingClassLoader",
    "MethodUtil",
    "JasperLoader",
    "GroovyClassLoader",
    "InnerLoader",
    "ScriptLoader",
    "ByteArrayClassLoader",
    "MemoryClassLoader",
    "Trampoline",
];

/// A class loader.
#[derive(Clone, Debug)]
pub(in crate::heap) struct Loader {
    pub(in crate::heap) node: Node,
    pub(in crate::heap) class: String,
    pub(in crate::heap) parent: Option<Node>,
    pub(in crate::heap) urls: Vec<String>,
    /// Classes that it defined.
    pub(in crate::heap) classes: Vec<ClassNumber>,
    /// What its container says of it.
    pub(in crate::heap) state: Option<String>,
    pub(in crate::heap) application: Option<String>,
    pub(in crate::heap) reloadable: Option<bool>,
    /// Whether it should be gone; `None` where nobody says.
    pub(in crate::heap) is_dead: Option<bool>,
}

/// What a Tomcat says of its applications.
#[derive(Default)]
struct Tomcat {
    applications: FxHashMap<Node, String>,
    /// By path, whether it is reloaded by itself.
    reloadable: FxHashMap<String, bool>,
}

/// All class loaders.
pub(in crate::heap) fn find(heap: &Heap<'_>) -> Vec<Loader> {
    let mut defined: FxHashMap<u64, Vec<ClassNumber>> = FxHashMap::default();
    for number in heap.classes.numbers() {
        let class = heap.classes.get(number);
        if class.loader != 0 && !class.is_array {
            defined.entry(class.loader).or_default().push(number);
        }
    }
    let mut nodes = heap.instances_of("java.lang.ClassLoader");
    nodes.extend(defined.keys().filter_map(|&id| heap.node(id)));
    nodes.sort_unstable();
    nodes.dedup();
    let tomcat = tomcat(heap);
    nodes
        .into_iter()
        .filter(|&node| heap.as_class(node).is_none())
        .map(|node| {
            let classes = defined.remove(&heap.id(node)).unwrap_or_default();
            loader(heap, node, classes, &tomcat)
        })
        .collect()
}

fn loader(heap: &Heap<'_>, node: Node, classes: Vec<ClassNumber>, tomcat: &Tomcat) -> Loader {
    let mut loader = Loader {
        node,
        class: heap.class_name(node).to_owned(),
        parent: heap.reference(node, "parent"),
        urls: urls(heap, node),
        classes,
        state: None,
        application: None,
        reloadable: None,
        is_dead: None,
    };
    if is_tomcat(heap, node) {
        of_tomcat(heap, &mut loader, tomcat);
    } else if loader.class.contains("jetty") && loader.class.ends_with("WebAppClassLoader") {
        of_jetty(heap, &mut loader);
    }
    loader
}

fn is_tomcat(heap: &Heap<'_>, node: Node) -> bool {
    let is = |name: &str| {
        heap.class_of(node)
            .is_some_and(|class| heap.classes.is_a(class, &format!("{TOMCAT}{name}")))
    };
    is("WebappClassLoaderBase") || is("WebappClassLoader")
}

/// `WebappClassLoaderBase` of Tomcat 7 to 12.
fn of_tomcat(heap: &Heap<'_>, loader: &mut Loader, tomcat: &Tomcat) {
    let node = loader.node;
    loader.state = heap.enum_field(node, "state").or_else(|| {
        let started = heap.value(node, "started")?;
        Some(if started == 0 { "STOPPED" } else { "STARTED" }.to_owned())
    });
    let is_dead = |state: &str| {
        matches!(state, "STOPPING" | "STOPPED" | "DESTROYING" | "DESTROYED" | "FAILED")
    };
    loader.is_dead = loader.state.as_deref().map(is_dead);
    let context = heap
        .reference(node, "resources")
        .and_then(|resources| heap.reference(resources, "context"));
    let by_context = |field: &str| context.and_then(|context| heap.text_field(context, field));
    loader.application = tomcat
        .applications
        .get(&node)
        .cloned()
        .or_else(|| by_context("path"))
        .or_else(|| by_context("name"))
        .or_else(|| by_urls(&loader.urls))
        .map(|name| if name.is_empty() { "/".to_owned() } else { name });
    loader.reloadable =
        loader.application.as_ref().and_then(|path| tomcat.reloadable.get(path)).copied();
}

/// The folder of `webapps` that URLs lie in.
fn by_urls(urls: &[String]) -> Option<String> {
    let name = |url: &String| {
        let at = url.find("/WEB-INF/")?;
        Some(format!("/{}", url[..at].rsplit('/').next()?))
    };
    urls.iter().find_map(name)
}

/// `WebAppClassLoader` of Jetty 7 to 12: its context has another loader by now, or none.
fn of_jetty(heap: &Heap<'_>, loader: &mut Loader) {
    let Some(context) = heap.reference(loader.node, "_context") else { return };
    let text = |field: &str| heap.text_field(context, field).filter(|text| !text.is_empty());
    loader.application = text("_contextPath")
        .or_else(|| text("_displayName"))
        .or_else(|| heap.text_field(loader.node, "_name"));
    let current = heap.reference(context, "_classLoader");
    loader.is_dead = Some(current != Some(loader.node));
    loader.state =
        Some(if current == Some(loader.node) { "current" } else { "replaced" }.to_owned());
}

fn urls(heap: &Heap<'_>, node: Node) -> Vec<String> {
    let lists = |node: Node, names: &[&str]| {
        let lists = names.iter().filter_map(|name| heap.reference(node, name));
        lists.map(|list| heap.list(list)).find(|list| !list.is_empty())
    };
    let urls = lists(node, &["localRepositories", "repositoryURLs"]).or_else(|| {
        let path = heap.reference(node, "ucp")?;
        lists(path, &["path", "urls", "unopenedUrls"])
    });
    let mut urls: Vec<String> =
        urls.unwrap_or_default().into_iter().filter_map(|url| heap.url(url)).collect();
    urls.dedup();
    urls
}

/// `StandardHost.childClassLoaders` has the path of every loader, until it is collected.
fn tomcat(heap: &Heap<'_>) -> Tomcat {
    let mut tomcat = Tomcat::default();
    for host in heap.instances_of("org.apache.catalina.core.StandardHost") {
        let map = heap.reference(host, "childClassLoaders");
        let table = map.and_then(|map| heap.reference(map, "table"));
        for mut entry in table.map(|table| heap.list(table)).unwrap_or_default() {
            // Entries of one place of the table; those that lie may be a ring.
            for _ in 0..1024 {
                let names = (heap.reference(entry, "referent"), heap.text_field(entry, "value"));
                if let (Some(loader), Some(name)) = names {
                    tomcat.applications.insert(loader, name);
                }
                let Some(next) = heap.reference(entry, "next") else { break };
                entry = next;
            }
        }
    }
    for context in heap.instances_of("org.apache.catalina.core.StandardContext") {
        let path = heap.text_field(context, "path").or_else(|| heap.text_field(context, "name"));
        if let (Some(path), Some(reloadable)) = (path, heap.value(context, "reloadable")) {
            let path = if path.is_empty() { "/".to_owned() } else { path };
            *tomcat.reloadable.entry(path).or_default() |= reloadable != 0;
        }
    }
    tomcat
}

/// Marks what is there several times, though nobody says which is of use: all but the newest copy of one loader class with
/// the same URLs, or without URLs, with the same classes.
pub(in crate::heap) fn mark_copies(
    heap: &Heap<'_>,
    loaders: &mut [Loader],
    is_alive: impl Fn(Node) -> bool,
) {
    let mut groups: FxHashMap<(String, Vec<String>), Vec<usize>> = FxHashMap::default();
    for (at, loader) in loaders.iter().enumerate() {
        let is_many = MANY_BY_DESIGN.iter().any(|name| loader.class.ends_with(name));
        if loader.is_dead.is_some()
            || is_many
            || loader.classes.is_empty()
            || !is_alive(loader.node)
        {
            continue;
        }
        let key = if loader.urls.is_empty() { names(heap, loader) } else { loader.urls.clone() };
        groups.entry((loader.class.clone(), key)).or_default().push(at);
    }
    for ((class, _), members) in groups.into_iter().filter(|(_, members)| members.len() > 1) {
        let newest = members.iter().copied().max_by_key(|&at| heap.id(loaders[at].node));
        for at in members {
            let is_newest = Some(at) == newest;
            loaders[at].is_dead = Some(!is_newest);
            loaders[at].state = Some(if is_newest { "newest" } else { "superseded" }.to_owned());
            if class == DEVTOOLS {
                loaders[at].application = Some("spring-boot-devtools".to_owned());
            }
        }
    }
}

/// Names of classes, but for hidden ones, where there are enough to tell loaders apart.
fn names(heap: &Heap<'_>, loader: &Loader) -> Vec<String> {
    const FEW: usize = 3;
    let names = loader.classes.iter().map(|&class| heap.classes.name(class));
    let mut names: Vec<String> =
        names.filter(|name| !name.contains("$$")).map(str::to_owned).collect();
    names.sort_unstable();
    if names.len() < FEW { vec![heap.id(loader.node).to_string()] } else { names }
}
