//! The part of the end screen about who made resident what malloc holds free.

use super::{Screen, names, stacks, units};
use crate::{
    owners::{Retained, ThreadShare, retained},
    trace::Recording,
};

/// Threads that are named.
const MAX_THREADS: usize = 4;
/// Columns that a thread's name gets at most.
const NAME: usize = 40;
/// Less than this is no matter for the screen.
const MIN_BYTES: u64 = 1 << 20;

/// Threads with what they made resident, and the stack that has most of it.
pub(super) fn section(recording: &Recording, screen: &mut Screen) {
    let Some(retained) = retained(recording).filter(|retained| retained.bytes >= MIN_BYTES) else {
        return;
    };
    let bytes = units::bytes(retained.bytes);
    screen.heading(&format!("Free pages that malloc keeps resident: {bytes}, made resident by"));
    for share in retained.threads.iter().take(MAX_THREADS) {
        thread(recording, &retained, share, screen);
    }
    let others = retained.threads.iter().skip(MAX_THREADS).map(|share| share.bytes);
    let others = others.fold(0, u64::saturating_add);
    let n_others = retained.threads.len().saturating_sub(MAX_THREADS) as u64;
    if n_others > 0 {
        line(&retained, others, "", &units::things(n_others, "more thread"), screen);
    }
    if retained.unknown_bytes > 0 {
        let who = "unknown: before tracing began, or again after being given back";
        line(&retained, retained.unknown_bytes, "", who, screen);
    }
    screen.parts("  ", &how(&retained), ",", 4);
    if let Some(first) = retained.stacks.first() {
        screen.line(&format!("  most at one stack: {}", units::bytes(first.bytes)));
        stacks::frames_of(recording, first.stack, screen);
    }
}

fn thread(recording: &Recording, retained: &Retained, share: &ThreadShare, screen: &mut Screen) {
    let Some(thread) = recording.ledger.threads().get(share.thread as usize) else { return };
    let error = match share.error_bytes {
        0 => String::new(),
        bytes => format!("± {}", units::bytes(bytes)),
    };
    line(retained, share.bytes, &error, &names::thread_with_id(thread, NAME), screen);
}

fn line(retained: &Retained, bytes: u64, error: &str, who: &str, screen: &mut Screen) {
    let share = units::share(bytes, retained.bytes).unwrap_or_default();
    screen.line(&format!("  {:>10} {error:<11} {share:>6}  {who}", units::bytes(bytes)));
}

/// How the numbers came about.
fn how(retained: &Retained) -> Vec<String> {
    let Retained { exact_bytes, estimated_bytes, n_samples, approximate_bytes, .. } = *retained;
    let mut parts = vec![format!("{} by who grew the arena", units::bytes(exact_bytes))];
    if estimated_bytes > 0 {
        let n = units::things(n_samples, "page fault");
        parts.push(format!("{} by {n}", units::bytes(estimated_bytes)));
    }
    if approximate_bytes > 0 {
        let bytes = units::bytes(approximate_bytes);
        parts.push(format!("{bytes} only by who grew the heap last"));
    }
    if retained.shared_bytes > 0 {
        let bytes = units::bytes(retained.shared_bytes);
        parts.push(format!("{bytes} in arenas that threads share"));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        footprint::{Arena, Footprint, FreePages, Malloc},
        ledger::Metric,
        report::{sample::recording, text_by},
        trace::Record,
    };

    /// The arena that the scanner has grown, with a part that nobody is known of.
    fn with_retained() -> Recording {
        let mut recording = recording();
        let free_pages = vec![
            FreePages { start: 1 << 32, bytes: 3 << 20 },
            FreePages { start: 1 << 40, bytes: 1 << 20 },
        ];
        let arena = Arena { returnable_bytes: 4 << 20, free_pages, ..Arena::default() };
        let malloc = Malloc { arenas: vec![arena], ..Malloc::default() };
        let footprint = Footprint { malloc: Some(malloc), ..Footprint::default() };
        recording.apply(Record::Footprint(Box::new(footprint)));
        recording
    }

    #[test]
    fn screen() {
        let text = text_by(&with_retained(), Metric::Retained, false);
        let from = text.find("Free pages that").unwrap();
        let to = text[from..].find("\nThreads by").unwrap();
        let expected = "\
Free pages that malloc keeps resident: 4.0 MiB, made resident by
     3.0 MiB               75 %  mcc-config-scanner (104)
     1.0 MiB               25 %  unknown: before tracing began, or again after being given back
  3.0 MiB by who grew the arena
  most at one stack: 3.0 MiB
      mprotect ← calloc ← Inflater_init ← [java]
";
        assert_eq!(&text[from..from + to], expected, "{text}");
        let said =
            "Stacks by free bytes that malloc keeps resident\n  3.0 MiB (100 %) in 1 call by mcc";
        assert!(text.contains(said), "{text}");
    }

    /// What was not looked at is not nothing.
    #[test]
    fn not_measured() {
        let text = text_by(&recording(), Metric::Retained, false);
        assert!(text.contains("  not measured: the process had ended"), "{text}");
        let mut recording = recording();
        recording.apply(Record::Footprint(Box::default()));
        let text = text_by(&recording, Metric::Retained, false);
        assert!(text.contains("of glibc's malloc only"), "{text}");
    }
}
