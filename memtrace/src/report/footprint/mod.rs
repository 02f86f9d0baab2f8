//! Where the resident bytes of a process are, as a table.
//!
//! In: a footprint, or two of them. Out: text for people; for programs, in [`json`](super::json), everything.

mod changes;
mod contents;
mod words;

use std::io::{self, Write};

use super::{escape, names, text, units};
use crate::{
    findings,
    footprint::{Arena, Container, Footprint, Row, RowKind},
    trace::{Recording, Target},
};
pub use changes::{Change, changes, write_changes};

/// Arenas that are shown; the others are put together.
const MAX_ARENAS: usize = 5;
/// Columns of the words that lines begin with.
const LABEL: usize = 11;

/// A footprint and whose it is.
#[derive(Clone, Debug, Default)]
pub struct FootprintNow {
    /// The process.
    pub target: Target,
    /// Where its resident bytes are.
    pub footprint: Footprint,
}

/// Writes a line about the process, the table, and what stands beside it.
///
/// # Errors
///
/// Only those of `out`.
pub fn write_text(now: &FootprintNow, out: &mut dyn Write) -> io::Result<()> {
    let FootprintNow { target, footprint } = now;
    let mut about: Vec<String> = Vec::new();
    about.extend(target.jvm.as_ref().map(|jvm| format!("JVM {}", jvm.version).trim().to_owned()));
    about.extend(target.allocator.clone());
    let about: String = about.iter().map(|about| format!(", {}", escape::line(about))).collect();
    let command = names::clip(&names::command(target), 60);
    writeln!(out, "process {} ({command}{about})\n", target.pid)?;
    for line in lines(footprint) {
        writeln!(out, "{line}")?;
    }
    for note in &footprint.notes {
        writeln!(out, "note: {}", escape::line(note))?;
    }
    let recording = Recording { target: target.clone(), ..Recording::default() };
    let found = findings::findings_of(&recording, footprint);
    if !found.is_empty() {
        writeln!(out, "\nFindings\n{}", text::findings::lines(&recording, &found).trim_end())?;
        writeln!(out, "hint: who made it so is told by `memtrace --pid {}`", target.pid)?;
    }
    Ok(())
}

/// The table, and what stands beside it, without the notes.
#[must_use]
pub fn lines(footprint: &Footprint) -> Vec<String> {
    let mut lines = table(footprint);
    let beside = beside(footprint, MAX_ARENAS);
    if !beside.is_empty() {
        lines.push(String::new());
        lines.extend(beside);
    }
    lines
}

/// A line for each row, and one with their sum.
pub(super) fn table(footprint: &Footprint) -> Vec<String> {
    let is_swapped = footprint.swap_bytes > 0;
    let swap = |text: &str| if is_swapped { format!("  {text:>10}") } else { String::new() };
    let mut lines = vec![format!("  {:>10}{}   share  what", "resident", swap("swapped"))];
    for &Row { kind, resident_bytes, swap_bytes } in &footprint.rows {
        let share = share(resident_bytes, footprint.rss_bytes);
        let swapped = if swap_bytes > 0 { units::bytes(swap_bytes) } else { String::new() };
        let row = format!("  {:>10}{}  {share:>6}", units::bytes(resident_bytes), swap(&swapped));
        lines.push(format!("{row}  {}", words::of(kind)));
    }
    let sum = units::bytes(footprint.rss_bytes);
    let kernel = footprint.kernel_rss_bytes;
    let kernel = kernel.map(|rss| format!(" (VmRSS: {})", units::bytes(rss))).unwrap_or_default();
    let swapped = swap(&units::bytes(footprint.swap_bytes));
    lines.push(format!("  {sum:>10}{swapped}   100 %  resident in all{kernel}"));
    lines
}

/// In tenths of a percent.
fn share(part: u64, whole: u64) -> String {
    let tenths = (u128::from(part) * 1000 + u128::from(whole) / 2).checked_div(whole.into());
    let tenths = tenths.unwrap_or(0);
    format!("{}.{} %", tenths / 10, tenths % 10)
}

/// What stands beside the table, with as many arenas one by one and the others together, or none.
pub(super) fn beside(footprint: &Footprint, n_arenas: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut labeled = |label: &str, text: String| lines.push(format!("{label:<LABEL$} {text}"));
    if let Some(heap) = &footprint.java_heap {
        let used = heap.used_bytes.map(|used| format!("{} used, ", units::bytes(used)));
        labeled(
            "Java heap",
            format!(
                "{}: {}{} committed, {} resident",
                escape::line(&heap.collector),
                used.unwrap_or_default(),
                units::bytes(heap.committed_bytes),
                units::bytes(heap.resident_bytes)
            ),
        );
    }
    if let Some(malloc) = &footprint.malloc {
        labeled(
            "malloc",
            format!(
                "{} in use, {} free; a trim would return {}",
                units::bytes(malloc.live_bytes),
                units::bytes(malloc.free_bytes),
                units::bytes(malloc.trim_returns_bytes)
            ),
        );
        let arenas = if n_arenas > 0 { arenas(&malloc.arenas, n_arenas) } else { Vec::new() };
        arenas.into_iter().for_each(|(label, text)| labeled(&label, text));
    }
    if let Some(contents) = &footprint.contents {
        let found = contents::lines(contents);
        found.into_iter().for_each(|(label, text)| labeled(label, text));
    }
    if footprint.hugetlb_bytes > 0 {
        let huge = units::bytes(footprint.hugetlb_bytes);
        labeled("huge pages", format!("{huge} from the pool (hugetlb), no part of RSS"));
    }
    if let Some(container) = &footprint.container {
        labeled("container", self::container(container));
    }
    lines
}

fn arenas(arenas: &[Arena], n: usize) -> Vec<(String, String)> {
    let shown = arenas.iter().take(n);
    let mut lines: Vec<(String, String)> =
        shown.map(|it| ("  arena".to_owned(), arena(it))).collect();
    let others = &arenas[arenas.len().min(n)..];
    if !others.is_empty() {
        let sum = |of: fn(&Arena) -> u64| {
            units::bytes(others.iter().map(of).fold(0, u64::saturating_add))
        };
        let text = format!(
            "{}: {} resident, {} in use, {} returnable",
            units::things(others.len() as u64, "more arena"),
            sum(|arena| arena.resident_bytes),
            sum(|arena| arena.live_bytes),
            sum(|arena| arena.returnable_bytes)
        );
        lines.push((String::new(), text));
    }
    lines
}

fn arena(arena: &Arena) -> String {
    format!(
        "{:#x}: {} resident, {} in use, {} returnable, {}, {}",
        arena.address,
        units::bytes(arena.resident_bytes),
        units::bytes(arena.live_bytes),
        units::bytes(arena.returnable_bytes),
        units::things(arena.n_heaps, "heap"),
        units::things(arena.n_threads, "thread")
    )
}

/// What the kernel charges the container, in words that are the same for both versions.
fn container(container: &Container) -> String {
    let limit = match container.limit_bytes {
        Some(limit) => format!("limit {}", units::bytes(limit)),
        None => "no limit".to_owned(),
    };
    let part = |names: [&str; 2]| {
        container.parts.iter().find(|(name, _)| names.contains(&&**name)).map(|part| part.1)
    };
    let parts = [
        (part(["total_rss", "anon"]), "anonymous memory"),
        (part(["total_cache", "file"]), "files and page cache"),
        (part(["kernel", "kernel"]), "kernel"),
    ];
    let parts: Vec<String> = parts
        .into_iter()
        .filter_map(|(bytes, what)| Some(format!("{} {what}", units::bytes(bytes?))))
        .collect();
    format!(
        "{limit}, charged {} for all its processes: {}",
        units::bytes(container.usage_bytes),
        parts.join(", ")
    )
}

/// The rows of `footprint` as they are named for programs, with a row's resident bytes.
#[must_use]
pub fn by_name(footprint: &Footprint) -> Vec<(String, u64)> {
    let row = |row: &Row| (row.kind.name().to_owned(), row.resident_bytes);
    footprint.rows.iter().map(row).collect()
}

/// What a row is called for people.
pub(super) fn short_row(kind: RowKind) -> &'static str {
    words::short(kind)
}

/// What a row is called for people, by its name for programs; one that is not known is what it is.
pub(super) fn short_name(name: &str) -> String {
    let kind = RowKind::ALL.into_iter().find(|kind| kind.name() == name);
    kind.map_or_else(|| escape::line(name).into_owned(), |kind| words::short(kind).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        footprint::{JavaHeap, Malloc},
        report::sample::container,
    };

    fn now() -> FootprintNow {
        let row = |kind, mib: u64| Row { kind, resident_bytes: mib << 20, swap_bytes: 0 };
        let arena = |n: u64| Arena {
            address: 0x7f00_0000_0000 + (n << 26),
            n_threads: n,
            n_heaps: 1,
            resident_bytes: 4 << 20,
            live_bytes: 1 << 20,
            returnable_bytes: 2 << 20,
            kept_bytes: 0,
            ..Arena::default()
        };
        let footprint = Footprint {
            rss_bytes: 100 << 20,
            kernel_rss_bytes: Some(101 << 20),
            rows: vec![
                row(RowKind::JavaHeapUsed, 60),
                row(RowKind::MallocLive, 39),
                row(RowKind::Unexplained, 1),
            ],
            java_heap: Some(JavaHeap {
                collector: "G1".into(),
                used_bytes: Some(60 << 20),
                committed_bytes: 64 << 20,
                resident_bytes: 60 << 20,
            }),
            malloc: Some(Malloc {
                live_bytes: 7 << 20,
                free_bytes: 30 << 20,
                trim_returns_bytes: 14 << 20,
                arenas: (1..8).map(arena).collect(),
            }),
            container: Some(container()),
            notes: vec!["told\x1b[2J".into()],
            ..Footprint::default()
        };
        let target = Target {
            pid: 11,
            command: vec!["x".into()],
            allocator: Some("glibc 2.36".into()),
            ..Target::default()
        };
        FootprintNow { target, footprint }
    }

    /// The whole text; nothing that a terminal would act on passes through.
    #[test]
    fn as_text() {
        let expected = "\
process 11 (x, glibc 2.36)

    resident   share  what
    60.0 MiB  60.0 %  Java heap, used: objects, live or not collected yet
    39.0 MiB  39.0 %  malloc, in use: blocks that were not freed
     1.0 MiB   1.0 %  unexplained
   100.0 MiB   100 %  resident in all (VmRSS: 101.0 MiB)

Java heap   G1: 60.0 MiB used, 64.0 MiB committed, 60.0 MiB resident
malloc      7.0 MiB in use, 30.0 MiB free; a trim would return 14.0 MiB
  arena     0x7f0004000000: 4.0 MiB resident, 1.0 MiB in use, 2.0 MiB returnable, 1 heap, 1 thread
  arena     0x7f0008000000: 4.0 MiB resident, 1.0 MiB in use, 2.0 MiB returnable, 1 heap, 2 threads
  arena     0x7f000c000000: 4.0 MiB resident, 1.0 MiB in use, 2.0 MiB returnable, 1 heap, 3 threads
  arena     0x7f0010000000: 4.0 MiB resident, 1.0 MiB in use, 2.0 MiB returnable, 1 heap, 4 threads
  arena     0x7f0014000000: 4.0 MiB resident, 1.0 MiB in use, 2.0 MiB returnable, 1 heap, 5 threads
            2 more arenas: 8.0 MiB resident, 2.0 MiB in use, 4.0 MiB returnable
container   limit 1.0 GiB, charged 200.0 MiB for all its processes: 90.0 MiB anonymous memory, \
100.0 MiB files and page cache, 10.0 MiB kernel
note: told\\x1b[2J
";
        let mut out = Vec::new();
        write_text(&now(), &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    /// Swap has a column where there is any.
    #[test]
    fn swapped() {
        let mut now = now();
        now.footprint.swap_bytes = 3 << 20;
        now.footprint.rows[1].swap_bytes = 3 << 20;
        let lines = table(&now.footprint);
        assert_eq!(lines[0], "    resident     swapped   share  what");
        assert!(lines[2].starts_with("    39.0 MiB     3.0 MiB  39.0 %  malloc"), "{lines:#?}");
        assert!(lines[4].starts_with("   100.0 MiB     3.0 MiB   100 %"), "{lines:#?}");
    }

    /// Parts of nothing are nothing.
    #[test]
    fn shares() {
        for (part, whole, want) in
            [(0, 0, "0.0 %"), (1, 3, "33.3 %"), (2, 3, "66.7 %"), (u64::MAX, u64::MAX, "100.0 %")]
        {
            assert_eq!(share(part, whole), want, "{part} of {whole}");
        }
    }
}
