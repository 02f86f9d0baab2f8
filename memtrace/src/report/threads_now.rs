//! The stacks of all threads of a process at one moment.
//!
//! In: what was taken of each thread. Out: text as `jstack` writes it, with the native frames; folded stacks; and, in
//! [`json`](super::json), everything for programs. Of each stack it is said how it was taken and how far it goes.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, BufWriter, Write},
};

use super::{escape, names, units};
use crate::{
    ledger::NameFrom,
    stacks::{Frame, Quality},
    trace::Target,
};

/// What was taken of a process.
#[derive(Clone, Debug, Default)]
pub struct ThreadsNow {
    /// The process.
    pub target: Target,
    /// Whether each thread was stopped for its copy.
    pub is_frozen: bool,
    /// Its threads.
    pub threads: Vec<ThreadNow>,
    /// What else the user should know, a line each.
    pub notes: Vec<String>,
}

/// A thread at one moment.
#[derive(Clone, Debug)]
pub struct ThreadNow {
    /// Its id in the initial pid namespace.
    pub tid: u32,
    /// Its id in its own pid namespace.
    pub nid: u32,
    /// Its name, as bytes that anyone may choose.
    pub name: Vec<u8>,
    /// Where the name is from.
    pub name_from: NameFrom,
    /// How its stack was taken.
    pub taken: Taken,
    /// How far the stack can be trusted.
    pub quality: Quality,
    /// Innermost first.
    pub frames: Vec<Frame>,
}

/// How a stack was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The thread stood still from before its registers were read until after its stack was: all of it belongs together.
    Consistent,
    /// The thread ran: its registers and its stack may be of different moments.
    Running,
}

impl Taken {
    /// In one word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Taken::Consistent => "consistent",
            Taken::Running => "running",
        }
    }
}

/// A quality in one word.
#[must_use]
pub fn quality(quality: Quality) -> &'static str {
    names::quality(quality).unwrap_or("complete")
}

/// A line about the process and a paragraph for each thread, innermost frame first.
#[must_use]
pub fn text(now: &ThreadsNow) -> String {
    let ThreadsNow { target, threads, .. } = now;
    let jvm = target.jvm.as_ref().map(|jvm| format!(", JVM {}", escape::line(&jvm.version)));
    let how = if now.is_frozen { "each was stopped for its copy" } else { "none was stopped" };
    let mut text = format!(
        "process {} ({}{}): {}, {how}\n",
        target.pid,
        names::clip(&names::command(target), 60),
        jvm.unwrap_or_default(),
        units::things(threads.len() as u64, "thread"),
    );
    for thread in threads {
        text.push('\n');
        about(thread, &mut text);
        for frame in &thread.frames {
            text.push_str(&format!("    at {}\n", names::frame_with_source(frame)));
        }
    }
    for note in &now.notes {
        text.push_str(&format!("\nnote: {}\n", escape::line(note)));
    }
    text
}

fn about(thread: &ThreadNow, text: &mut String) {
    let ThreadNow { tid, nid, taken, .. } = thread;
    let line = format!(
        "\"{}\" tid={tid} nid={nid:#x} {}, {}",
        escape::line(&escape::decode(&thread.name)),
        taken.word(),
        quality(thread.quality)
    );
    writeln!(text, "{line}").expect("a String takes every write");
}

/// Writes a line for each distinct stack, outermost frame first, and how many threads have it.
///
/// # Errors
///
/// Only those of `out`.
pub fn write_folded(now: &ThreadsNow, out: impl Write) -> io::Result<()> {
    let mut lines: BTreeMap<String, u64> = BTreeMap::new();
    for thread in &now.threads {
        let mut line = names::frame_of_thread(&thread.name, thread.tid);
        if thread.taken == Taken::Running {
            line.push_str(";[running]");
        }
        line.push_str(names::how_it_begins(thread.quality));
        for frame in thread.frames.iter().rev() {
            line.push(';');
            line.push_str(&names::folded_frame(frame));
        }
        *lines.entry(line).or_default() += 1;
    }
    let mut out = BufWriter::new(out);
    for (line, n) in lines {
        writeln!(out, "{line} {n}")?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stacks::FrameKind;

    fn frame(name: &str, kind: FrameKind, source: Option<(&str, Option<u32>)>) -> Frame {
        let source = source.map(|(file, line)| (file.to_owned(), line));
        Frame { name: name.into(), kind, guess: false, source }
    }

    fn now() -> ThreadsNow {
        let frames = vec![
            frame("read", FrameKind::Native, Some(("libc.so.6", None))),
            frame("libx.so+0x12", FrameKind::Native, Some(("libx.so", None))),
            frame("a.B.read0", FrameKind::JavaNative, Some(("B.java", None))),
            frame("a.B.run", FrameKind::Compiled, Some(("B.java", Some(7)))),
        ];
        let thread = ThreadNow {
            tid: 12,
            nid: 3,
            name: b"a;\n\xff".to_vec(),
            name_from: NameFrom::Vm,
            taken: Taken::Consistent,
            quality: Quality::Complete,
            frames,
        };
        let running = ThreadNow {
            tid: 13,
            taken: Taken::Running,
            quality: Quality::Broken,
            frames: Vec::new(),
            ..thread.clone()
        };
        let target = Target { pid: 11, command: vec!["x".into()], ..Target::default() };
        let notes = vec!["told".into()];
        ThreadsNow { target, is_frozen: false, threads: vec![thread, running], notes }
    }

    #[test]
    fn as_text() {
        let expected = r#"process 11 (x): 2 threads, none was stopped

"a;\n\xff" tid=12 nid=0x3 consistent, complete
    at read (libc.so.6)
    at libx.so+0x12
    at a.B.read0 (Native Method)
    at a.B.run (B.java:7)

"a;\n\xff" tid=13 nid=0x3 running, broken

note: told
"#;
        assert_eq!(text(&now()), expected);
    }

    #[test]
    fn folded() {
        let mut out = Vec::new();
        write_folded(&now(), &mut out).unwrap();
        let expected = "[a,\\n\\xff tid=12];a.B.run_[j];a.B.read0;libx.so+0x12;read 1\n\
                        [a,\\n\\xff tid=13];[running];[broken] 1\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
