//! The part of the end screen about what the resident bytes consist of.

use super::{Screen, names, stacks, units};
use crate::{
    footprint::{Footprint, Pin},
    report::footprint::{Change, beside, by_name, changes, short_name, table},
    trace::Recording,
};

/// Rows that are named among those that changed the most.
const MAX_CHANGES: usize = 4;
/// Heaps whose highest block is told of.
const MAX_PINS: usize = 2;
/// Where lines go on that are too long.
const INDENT: usize = 14;
/// Columns that a thread's name gets at most.
const NAME: usize = 40;

/// The table of the last look, and what has changed since the first one.
pub(super) fn section(recording: &Recording, screen: &mut Screen) {
    let Some(last) = &recording.footprint else { return };
    let after = units::span(recording.ledger.since_start_ns(last.time_ns));
    screen.heading(&format!("Resident memory after {after}"));
    table(last).iter().for_each(|line| screen.line(line));
    for line in beside(last, 0) {
        let parts: Vec<String> = line.split(", ").map(str::to_owned).collect();
        screen.parts("  ", &parts, ",", INDENT);
    }
    if let Some(first) = &recording.first_footprint {
        screen.parts("  changed     ", &changed(first, last), ",", INDENT);
    }
    for (pin, thread, stack) in pins(recording, last).into_iter().take(MAX_PINS) {
        let Some(thread) = recording.ledger.threads().get(thread as usize) else { continue };
        let (size, by) = (units::bytes(pin.bytes), names::thread_with_id(thread, NAME));
        screen.line(&format!("  arena heap {:#x} can't go before {size} of {by}", pin.heap));
        stacks::frames_of(recording, stack, screen);
    }
    for note in &last.notes {
        screen.text.push_str(&format!("  note: {}\n", super::escape::line(note)));
    }
}

/// The sum, and the rows that changed the most.
fn changed(first: &Footprint, last: &Footprint) -> Vec<String> {
    let mut rows = changes(&by_name(first), &by_name(last));
    rows.retain(|row| row.grown_by() != 0);
    rows.sort_by_key(|row| std::cmp::Reverse(row.grown_by().unsigned_abs()));
    let span = units::span(last.time_ns.saturating_sub(first.time_ns));
    let sum =
        Change { kind: String::new(), before_bytes: first.rss_bytes, after_bytes: last.rss_bytes };
    let n_more = rows.len().saturating_sub(MAX_CHANGES) as u64;
    let mut parts = vec![format!("{} in {span}", sum.signed())];
    let row = |row: &Change| format!("{} {}", row.signed(), short_name(&row.kind));
    parts.extend(rows.iter().take(MAX_CHANGES).map(row));
    parts.extend((n_more > 0).then(|| units::things(n_more, "more row")));
    parts
}

/// Highest blocks of heaps that the trace has seen being handed out, with thread and stack.
fn pins(recording: &Recording, footprint: &Footprint) -> Vec<(Pin, u32, crate::stacks::StackId)> {
    let arenas = footprint.malloc.as_ref().map_or(&[][..], |malloc| &malloc.arenas);
    let pins = arenas.iter().flat_map(|arena| &arena.pinned_by);
    pins.filter_map(|pin| {
        let (thread, stack) = recording.ledger.owner_of_block(recording.target.pid, pin.address)?;
        Some((*pin, thread, stack))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        footprint::{Arena, Malloc, Row, RowKind},
        report::{
            sample::{container, with_blocks},
            text_by,
        },
        trace::Record,
    };

    fn footprint(time_ns: u64, mib: [u64; 6]) -> Record {
        let [used, live, returnable, code, tables, unexplained] = mib.map(|mib| mib << 20);
        let kinds = [
            (RowKind::JavaHeapUsed, used),
            (RowKind::MallocLive, live),
            (RowKind::MallocReturnable, returnable),
            (RowKind::CodeCache, code),
            (RowKind::Gc, tables),
            (RowKind::Unexplained, unexplained),
        ];
        let row = |(kind, resident_bytes)| Row { kind, resident_bytes, swap_bytes: 0 };
        // Blocks of the cleaner's, of nobody's, and of `main`'s.
        let pinned_by =
            [80 << 8, 0x77, 1 << 20].map(|address| Pin { heap: 1 << 26, address, bytes: 48 });
        let arena = Arena { pinned_by: pinned_by.to_vec(), ..Arena::default() };
        Record::Footprint(Box::new(Footprint {
            time_ns,
            rss_bytes: mib.iter().sum::<u64>() << 20,
            rows: kinds.map(row).to_vec(),
            malloc: Some(Malloc { arenas: vec![arena], ..Malloc::default() }),
            container: Some(container()),
            notes: vec!["told\x1b[2J".into()],
            ..Footprint::default()
        }))
    }

    fn printed(recording: &Recording) -> String {
        let text = text_by(recording, crate::ledger::Metric::default(), false);
        let from = text.find("\nResident memory").unwrap_or(text.len());
        text[from..].split("\nThreads by").next().unwrap_or_default().to_owned()
    }

    /// Nothing where nobody looked; of one look the table, of two what changed, and who keeps heaps.
    #[test]
    fn looks() {
        const S: u64 = 1_000_000_000;
        let mut recording = with_blocks();
        assert_eq!(printed(&recording), "");
        recording.apply(footprint(2 * S, [10, 20, 0, 5, 5, 0]));
        assert!(!printed(&recording).contains("changed"), "{}", printed(&recording));
        recording.apply(footprint(3 * S, [10, 20, 0, 5, 5, 0]));
        recording.apply(footprint(9 * S, [60, 30, 40, 4, 6, 2]));
        let expected = "
Resident memory after 8.0 s
    resident   share  what
    60.0 MiB  42.3 %  Java heap, used: objects, live or not collected yet
    30.0 MiB  21.1 %  malloc, in use: blocks that were not freed
    40.0 MiB  28.2 %  malloc, returnable: free whole pages that malloc_trim gives back
     4.0 MiB   2.8 %  code cache: compiled code and the interpreter
     6.0 MiB   4.2 %  garbage collector's tables: mark bitmaps, card tables and the like
     2.0 MiB   1.4 %  unexplained
   142.0 MiB   100 %  resident in all
  malloc      0 B in use, 0 B free; a trim would return 0 B
  container   limit 1.0 GiB, charged 200.0 MiB for all its processes: 90.0 MiB anonymous memory,
              100.0 MiB files and page cache, 10.0 MiB kernel
  changed     +102.0 MiB in 7.0 s, +50.0 MiB Java heap, used, +40.0 MiB malloc, returnable,
              +10.0 MiB malloc, in use, +2.0 MiB unexplained, 2 more rows
  arena heap 0x4000000 can't go before 48 B of Common-Cleaner (105)
      Inflater_init ← [java]
  arena heap 0x4000000 can't go before 48 B of main (100)
      mmap ← libjvm.so+0x1a2b_[?] ← start_thread
  note: told\\x1b[2J
";
        assert_eq!(printed(&recording), expected);
    }
}
