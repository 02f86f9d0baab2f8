//! `memtrace heap`: objects, bytes and what is retained, against what the JVM itself counts and what is known of a dump.

use std::collections::BTreeMap;

use memtrace_tests::{
    heap_app::{Row, histogram, jcmd},
    heap_dump::{ClassRow, HeapDump, list, number, text},
    hprof::Format,
    java::{Jdk, all_jdks, system_jdk},
    skip::{runs_all, skip},
    subject::Subject,
};

/// The class of which a dump differs from the JVM's histogram, and from what is made up: mirrors of classes are no objects in
/// a dump, and those of primitive types only in some.
const MIRRORS: &str = "java.lang.Class";

fn jdks() -> Vec<Jdk> {
    if runs_all() { all_jdks() } else { vec![system_jdk()] }
}

/// Objects and bytes of all classes of one name.
fn by_name<'a>(rows: impl Iterator<Item = (&'a str, u64, u64)>) -> BTreeMap<String, (u64, u64)> {
    let mut sums: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (class, n, bytes) in rows {
        let sum = sums.entry(class_name(class)).or_default();
        *sum = (sum.0 + n, sum.1 + bytes);
    }
    sums
}

/// A class's name as Java writes it, without what a hidden class has behind it, which no two tools write alike.
fn class_name(name: &str) -> String {
    let dotted = name.replace('/', ".");
    let element = dotted.trim_start_matches('[');
    let dimensions = dotted.len() - element.len();
    let element = match element {
        "B" => "byte",
        "C" => "char",
        "D" => "double",
        "F" => "float",
        "I" => "int",
        "J" => "long",
        "S" => "short",
        "Z" => "boolean",
        other if dimensions > 0 && other.ends_with(';') => &other[1..other.len() - 1],
        other => other,
    };
    let hidden = element.find("+0x").or_else(|| element.find(".0x"));
    format!("{}{}", &element[..hidden.unwrap_or(element.len())], "[]".repeat(dimensions))
}

fn of_jvm(rows: &[Row]) -> BTreeMap<String, (u64, u64)> {
    by_name(rows.iter().map(|row| (row.class.as_str(), row.instances, row.bytes)))
}

fn of_memtrace(rows: &[ClassRow]) -> BTreeMap<String, (u64, u64)> {
    // A class without objects is in no histogram of the JVM's.
    let rows = rows.iter().filter(|row| row.instances > 0);
    by_name(rows.map(|row| (row.class.as_str(), row.instances, row.shallow_bytes)))
}

/// Of a JVM that does nothing each class has the objects and bytes that the JVM itself counts, right before the dump or
/// right after: to count and to dump allocates, too.
#[test]
fn histogram_is_the_jvms() {
    for jdk in jdks() {
        let mut subject = Subject::ready_java(&jdk, &[], "Retained", &[]);
        subject.finish();
        let what = jdk.home.display();
        let count = || jcmd(subject.pid(), &["GC.class_histogram"]);
        // The first of each loads what it needs itself.
        let dumped = count().and_then(|_| HeapDump::of_process(subject.pid()));
        let Some(((before, dump), after)) =
            dumped.and_then(|_| count().zip(HeapDump::of_process(subject.pid())).zip(count()))
        else {
            skip("heap_sizes::histogram_is_the_jvms", &format!("jcmd does not reach {what}"));
            continue;
        };
        let [before, after] = [before, after].map(|said| of_jvm(&histogram(&said)));
        let found = of_memtrace(&dump.report(&["histogram"]).histogram());
        let classes = before.keys().chain(found.keys()).filter(|class| *class != MIRRORS);
        let wrong: Vec<_> = classes
            .map(|class| (class, before.get(class), found.get(class), after.get(class)))
            .filter(|(_, before, found, after)| found != before && found != after)
            .collect();
        assert!(wrong.is_empty(), "{what}: class, before, found, after: {wrong:#?}");
    }
}

/// What a list, an array with a shared half, a diamond and a weak reference retain.
#[test]
fn retained_by_java_objects() {
    for jdk in jdks() {
        let mut subject = Subject::ready_java(&jdk, &[], "Retained", &[]);
        let said = subject.finish();
        let what = jdk.home.display();
        let pid = subject.pid();
        let counted = jcmd(pid, &["GC.class_histogram"]).zip(HeapDump::of_process(pid));
        let Some((counted, dump)) = counted else {
            skip("heap_sizes::retained_by_java_objects", &format!("jcmd does not reach {what}"));
            continue;
        };
        let sizes = of_jvm(&histogram(&counted));
        let size = |class: &str| {
            let (n, bytes) = sizes[class];
            bytes / n
        };
        let [node, half, bottom] =
            ["Node", "Half", "Bottom"].map(|it| size(&format!("Retained${it}")));
        let (holder, diamond) = (size("Retained$Holder"), size("Retained$Diamond"));
        // Both arrays of nodes are of one size.
        let array = size("Retained$Node[]");
        let (bottoms, watched) = (size("Retained$Bottom[]"), size("Retained$Watched[]"));
        let (keeper, of_keeper) = (size("Retained$Keeper"), size("Retained$Watched") + watched);
        let cases = [
            ("Retained$Holder", holder + array + said.number("nodes_of_holder") * node),
            ("Retained$Diamond", diamond + 2 * half + bottom + bottoms),
            ("Retained$Keeper", keeper + of_keeper),
        ];
        let report = dump.report(&[]);
        for (class, want) in cases {
            let mut dominators = list(report.value(), "dominators").iter();
            let found = dominators.find(|row| text(row, "class") == class);
            let retained = found.and_then(|row| row["retained_bytes"].as_u64());
            assert_eq!(retained, Some(want), "{what}: {class}: {found:?}");
            // What the objects of a class retain together is the same where there is one.
            let mut rows = list(report.value(), "histogram").iter();
            let row = rows.find(|row| text(row, "class") == class).unwrap();
            assert_eq!((number(row, "instances"), number(row, "retained_bytes")), (1, want));
        }
    }
}

/// Of a dump that no JVM wrote everything is known: objects, bytes, references, roots, and what a thread retains by a local
/// variable, which is nearly all, in the layout of each producer.
#[test]
fn made_up() {
    for format in [Format::JDK_17, Format::JDK_5_32_BITS, Format::AGENT_32_BITS] {
        let (dump, truth) = HeapDump::made_up(format, 400_000);
        let report = dump.report(&[]);
        let format = format!("{format:?}");
        assert_eq!(report.total("classes"), truth.n_classes, "{format}");
        assert_eq!(report.total("roots"), truth.n_roots, "{format}");
        let rows = dump.report(&["histogram"]).histogram();
        let mut found = of_memtrace(&rows);
        let mirrors = found.remove(MIRRORS).unwrap_or_default();
        assert_eq!(report.total("objects") - mirrors.0, truth.n_objects, "{format}");
        assert_eq!(report.total("shallow_bytes") - mirrors.1, truth.shallow_bytes, "{format}");
        let known = truth.histogram.iter().filter(|(_, n, _)| *n > 0);
        let known = by_name(known.map(|(class, n, bytes)| (class.as_str(), *n, *bytes)));
        assert_eq!(found, known, "{format}");
        let thread = truth.retained.last().unwrap();
        let id = format!("{:#x}", thread.id);
        let mut dominators = list(report.value(), "dominators").iter();
        let found = dominators.find(|row| text(row, "id") == id).unwrap();
        assert_eq!(number(found, "retained_bytes"), thread.bytes, "{format}: {thread:?}: {found}");
    }
}

/// Names as a JVM's histogram, a dump and Java itself have them are one.
#[test]
fn names_of_classes() {
    let cases = [
        ("[B", "byte[]"),
        ("[[I", "int[][]"),
        ("[Ljava.lang.Object;", "java.lang.Object[]"),
        ("[Ljava/lang/Object;", "java.lang.Object[]"),
        ("java.lang.String", "java.lang.String"),
        ("byte[]", "byte[]"),
        ("Fixture$$Lambda$1/0x0000000800c03000", "Fixture$$Lambda$1"),
        ("Fixture$$Lambda+0x00007f2584099000", "Fixture$$Lambda"),
    ];
    for (name, want) in cases {
        assert_eq!(class_name(name), want, "{name}");
    }
}
