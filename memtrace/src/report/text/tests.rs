//! The whole screen, as it is printed.

use super::*;
use crate::{
    ledger::{Allocation, Event, StreamKind, What},
    report::sample::{mmap, recording, with_blocks, with_hostile_names, with_sampled_blocks},
    stacks::{Frame, FrameId, FrameKind, Quality, Stack, StackId},
    trace::Record,
};

fn text(recording: &Recording, colors: bool) -> String {
    text_by(recording, Metric::default(), colors)
}

fn check(text: &str, expected: &str) {
    assert_eq!(text, expected, "\n--- printed ---\n{text}--- expected ---\n{expected}");
    fits(text);
}

fn fits(text: &str) {
    for line in text.lines().filter(|line| !line.starts_with("note: ")) {
        assert!(line.chars().count() <= WIDTH, "{line}");
    }
}

#[test]
fn screen() {
    check(&text(&recording(), false), include_str!("expected.txt"));
}

/// Samples are no calls, and threads have what they counted themselves.
#[test]
fn sampled_blocks() {
    let text = text_by(&with_sampled_blocks(), Metric::Mapped, false);
    assert!(!text.contains("  calls "), "{text}");
    for said in ["7.8 KiB allocated in 5 blocks", "4.9 KiB", "2.9 KiB"] {
        assert!(text.contains(said), "{said}: {text}");
    }
}

/// With the calls of malloc there is more to say.
#[test]
fn blocks() {
    check(&text(&with_blocks(), false), include_str!("expected_blocks.txt"));
}

/// What was not measured is not a list without rows.
#[test]
fn blocks_not_measured() {
    let text = text_by(&recording(), Metric::MallocLive, false);
    let said = "Stacks by bytes allocated and not freed\n  not measured: calls of malloc were not traced\n";
    assert!(text.contains(said), "{text}");
    assert!(!text.contains("malloc    "), "{text}");
}

#[test]
fn hostile_names() {
    let text = text(&with_hostile_names(), false);
    check(&text, include_str!("expected_hostile.txt"));
}

/// The list of stacks counts what was asked for; the rest stays as it is.
#[test]
fn other_metric() {
    let stacks_of = |metric| {
        let text = text_by(&recording(), metric, false);
        let from = text.find("Stacks by").unwrap();
        text[from..text.find("\nRecorded").unwrap()].to_owned()
    };
    assert_eq!(
        stacks_of(Metric::InflatersLive),
        "Stacks by Inflaters and Deflaters not ended\n  1 (100 %) by mcc-config-scanner (104)\n      \
         Inflater_init ← [java]\n"
    );
}

/// Headings are bold, and nothing else is said.
#[test]
fn colors() {
    let plain = text(&recording(), false);
    let bold = text(&recording(), true);
    assert!(bold.contains("\x1b[1mThreads by bytes mapped\x1b[0m\n"));
    assert_eq!(bold.replace("\x1b[1m", "").replace("\x1b[0m", ""), plain);
}

/// Of many threads the foremost are shown, with who opened the most Inflaters; the others are added up.
#[test]
fn many_threads() {
    let mut recording = recording();
    for number in 0..20_u32 {
        let tid = 200 + number;
        let (addr, len) = (u64::from(tid) << 32, u64::from(100 - number) << 20);
        recording.apply(mmap(tid, StackId(1), addr, len));
    }
    for address in 100..110 {
        let what = What::StreamInit { kind: StreamKind::Inflater, address };
        let event = Event { time_ns: 0, tgid: 100, tid: 219, stack: StackId(3), what };
        recording.apply(Record::Event(event));
    }
    let text = text(&recording, false);
    fits(&text);
    let table: Vec<_> = text.lines().skip_while(|line| !line.starts_with("Threads")).collect();
    assert_eq!(table[2], "   100.0 MiB     100.0 MiB          0          0  ? (200)");
    assert_eq!(table[9], "    81.0 MiB      81.0 MiB         10         10  ? (219)");
    assert_eq!(table[10], "     1.0 GiB       1.0 GiB          5          1  14 more threads");
    assert_eq!(table[11], "");
    assert!(text.contains("  1.5 GiB at 21 more stacks\n"), "{text}");
}

/// However many threads, stacks, frames, long names and notes there are, it is one screen.
#[test]
fn one_screen() {
    for (kind, name, most) in [
        (FrameKind::Native, "a_name_as_long_as_that_of_a_template_of_the_standard_library", 52),
        (
            FrameKind::Interpreted,
            "org.springframework.boot.loader.jar.ZipInflaterInputStream.read",
            60,
        ),
    ] {
        for (mut recording, more) in [(recording(), 0), (with_blocks(), 20)] {
            crowd(&mut recording, kind, &name.repeat(4));
            let text = text(&recording, false);
            fits(&text);
            assert!(text.contains("note: 47 more notes in --json\n"), "{text}");
            let n_lines = text.lines().filter(|line| !line.starts_with("note: ")).count();
            assert!(n_lines <= most + more, "{n_lines}\n{text}");
        }
    }
}

/// Adds more of everything than a screen has room for.
fn crowd(recording: &mut Recording, kind: FrameKind, name: &str) {
    let n_frames = recording.frames.len() as u32;
    recording.apply(Record::Frame(Frame {
        name: name.to_owned(),
        kind,
        guess: false,
        source: None,
    }));
    recording.apply(Record::Frame(Frame {
        name: "native".to_owned(),
        kind: FrameKind::Native,
        guess: false,
        source: None,
    }));
    let n_stacks = recording.stacks.len() as u32;
    for number in 0..50_u32 {
        let mut frames = vec![FrameId(n_frames); 100];
        frames.resize(110, FrameId(n_frames + 1));
        recording.apply(Record::Stack(Stack { frames, quality: Quality::Complete }));
        let tid = 200 + number;
        recording.apply(mmap(tid, StackId(n_stacks + number), u64::from(tid) << 32, 1 << 30));
        let what = What::StreamInit { kind: StreamKind::Inflater, address: u64::from(tid) };
        let event = Event { time_ns: 0, tgid: 100, tid, stack: StackId(3), what };
        recording.apply(Record::Event(event));
        if recording.malloc.is_some() {
            let what =
                What::Alloc { by: Allocation::Malloc, addr: u64::from(tid) << 8, size: 1 << 40 };
            let stack = StackId(n_stacks + number);
            recording.apply(Record::Event(Event { time_ns: 0, stack, what, ..event }));
        }
        recording.apply(Record::Note(format!("note {number}")));
    }
}

/// What doesn't fit goes to another line, and nothing of it is cut.
#[test]
fn long_lines() {
    let mut recording = recording();
    recording.losses = (0..12).map(|n| (format!("a_long_name_{n}"), 1_000_000)).collect();
    recording.target.command = vec!["x".repeat(500)];
    let text = text(&recording, false);
    fits(&text);
    assert!(text.starts_with("xxxx") && text.contains("x… (pid 100, JVM 17.0.15+6, glibc 2.36)\n"));
    for n in 0..12 {
        assert!(text.contains(&format!("1,000,000 a_long_name_{n}")), "{text}");
    }
    assert!(text.contains("\n            1,000,000 a_long_name_3,"), "{text}");
}

/// Before anything happened there is a screen too.
#[test]
fn nothing_yet() {
    check(
        &text(&Recording::default(), false),
        " (pid 0)\ntraced for 0.0 s so far\n\nMemory\n  mapped    0 B, 0 B of it still mapped\n\n\
         Recorded\n  lost      nothing\n  stacks    0 complete, 0 approximate, 0 truncated, 0 broken\n",
    );
}
