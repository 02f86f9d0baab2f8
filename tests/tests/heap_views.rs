//! The views of `memtrace heap` of single things: an object, its references, the ways to it, the threads.

use memtrace_tests::{
    heap_dump::{HeapDump, heap, list, number, text},
    hprof::Format,
    java::system_jdk,
    memtrace::{Memtrace, Outcome},
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

/// With less memory than all takes, less is told of, never more memory taken; and it says so.
#[test]
fn little_memory() {
    let (dump, truth) = HeapDump::made_up(Format::JDK_17, 100_000);
    let with = |max_memory: &str| {
        let arguments = ["--max-memory", max_memory, "--json", "-"];
        let outcome = Memtrace::new().arg("heap").arg(dump.path()).args(arguments).run();
        let report: Value = serde_json::from_str(&outcome.stdout).unwrap();
        (outcome.code(), report, outcome.stderr)
    };
    let (code, all, _) = with("1G");
    assert_eq!(code, Some(0));
    assert!(!list(&all, "dominators").is_empty() && !list(&all, "loaders").is_empty());
    // 42 bytes for each object are needed for all, 32 for who refers to whom.
    let (code, some, said) = with(&(truth.n_objects * 37).to_string());
    assert_eq!((code, some.get("dominators")), (Some(3), None), "{said}");
    assert!(said.contains("too little for what is retained"), "{said}");
    assert_eq!(list(&some, "loaders"), list(&all, "loaders"));
    assert_eq!(some["totals"].get("unreached_objects"), None);
    let (code, least, said) = with("1M");
    assert_eq!((code, least.get("loaders")), (Some(3), None), "{said}");
    assert!(said.contains("too little for anything but a histogram"), "{said}");
    let counts = |report: &Value| -> Vec<(String, u64, u64)> {
        let row = |row: &Value| {
            (text(row, "class").to_owned(), number(row, "instances"), number(row, "shallow_bytes"))
        };
        list(report, "histogram").iter().map(row).collect()
    };
    assert_eq!(counts(&least), counts(&all));
}

/// What the objects of a class retain together is told where it is asked for; what it is, `heap_sizes` knows.
#[test]
fn retained_by_class() {
    let (dump, truth) = HeapDump::made_up(Format::JDK_17, 100_000);
    let report = json(&heap(&["histogram", "--retained"], &dump.path()));
    let rows = list(&report, "histogram");
    for row in rows {
        let (shallow, retained) = (number(row, "shallow_bytes"), number(row, "retained_bytes"));
        assert!((shallow..=truth.shallow_bytes).contains(&retained), "{row}");
    }
    let plain = Memtrace::new().args(["heap", "histogram"]).arg(dump.path()).run();
    let with = Memtrace::new().args(["heap", "histogram", "--retained"]).arg(dump.path()).run();
    assert!(!plain.stdout.contains("retained") && with.stdout.contains("retained"));
    let refused = Memtrace::new().args(["heap", "--retained"]).arg(dump.path()).run();
    assert_eq!(refused.code(), Some(2), "{}", refused.stderr);
}
