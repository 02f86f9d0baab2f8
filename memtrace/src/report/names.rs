//! Threads, frames and commands by the names that every output gives them.
//!
//! Names as the target made them go in, text fit to print comes out; the rules are [`escape`]'s.

use super::escape;
use crate::{
    ledger::{Metric, NameFrom, Thread},
    stacks::{Frame, FrameKind, Quality},
    trace::Target,
};

/// Stands for a name that is empty.
const NO_NAME: &str = "?";

/// A thread's name.
#[must_use]
pub fn thread(thread: &Thread) -> String {
    or_no_name(escape::line(&escape::decode(&thread.name)).trim())
}

/// A thread as the first frame of a stack: `[name tid=N]`.
#[must_use]
pub fn thread_frame(thread: &Thread) -> String {
    frame_of_thread(&thread.name, thread.tid)
}

/// The same, for a thread of this name and id.
#[must_use]
pub fn frame_of_thread(name: &[u8], tid: u32) -> String {
    let name = or_no_name(escape::frame(&escape::decode(name)).trim());
    format!("[{name} tid={tid}]")
}

/// What stands between the thread and the frames of a folded stack: whether some are missing there.
#[must_use]
pub fn how_it_begins(quality: Quality) -> &'static str {
    match quality {
        Quality::Truncated => ";[truncated]",
        Quality::Broken => ";[broken]",
        Quality::Complete | Quality::Approximate => "",
    }
}

/// A thread for people: `name (tid)`, the name in at most `width` characters.
#[must_use]
pub fn thread_with_id(it: &Thread, width: usize) -> String {
    match it.tid {
        0 => thread(it), // stands for many
        tid => format!("{} ({tid})", clip(&thread(it), width)),
    }
}

/// What a metric counts, in words.
#[must_use]
pub fn counted(metric: Metric) -> &'static str {
    match metric {
        Metric::Mapped => "bytes mapped",
        Metric::MappedLive => "bytes mapped and not given back",
        Metric::Inflaters => "Inflaters and Deflaters opened",
        Metric::InflatersLive => "Inflaters and Deflaters not ended",
        Metric::Malloc => "bytes allocated",
        Metric::MallocLive => "bytes allocated and not freed",
        Metric::Retained => "free bytes that malloc keeps resident",
    }
}

/// Where a thread's name is from, as JSON has it.
#[must_use]
pub fn name_from(from: NameFrom) -> &'static str {
    match from {
        NameFrom::Comm => "comm",
        NameFrom::Jstack => "jstack",
        NameFrom::Vm => "vm",
    }
}

/// A frame on a line of its own.
#[must_use]
pub fn frame(frame: &Frame) -> String {
    with_guess(or_no_name(escape::line(&frame.name).trim()), frame)
}

/// A frame for people who want to look it up: `a.B.c (B.java:7)`, `read (libc.so.6)`.
#[must_use]
pub fn frame_with_source(frame: &Frame) -> String {
    let name = or_no_name(escape::line(&frame.name).trim());
    let name = if frame.guess { name + "_[?]" } else { name };
    let place = match (frame.kind, &frame.source) {
        (FrameKind::JavaNative, _) => "Native Method".into(),
        // It stands in the name already where there is no symbol.
        (FrameKind::Native, Some((module, _))) if frame.name.starts_with(module.as_str()) => {
            return name;
        }
        (_, Some((file, Some(line)))) => format!("{}:{line}", escape::line(file)),
        (_, Some((file, None))) => escape::line(file).into_owned(),
        (_, None) => return name,
    };
    format!("{name} ({place})")
}

/// A frame within a folded stack.
///
/// The value stands behind the last blank of a line, and those who read two values take the word before for the other:
/// a name that ends in such a word gets an underscore for the blank.
#[must_use]
pub fn folded_frame(frame: &Frame) -> String {
    let mut name = or_no_name(escape::frame(&frame.name).trim());
    if let Some((before, last)) = name.rsplit_once(char::is_whitespace)
        && last.chars().all(|c| c.is_ascii_digit() || c == '.')
    {
        name = format!("{before}_{last}");
    }
    with_guess(name, frame)
}

/// A quality, `None` for stacks that have nothing to say about it.
#[must_use]
pub fn quality(quality: Quality) -> Option<&'static str> {
    match quality {
        Quality::Complete => None,
        Quality::Approximate => Some("approximate"),
        Quality::Truncated => Some("truncated"),
        Quality::Broken => Some("broken"),
    }
}

/// The command line of a target, in one line.
#[must_use]
pub fn command(target: &Target) -> String {
    escape::line(&target.command.join(" ")).trim().to_owned()
}

/// `text` in at most `width` characters, the last of them `…` where it is cut.
#[must_use]
pub fn clip(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept = text.chars().take(width.saturating_sub(1));
    kept.chain((width > 0).then_some('…')).collect()
}

/// `text` in at most `width` characters, the first of them `…` where it is cut: what counts is its end.
#[must_use]
pub fn clip_start(text: &str, width: usize) -> String {
    let n = text.chars().count();
    if n <= width {
        return text.to_owned();
    }
    let kept = text.chars().skip(n - width.saturating_sub(1));
    (width > 0).then_some('…').into_iter().chain(kept).collect()
}

fn or_no_name(name: &str) -> String {
    if name.is_empty() { NO_NAME } else { name }.to_owned()
}

fn with_guess(name: String, frame: &Frame) -> String {
    if frame.guess { name + "_[?]" } else { name + how_it_ran(frame.kind) }
}

/// How Java code ran, as async-profiler marks it.
fn how_it_ran(kind: FrameKind) -> &'static str {
    match kind {
        FrameKind::Compiled => "_[j]",
        FrameKind::Inlined => "_[i]",
        FrameKind::Interpreted => "_[0]",
        FrameKind::Native | FrameKind::Java | FrameKind::JavaNative | FrameKind::Stub => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &[u8]) -> Thread {
        Thread {
            tgid: 1,
            tid: 7,
            name: name.to_vec(),
            name_from: NameFrom::Comm,
            ended: false,
            n_events: 0,
            mallocs: 0,
            malloc_bytes: 0,
            ignored: 0,
            ignored_bytes: 0,
        }
    }

    #[test]
    fn threads() {
        // (name, alone, as a frame)
        let cases: [(&[u8], &str, &str); 4] = [
            (b"main", "main", "[main tid=7]"),
            (b"", "?", "[? tid=7]"),
            (b"a;b\nc\xff", r"a;b\nc\xff", r"[a,b\nc\xff tid=7]"),
            (b" \x1b[2J ", r"\x1b[2J", r"[\x1b[2J tid=7]"),
        ];
        for (name, alone, as_frame) in cases {
            assert_eq!(thread(&named(name)), alone, "{name:?}");
            assert_eq!(thread_frame(&named(name)), as_frame, "{name:?}");
        }
    }

    #[test]
    fn frames() {
        // (name, guess, on a line, folded)
        let cases = [
            ("operator new(unsigned long)", false, "operator new(unsigned long)", None),
            ("[java]", false, "[java]", None),
            ("f", true, "f_[?]", None),
            ("", false, "?", None),
            ("a;b", false, "a;b", Some("a,b")),
            ("f 12 4.5", false, "f 12 4.5", Some("f 12_4.5")),
            ("f\u{3000}", false, "f", None),
            ("\u{7}", false, r"\x07", None),
        ];
        for (name, guess, on_a_line, folded) in cases {
            let it = Frame { name: name.into(), kind: FrameKind::Native, guess, source: None };
            assert_eq!(frame(&it), on_a_line, "{name:?}");
            assert_eq!(folded_frame(&it), folded.unwrap_or(on_a_line), "{name:?}");
        }
    }

    /// Where a frame is, for those who look it up.
    #[test]
    fn sources() {
        use FrameKind::{Compiled, Interpreted, JavaNative, Native, Stub};
        // (name, kind, file and line, what is shown)
        type Source = Option<(&'static str, Option<u32>)>;
        let cases: [(&str, FrameKind, Source, &str); 7] = [
            ("a.B.c", Compiled, Some(("B.java", Some(7))), "a.B.c (B.java:7)"),
            ("a.B.c", Interpreted, Some(("B\n.java", None)), r"a.B.c (B\n.java)"),
            ("a.B.c", Compiled, None, "a.B.c"),
            ("a.B.c", JavaNative, Some(("B.java", None)), "a.B.c (Native Method)"),
            ("read", Native, Some(("libc.so.6", None)), "read (libc.so.6)"),
            ("libc.so.6+0x12", Native, Some(("libc.so.6", None)), "libc.so.6+0x12"),
            ("[call_stub]", Stub, None, "[call_stub]"),
        ];
        for (name, kind, source, shown) in cases {
            let source = source.map(|(file, line)| (file.to_owned(), line));
            let it = Frame { name: name.into(), kind, guess: false, source };
            assert_eq!(frame_with_source(&it), shown);
        }
    }

    #[test]
    fn clipped() {
        for (width, text) in [(0, ""), (1, "…"), (3, "gr…"), (4, "grün"), (9, "grün")] {
            assert_eq!(clip("grün", width), text);
        }
        for (width, text) in [(0, ""), (1, "…"), (3, "…ün"), (4, "grün"), (9, "grün")] {
            assert_eq!(clip_start("grün", width), text);
        }
    }
}
