//! The views of `memtrace heap` of single things: an object, its references, the ways to it, the threads.

use memtrace_tests::{
    heap_dump::{HeapDump, heap, list, number, text},
    hprof::Format,
    java::system_jdk,
    memtrace::Outcome,
    skip::skip,
    subject::Subject,
};
use serde_json::Value;

fn json(outcome: &Outcome) -> Value {
    assert_eq!(outcome.code(), Some(0), "{}", outcome.stderr);
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|e| panic!("{e}: {}", outcome.stdout))
}

/// Threads of a JVM with what they are called, and from one of them to its object, its references and the way to it.
#[test]
fn from_a_thread_on() {
    let mut subject = Subject::ready_java(&system_jdk(), &["-Xmx64m"], "Crowd", &["7"]);
    subject.finish();
    let Some(dump) = HeapDump::of_process(subject.pid()) else {
        return skip("heap_views::from_a_thread_on", "jcmd can't talk to the JVM");
    };
    let view = |words: &[&str]| json(&heap(words, &dump.path()));
    let threads = view(&["threads"]);
    let main = list(&threads, "threads").iter().find(|thread| text(thread, "name") == "main");
    let main = main.unwrap_or_else(|| panic!("no main thread in {threads}"));
    assert_eq!(text(main, "class"), "java.lang.Thread");
    assert!(text(main, "context_loader").contains("AppClassLoader"), "{main}");
    assert!(list(main, "frames").iter().any(|it| it.as_str().unwrap().contains("Crowd.main")));
    assert!(list(&threads, "threads").len() > 7, "{threads}");

    let id = text(main, "id");
    let object = view(&["object", id]);
    let object = &object["object"];
    assert_eq!((text(object, "class"), text(object, "id")), ("java.lang.Thread", id));
    assert!(number(object, "shallow_bytes") > 0, "{object}");
    let field = |of: &Value, name: &str| {
        let mut fields = list(of, "fields").iter().filter(|field| text(field, "name") == name);
        fields.next().map(|field| text(field, "value").to_owned())
    };
    assert!(field(object, "name").is_some_and(|name| name.contains("\"main\"")), "{object}");
    assert!(field(object, "tid").is_some_and(|tid| tid.parse::<u64>().is_ok()), "{object}");

    let references = view(&["refs", id]);
    assert!(field(&references["object"], "name").is_some(), "{references}");
    assert_eq!(field(&references["object"], "tid"), None, "{references}");

    let paths = view(&["paths", id]);
    let [path] = list(&paths, "paths") else { panic!("one way: {paths}") };
    assert_eq!((number(path, "objects"), text(path, "root")), (1, "thread"));
    let of_class = view(&["paths", "java.lang.Thread"]);
    let n: u64 = list(&of_class, "paths").iter().map(|path| number(path, "objects")).sum();
    assert!(n > 7, "{of_class}");
}

/// Of a dump that is cut a view is what can be read, with the status that says so.
#[test]
fn of_a_cut_dump() {
    let (dump, _) = HeapDump::made_up(Format::JDK_17, 100_000);
    let bytes = std::fs::read(dump.path()).unwrap();
    let cut = HeapDump::of_bytes(&bytes[..bytes.len() * 9 / 10]);
    let outcome = heap(&["threads"], &cut.path());
    assert_eq!(outcome.code(), Some(3), "{}", outcome.stderr);
    let threads: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(threads["dump"]["truncated"], true, "{threads}");
}
