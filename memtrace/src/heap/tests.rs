use super::{
    sample::{OBJECT, Writer, leaking},
    *,
};

/// A superseded loader is told of with what holds it and what it costs; the newest and what is held weakly are not.
#[test]
fn leaked_loaders() {
    for id_bytes in [4, 8] {
        let found = Analysis::read(&leaking(id_bytes)).unwrap();
        let leaked = &found.loaders.leaked;
        let ids: Vec<u64> = leaked.iter().map(|loader| loader.id).collect();
        assert_eq!(ids, [0x20_0000, 0x20_0100]);
        let holders: Vec<_> = leaked.iter().map(|loader| &loader.holders[..]).collect();
        assert_eq!((holders[0].len(), holders[1].len()), (1, 1));
        assert_eq!(
            (holders[0][0].kind, holders[0][0].thread.as_deref()),
            ("thread", Some("worker"))
        );
        assert_eq!(holders[1][0].kind, "static");
        assert_eq!(holders[1][0].path, ["static jdk.Registry.kept", "app.A"]);
        let [leak] = &found.loaders.leaks[..] else { panic!("{:?}", found.loaders.leaks) };
        assert_eq!(
            (leak.application.as_str(), leak.copies, leak.shared_bytes),
            ("my.Loader", 2, 0)
        );
        assert_eq!(leak.cost_bytes, leaked.iter().map(|loader| loader.cost_bytes).sum::<u64>());
        let duplicated: Vec<_> =
            found.duplicated.iter().map(|row| (row.class.as_str(), row.n_classes)).collect();
        assert_eq!(duplicated, [("app.A", 4), ("app.B", 4), ("app.C", 4)]);
    }
}

/// What a thread's local variable refers to is retained by the thread.
#[test]
fn locals() {
    let mut writer = Writer::new(8);
    writer.class(OBJECT, "java/lang/Object", (0, 0), &[], &[]);
    writer.class(0x10_0018, "java/lang/Thread", (OBJECT, 0), &[("name", 2)], &[]);
    writer.instance(0x2000, 0x10_0018, &[0]);
    writer.objects(0x2100, OBJECT, &[0x2200, 0x2200, 0x9999]);
    writer.instance(0x2200, OBJECT, &[]);
    writer.thread(0x2000, 1);
    writer.local(0x2100, 1);
    writer.local(0x2200, 9); // of a thread that is not there
    let found = Analysis::read(&writer.finish()).unwrap();
    let dominators = found.dominators.as_deref().unwrap();
    let thread = dominators.iter().find(|it| it.id == 0x2000).unwrap();
    let array = found.histogram.iter().find(|row| row.n == 1 && row.class.ends_with("Thread"));
    assert!(array.is_some());
    assert!(thread.retained_bytes > thread.shallow_bytes, "{thread:?}");
    assert!(dominators.iter().any(|it| it.id == 0x2200));
    assert_eq!((found.totals.n_objects, found.totals.unreached.unwrap().n), (3, 0));
}

/// Sizes follow from addresses, with the header and the width of references that fit.
#[test]
fn sizes() {
    let mut writer = Writer::new(8);
    writer.class(OBJECT, "java/lang/Object", (0, 0), &[], &[]);
    writer.class(0x10_0010, "a/Node", (OBJECT, 0), &[("x", 2), ("y", 2), ("z", 10)], &[]);
    writer.class(0x10_0018, "[La/Node;", (OBJECT, 0), &[], &[]);
    let mut at = 0x1000;
    for n in 0..20_u64 {
        writer.raw_instance(at, 0x10_0010, &[0; 20]);
        writer.bytes(at + 24, &[0; 13]);
        writer.objects(at + 56, 0x10_0018, &vec![0; n as usize]);
        at += 56 + (16 + 4 * n).next_multiple_of(8);
        writer.instance(at, OBJECT, &[]);
        at += 16;
    }
    let found = Histogram::read(&writer.finish()).unwrap();
    let layout = found.facts.layout;
    assert_eq!(
        (layout.header_bytes, layout.array_header_bytes, layout.reference_bytes),
        (12, 16, 4)
    );
    assert!(layout.is_measured);
    let arrays: u64 = (0..20).map(|n| (16 + 4 * n as u64).next_multiple_of(8)).sum();
    let want = [
        ("a.Node[]", 20, arrays),
        ("byte[]", 20, 640),
        ("a.Node", 20, 480),
        ("java.lang.Object", 20, 320),
    ];
    let rows: Vec<_> =
        found.rows.iter().map(|row| (row.class.as_str(), row.n, row.shallow_bytes)).collect();
    assert_eq!(rows, want);
}

/// Asks everything of a dump.
fn ask(dump: &[u8]) {
    let histogram = Histogram::read(dump);
    let analysis = Analysis::read(dump);
    assert_eq!(histogram.is_ok(), analysis.is_ok());
    if let (Ok(histogram), Ok(analysis)) = (histogram, analysis) {
        let mut with_retained = analysis.histogram;
        with_retained.iter_mut().for_each(|row| row.retained_bytes = None);
        assert_eq!(histogram.rows, with_retained);
        let n: u64 = histogram.rows.iter().map(|row| row.n).sum();
        assert_eq!(n, analysis.totals.n_objects);
        for id in [0, OBJECT, 0x20_0000, 0x40_0000, u64::MAX] {
            object(dump, id, false).unwrap();
        }
        threads(dump).unwrap();
        paths(dump, None, |name| name.starts_with("app.")).unwrap();
    }
}

/// Every beginning of a dump is told of as cut, or not as a dump; nothing panics.
#[test]
fn every_beginning() {
    for id_bytes in [4, 8] {
        let dump = leaking(id_bytes);
        for end in 0..dump.len() {
            ask(&dump[..end]);
            if let Ok(found) = Histogram::read(&dump[..end]) {
                assert!(found.facts.is_truncated, "{end} of {}", dump.len());
            }
        }
        assert!(!Histogram::read(&dump).unwrap().facts.is_truncated);
    }
}

/// Dumps that were damaged at random places, by bytes that mean most: nothing panics, and nothing runs on.
#[test]
fn damaged() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % n as u64) as usize
    };
    for round in 0..1000 {
        let mut dump = leaking(if round % 2 == 0 { 4 } else { 8 });
        for _ in 0..1 + random(6) {
            let at = random(dump.len());
            let len = random(9).min(dump.len() - at);
            let byte = [0, 1, 2, 8, 0x1c, 0x20, 0x21, 0x7f, 0xff][random(9)];
            dump[at..at + len].fill(byte);
        }
        ask(&dump);
    }
}

/// What is no dump has one clear line.
#[test]
fn no_dump() {
    for (bytes, want) in [
        (&b""[..], "the file is empty"),
        (b"\x7fELF", "the file is no heap dump: it does not begin with `JAVA PROFILE`"),
        (b"JAVA PROF", "the file ends within the header of a heap dump"),
        (
            b"JAVA PROFILE 1.0.2\0\0\0\0\x07\0\0\0\0\0\0\0\0",
            "the heap dump has identifiers of 7 bytes, and only 4 and 8 are known",
        ),
    ] {
        assert_eq!(Histogram::read(bytes).unwrap_err().to_string(), want);
    }
}

/// Superclasses in a ring, lengths and counts that lie, an object that is told of twice, ids that are all one.
#[test]
fn lies() {
    let mut writer = Writer::new(8);
    writer.class(OBJECT, "java/lang/Object", (0x10_0010, OBJECT), &[("x", 2)], &[]);
    writer.class(0x10_0010, "a/B", (OBJECT, 0x2000), &[("x", 2), ("y", 99)], &[]);
    for _ in 0..3 {
        writer.instance(0x2000, OBJECT, &[0x2000, 1, u64::MAX]);
        writer.instance(u64::MAX, 0x777, &[]);
    }
    writer.root(0x2000);
    ask(&writer.clone().finish());
    // 2^32 - 1 elements that are not there.
    let mut dump = writer.finish();
    dump.extend([0x1c, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    dump.extend([0x22, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    ask(&dump);
    assert!(Histogram::read(&dump).unwrap().facts.is_truncated);
}
