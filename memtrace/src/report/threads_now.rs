//! The stacks of all threads of a process at one moment.
//!
//! In: what was taken of each thread. Out: text as `jstack` writes it, with the native frames; folded stacks; and, in
//! [`json`](super::json), everything for programs. Of each stack it is said how it was taken and how far it goes.

use std::{
    io::{self, BufWriter, Write},
    rc::Rc,
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
    pub frames: Rc<[Rc<Frame>]>,
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

/// Writes a line about the process and a paragraph for each thread, innermost frame first.
///
/// # Errors
///
/// Only those of `out`.
pub fn write_text(now: &ThreadsNow, out: impl Write) -> io::Result<()> {
    let ThreadsNow { target, threads, .. } = now;
    let jvm = target.jvm.as_ref().map(|jvm| format!(", JVM {}", escape::line(&jvm.version)));
    let how = if now.is_frozen { "each was stopped for its copy" } else { "none was stopped" };
    let mut out = BufWriter::new(out);
    writeln!(
        out,
        "process {} ({}{}): {}, {how}",
        target.pid,
        names::clip(&names::command(target), 60),
        jvm.unwrap_or_default(),
        units::things(threads.len() as u64, "thread"),
    )?;
    for thread in threads {
        writeln!(out, "\n{}", about(thread))?;
        for frame in &*thread.frames {
            writeln!(out, "    at {}", names::frame_with_source(frame))?;
        }
    }
    for note in &now.notes {
        writeln!(out, "\nnote: {}", escape::line(note))?;
    }
    out.flush()
}

fn about(thread: &ThreadNow) -> String {
    let ThreadNow { tid, nid, taken, .. } = thread;
    format!(
        "\"{}\" tid={tid} nid={nid:#x} {}, {}",
        escape::line(&escape::decode(&thread.name)),
        taken.word(),
        quality(thread.quality)
    )
}

/// Writes a line for each thread, outermost frame first, as one stack that it has.
///
/// # Errors
///
/// Only those of `out`.
pub fn write_folded(now: &ThreadsNow, out: impl Write) -> io::Result<()> {
    let mut out = BufWriter::new(out);
    for thread in &now.threads {
        out.write_all(names::frame_of_thread(&thread.name, thread.tid).as_bytes())?;
        if thread.taken == Taken::Running {
            out.write_all(b";[running]")?;
        }
        out.write_all(names::how_it_begins(thread.quality).as_bytes())?;
        for frame in thread.frames.iter().rev() {
            write!(out, ";{}", names::folded_frame(frame))?;
        }
        out.write_all(b" 1\n")?;
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
            frames: frames.into_iter().map(Rc::new).collect(),
        };
        let running = ThreadNow {
            tid: 13,
            taken: Taken::Running,
            quality: Quality::Broken,
            frames: Rc::default(),
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
        let mut out = Vec::new();
        write_text(&now(), &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), expected);
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
