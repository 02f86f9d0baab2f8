//! Recorded stacks: those of a program with a known call tree are resolved again, without a JVM.
//!
//! The capture holds what a trace of the fixture `JavaStacks` read: registers and stack bytes of its events as they lay in
//! the ring buffer, the pieces of the JVM's memory that the walks needed, in the order of the trace, and what was looked
//! up in libraries. The text beside it holds the stacks.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File},
    io::BufReader,
    path::{Path, PathBuf},
};

use memtrace::stacks::{Capture, Frame, New, Quality, Replay, Stack, StackId};
use memtrace_common::Kind;
use memtrace_tests::{java::system_jdk, memtrace::Memtrace, subject::Subject};

const INIT: &str = "java.util.zip.Inflater.<init>";

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stack_captures").join(name)
}

/// The stacks of a capture's events: kind, quality and frames, and how many events have it.
fn stacks(capture: &Capture) -> BTreeMap<(&'static str, String, Vec<String>), usize> {
    let (mut frames, mut stacks, mut counts) = (Vec::new(), Vec::new(), BTreeMap::new());
    Replay::new(capture).run(capture, |event, StackId(id), new| {
        for new in new {
            match new {
                New::Frame(Frame { name, kind, .. }) => frames.push(format!("{name} {kind:?}")),
                New::Stack(stack) => stacks.push(stack),
            }
        }
        let Stack { frames: ids, quality } = &stacks[id as usize];
        let names = ids.iter().map(|id| frames[id.0 as usize].clone()).collect();
        let kind = event.kind.name().unwrap();
        *counts.entry((kind, format!("{quality:?}"), names)).or_default() += 1;
    });
    counts
}

/// How many events there are before one whose stack leads through `function`.
fn n_before(capture: &Capture, function: &str) -> usize {
    let (mut frames, mut n, mut is_there) = (Vec::new(), 0, false);
    Replay::new(capture).run(capture, |_, _, new| {
        frames.extend(new.into_iter().filter_map(|new| match new {
            New::Frame(frame) => Some(format!("{} ", frame.name)),
            New::Stack(_) => None,
        }));
        is_there |= frames.iter().any(|frame| frame == function);
        n += usize::from(!is_there);
    });
    n
}

fn text(capture: &Capture) -> String {
    let mut text = String::new();
    for ((kind, quality, frames), n) in stacks(capture) {
        writeln!(text, "{n} {kind} {quality}").unwrap();
        frames.iter().for_each(|frame| writeln!(text, "    {frame}").unwrap());
    }
    text
}

fn capture() -> Capture {
    Capture::read(BufReader::new(File::open(file("java_stacks")).unwrap())).unwrap()
}

/// Writes the capture anew.
#[test]
#[ignore = "writes the files that the other tests read; needs root, BPF and a JDK"]
fn write_capture() {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("raw");
    let options = ["-XX:+UseSerialGC", "-XX:CICompilerCount=2", "-Xmx64m", "-XX:-UsePerfData"];
    let mut subject = Subject::ready_java(&system_jdk(), &options, "JavaStacks", &[]);
    let arguments = ["--capture", raw.to_str().unwrap()];
    let tracing = Memtrace::of_process(subject.pid()).args(arguments).attached();
    subject.finish();
    tracing.stop();
    assert!(subject.leave().success());
    let capture = Capture::read(BufReader::new(File::open(&raw).unwrap())).unwrap();
    // What comes later is large: classes that come and go.
    let capture = capture.first_events(n_before(&capture, "JavaStacks.unload "));
    fs::create_dir_all(file("")).unwrap();
    capture.write(Box::new(File::create(file("java_stacks")).unwrap())).unwrap();
    fs::write(file("java_stacks.txt"), text(&capture)).unwrap();
}

/// What was resolved once is resolved again.
#[test]
fn replay() {
    let want = fs::read_to_string(file("java_stacks.txt")).unwrap();
    assert_eq!(text(&capture()), want);
}

/// Every stack that opens an Inflater is one of the fixture's, and none is missing.
#[test]
fn call_tree() {
    let stacks = stacks(&capture());
    let mut n_seen = BTreeMap::<Vec<&str>, usize>::new();
    for ((_, quality, frames), n) in
        stacks.iter().filter(|((kind, ..), _)| Some(*kind) == Kind::INFLATER_INIT.name())
    {
        assert_eq!(*quality, format!("{:?}", Quality::Complete), "{frames:#?}");
        let names = frames.iter().rev().map(|frame| frame.split(' ').next().unwrap());
        let is_own = |name: &&str| {
            name.starts_with("JavaStacks") && !name.contains("lambda$") || *name == INIT
        };
        let own: Vec<&str> =
            names.clone().filter(is_own).filter(|name| !name.contains("$$")).collect();
        assert!(names.clone().any(|name| name == "java.lang.Thread.run"), "{frames:#?}");
        *n_seen.entry(own).or_default() += n;
    }
    let path = |between: &[&'static str]| {
        [&["JavaStacks.run"], between, &["JavaStacks.open", INIT]].concat()
    };
    let transition = |shape| path(&["JavaStacks.transition", shape, "JavaStacks.openEach"]);
    // (between a thread's first frame and the Inflater, how often)
    let expected = [
        (path(&["JavaStacks.recurse"; 31]), 1),
        (path(&["JavaStacks$Initialized.<clinit>"]), 0),
        (transition("JavaStacks$Round.visit"), 100),
        (transition("JavaStacks$Square.visit"), 100),
        (path(&["JavaStacks.reflect", "JavaStacks.reflected"]), 30),
    ];
    for (path, n) in expected.iter().filter(|(_, n)| *n > 0) {
        assert_eq!(n_seen.get(path), Some(n), "{path:?} in {n_seen:#?}");
    }
    let others = n_seen.keys().filter(|path| !expected.iter().any(|(known, _)| known == *path));
    for path in others {
        let is_known = path.contains(&"JavaStacks$Initialized.<clinit>")
            || path.ends_with(&["JavaStacks.unload", "JavaStacks.handle", "JavaStacks.open", INIT]);
        assert!(is_known, "{path:?}");
    }
}

/// Nothing in it tells of the machine that it is from.
#[test]
fn private() {
    let capture = capture();
    for path in capture.paths() {
        let is_public = path.starts_with(b"/usr/lib/") || path.starts_with(b"[") || path.is_empty();
        assert!(is_public, "{}", String::from_utf8_lossy(&path));
    }
    for bytes in capture.memory() {
        for private in [&b"/home/"[..], b"/root/", b"/tmp/", b"/var/", b"USER=", b"HOME="] {
            let is_there = bytes.windows(private.len()).any(|window| window == private);
            assert!(!is_there, "{} in {bytes:?}", String::from_utf8_lossy(private));
        }
    }
}

/// A cut capture is refused, wherever it is cut.
#[test]
fn cut() {
    let bytes = fs::read(file("java_stacks")).unwrap();
    for len in (0..bytes.len()).step_by(bytes.len() / 50) {
        assert!(Capture::read(&bytes[..len]).is_err(), "{len}");
    }
}
