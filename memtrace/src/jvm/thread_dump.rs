//! The threads in a JVM's thread dump.
//!
//! The text of `jstack`, of `jcmd PID Thread.print` or of a SIGQUIT goes in, one [`DumpedThread`] a
//! header line comes out, whatever JDK wrote it. Stacks, locks and virtual threads without a
//! carrier are passed over. It performs no I/O and cannot fail: a line that is no header is not one.
//!
//! HotSpot prints names as they are, so a name may hold quotes, line breaks and what looks like the
//! rest of a header. After the name a header has no quote, hence the last one ends the name. A name
//! that holds a whole header on a line of its own cannot be told from a thread.

use std::iter::Peekable;

/// Lines a name may span; HotSpot sets no limit, a reader of hostile text needs one.
const MAX_NAME_LINES: usize = 64;

/// Bytes of a name that are kept.
const MAX_NAME_BYTES: usize = 1024;

/// A thread as a thread dump shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpedThread {
    /// The thread id the kernel gave it, in the innermost pid namespace of the JVM.
    pub nid: u32,
    /// The name as `Thread.getName` gives it, cut after 1024 bytes; may hold any character.
    pub name: String,
    /// `java.lang.Thread.getId` (the `#12`); absent for the VM's own threads, and before JDK 8.
    pub java_id: Option<u64>,
}

/// What a header says after the name.
struct Tail {
    nid: u32,
    java_id: Option<u64>,
}

/// Reads the threads of a thread dump, in its order.
#[must_use]
pub fn parse(dump: &str) -> Vec<DumpedThread> {
    let mut threads = Vec::new();
    let mut lines = dump.lines().peekable();
    while let Some(line) = lines.next() {
        if line.starts_with('"') {
            threads.extend(header(line, &mut lines));
        }
    }
    threads
}

/// Reads a header that starts with `first`, taking from `rest` the lines that its name spans.
fn header<'a>(
    first: &str,
    rest: &mut Peekable<impl Iterator<Item = &'a str>>,
) -> Option<DumpedThread> {
    let mut name = String::new();
    let mut line = first.strip_prefix('"')?;
    for _ in 0..MAX_NAME_LINES {
        if let Some((last_part, tail)) = split_tail(line) {
            push_bounded(&mut name, last_part);
            return Some(DumpedThread { nid: tail.nid, name, java_id: tail.java_id });
        }
        // A line that is a header in itself belongs to the next thread: this one is broken.
        let next = rest.next_if(|next| !is_whole_header(next))?;
        push_bounded(&mut name, line);
        push_bounded(&mut name, "\n");
        line = next;
    }
    None
}

/// Whether `line` holds a header from its first to its last character.
fn is_whole_header(line: &str) -> bool {
    line.strip_prefix('"').is_some_and(|line| split_tail(line).is_some())
}

/// Splits the end of a header into the end of the name and what follows its closing quote.
fn split_tail(line: &str) -> Option<(&str, Tail)> {
    let (name, tail) = line.rsplit_once('"')?;
    Some((name, parse_tail(tail)?))
}

/// Reads ` #12 [4711] daemon prio=5 os_prio=0 … tid=0x… nid=… state`.
fn parse_tail(tail: &str) -> Option<Tail> {
    let mut words = tail.strip_prefix(' ')?.split_ascii_whitespace().peekable();
    let java_id = match words.next_if(|word| word.starts_with('#')) {
        Some(word) => Some(word[1..].parse().ok()?),
        None => None,
    };
    // From JDK 21 on the nid also stands in brackets after the id.
    let bracketed = words.next_if(|word| word.starts_with('['));
    words.next_if_eq(&"daemon");
    // Between the priority and `tid=` each JDK has its own: cpu=, elapsed=, allocated=, …
    words.by_ref().take_while(|word| word.contains('=')).find(|word| word.starts_with("tid=0x"))?;
    let nid = words.next()?.strip_prefix("nid=")?;
    if bracketed.is_some_and(|word| word.trim_matches(['[', ']']) != nid) {
        return None;
    }
    Some(Tail { nid: parse_nid(nid)?, java_id })
}

/// Reads a nid: hexadecimal with `0x` in old JDKs, decimal from JDK 19 on.
fn parse_nid(nid: &str) -> Option<u32> {
    match nid.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => nid.parse().ok(),
    }
}

/// Appends `part` to `name` as far as a name may grow.
fn push_bounded(name: &mut String, part: &str) {
    let room = MAX_NAME_BYTES.saturating_sub(name.len());
    name.push_str(&part[..part.floor_char_boundary(room)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every header form that HotSpot has had gives nid, name and Java id.
    #[test]
    fn headers() {
        // (header, nid, name, Java id)
        let cases: [(&str, u32, &str, Option<u64>); 16] = [
            // JDK 7
            (
                r#""main" prio=10 tid=0x00007f8a48008000 nid=0x176f runnable [0x00007f8a4f0e1000]"#,
                0x176f,
                "main",
                None,
            ),
            // JDK 8
            (
                r#""main" #1 prio=5 os_prio=0 tid=0x00007f2c6800a000 nid=0x1f3a waiting on condition [0x00007f2c6f8f9000]"#,
                0x1f3a,
                "main",
                Some(1),
            ),
            (
                r#""Finalizer" #3 daemon prio=8 os_prio=0 tid=0x00007f2c680e3800 nid=0x3 in Object.wait() [0x00007f2c5c3f2000]"#,
                3,
                "Finalizer",
                Some(3),
            ),
            (
                r#""GC task thread#0 (ParallelGC)" os_prio=0 tid=0x00007f2c6801f800 nid=0x1f3b runnable "#,
                0x1f3b,
                "GC task thread#0 (ParallelGC)",
                None,
            ),
            // JDK 11, plain and with `jstack -e`
            (
                r#""main" #1 prio=5 os_prio=0 cpu=61.09ms elapsed=3.35s tid=0x00007f45b4013000 nid=0xdead waiting on condition  [0x00007f45bd0f8000]"#,
                0xdead,
                "main",
                Some(1),
            ),
            (
                r#""main" #1 prio=5 os_prio=0 cpu=61.09ms elapsed=3.35s allocated=2080K defined_classes=62 tid=0x00007f45b4013000 nid=0x10 runnable  [0x00007f45bd0f8000]"#,
                0x10,
                "main",
                Some(1),
            ),
            // JDK 17
            (
                r#""Common-Cleaner" #11 daemon prio=8 os_prio=0 cpu=0.09ms elapsed=3.25s tid=0x00007fe8c8112c00 nid=0x1780 in Object.wait()  [0x00007fe8a4948000]"#,
                0x1780,
                "Common-Cleaner",
                Some(11),
            ),
            (
                r#""VM Thread" os_prio=0 cpu=0.46ms elapsed=3.29s tid=0x00007fe8c80f44f0 nid=0x1775 runnable  "#,
                0x1775,
                "VM Thread",
                None,
            ),
            // JDK 21, 25, 26
            (
                r#""main" #3 [6188] prio=5 os_prio=0 cpu=32.45ms elapsed=3.42s tid=0x00007fdb6c02a960 nid=6188 waiting on condition  [0x00007fdb709fe000]"#,
                6188,
                "main",
                Some(3),
            ),
            (
                r#""GC Thread#0" os_prio=0 cpu=0.06ms elapsed=3.39s tid=0x00007fdb6c057860 nid=6191 runnable  "#,
                6191,
                "GC Thread#0",
                None,
            ),
            // `jhsdb jstack`
            (
                r#""main" #1 prio=5 tid=0x00007fdb6c02a960 nid=6188 waiting on condition [0x00007fdb709fe000]"#,
                6188,
                "main",
                Some(1),
            ),
            // Names
            (
                r#""with "quotes" inside" #13 daemon prio=5 os_prio=0 tid=0x00007fe8c811aad0 nid=0x1782 runnable"#,
                0x1782,
                r#"with "quotes" inside"#,
                Some(13),
            ),
            (
                r#"""fake" #9 prio=5 tid=0x1 nid=0x99 x" #19 daemon prio=5 os_prio=0 tid=0x00007fe8c8121050 nid=0x1788 runnable"#,
                0x1788,
                r#""fake" #9 prio=5 tid=0x1 nid=0x99 x"#,
                Some(19),
            ),
            (r#""" #20 daemon prio=5 os_prio=0 tid=0x1 nid=0x1789 runnable"#, 0x1789, "", Some(20)),
            (
                "\"gr\u{fc}n \u{65e5}\u{672c} \u{1b}[31m\\\t;\" #17 prio=5 os_prio=0 tid=0x1 nid=0x7 runnable",
                7,
                "gr\u{fc}n \u{65e5}\u{672c} \u{1b}[31m\\\t;",
                Some(17),
            ),
            (
                "\"one\n\n\"two\nthree\" #17 prio=5 os_prio=0 tid=0x1 nid=0x7 runnable",
                7,
                "one\n\n\"two\nthree",
                Some(17),
            ),
        ];
        for (header, nid, name, java_id) in cases {
            let expected = DumpedThread { nid, name: name.to_owned(), java_id };
            assert_eq!(parse(header), [expected], "{header}");
        }
    }

    /// What resembles a header but is not one gives no thread.
    #[test]
    fn not_headers() {
        let cases = [
            "",
            "\"",
            "\"\"",
            "\"main\"",
            "\"main\" #1 prio=5",
            "\"main\" #1 prio=5 tid=0x1",
            "\"main\" #1 prio=5 tid=0x1 nid=",
            "\"main\" #1 prio=5 tid=0x1 nid=0xfffffffff runnable", // more than 32 bits
            "\"main\" #1 prio=5 tid=0x1 nid=-1 runnable",
            "\"main\" #x prio=5 tid=0x1 nid=1 runnable",
            "\"main\" #1 [5] prio=5 tid=0x1 nid=6 runnable", // contradicts itself
            "\"main\" #1 prio=5 nid=6 runnable",
            "\"main\" #1 prio=5 tid=0x1 tid=0x1 nid=6 runnable",
            "\"main\" said tid=0x1 nid=6",
            "  \"main\" #1 prio=5 tid=0x1 nid=6 runnable",
            "\tat java.lang.Thread.run(Thread.java:840)",
        ];
        for dump in cases {
            assert_eq!(parse(dump), [], "{dump}");
        }
    }

    /// A dump is read past its preamble, stacks, broken headers and line ends of either kind.
    #[test]
    fn whole_dump() {
        let dump = "2026-11-22 17:41:16\r\n\
            Full thread dump OpenJDK 64-Bit Server VM (25.0.3+9-LTS mixed mode, sharing):\r\n\r\n\
            \"main\" #3 [61] prio=5 os_prio=0 tid=0x1 nid=61 runnable  [0x1]\r\n   \
            java.lang.Thread.State: RUNNABLE\r\n\tat A.a(A.java:1)\r\n\r\n\
            \"broken\r\n\
            \"scanner\" #12 [64] prio=5 os_prio=0 tid=0x2 nid=64 runnable  [0x1]\r\n   \
            Carrying virtual thread #33\r\n\r\n\
            \"VM Thread\" os_prio=0 tid=0x3 nid=63 runnable  \r\n\r\nJNI global refs: 4\r\n";
        let names: Vec<(u32, String)> =
            parse(dump).into_iter().map(|thread| (thread.nid, thread.name)).collect();
        let expected = [(61, "main"), (64, "scanner"), (63, "VM Thread")];
        assert_eq!(names, expected.map(|(nid, name)| (nid, name.to_owned())));
    }

    /// Neither a name without an end nor an endless one makes the parser work or hold more.
    #[test]
    fn bounded() {
        let endless = format!("\"{}", "line\n".repeat(100_000));
        assert_eq!(parse(&endless), []);
        let long = format!("\"{}\" #1 prio=5 tid=0x1 nid=1 runnable", "\u{e9}".repeat(100_000));
        assert_eq!(parse(&long)[0].name, "\u{e9}".repeat(512));
    }
}
