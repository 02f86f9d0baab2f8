//! One line a second for someone who watches.
//!
//! In: a recording under way. Out: a line that fits the terminal. What is cut when there is little room is the name of
//! the top thread, then the end of the middle; what was lost stays.

use super::{names, units};
use crate::{
    ledger::{Metric, Sample},
    trace::Recording,
};

/// What is left of a thread's name when the line is narrow; below, the thread is left out.
const MIN_NAME: usize = 8;

/// The state of `recording` in at most `width` characters, and by how much it grew since the sample before.
#[must_use]
pub fn progress(recording: &Recording, width: usize) -> String {
    let head = head(recording);
    let lost = format!("  lost {}", units::count(recording.n_lost()));
    let room = width.saturating_sub(head.chars().count() + lost.chars().count());
    let top = top(recording, room).unwrap_or_default();
    let head = names::clip(&head, width.saturating_sub(lost.chars().count()));
    names::clip(&format!("{head}{top}{lost}"), width)
}

fn head(recording: &Recording) -> String {
    let ledger = &recording.ledger;
    let mut parts = vec![format!("memtrace: {} s", ledger.duration_ns() / 1_000_000_000)];
    if let Some(now) = ledger.rss().last() {
        parts.push(format!("RSS {} MiB{}", mib(now), growth(recording, now)));
    }
    parts.push(format!("mapped {}", units::bytes(ledger.sum(Metric::Mapped))));
    if recording.malloc.is_some() {
        parts.push(format!("malloc {} live", units::bytes(ledger.blocks().live_bytes)));
    }
    let opened = ledger.sum(Metric::Inflaters);
    if opened > 0 {
        let open = units::count(ledger.sum(Metric::InflatersLive));
        parts.push(format!("{} ({open} open)", units::things(opened, "Inflater")));
    }
    parts.join("  ")
}

fn growth(recording: &Recording, now: Sample) -> String {
    let samples = recording.ledger.rss().samples();
    let before = samples.iter().rev().find(|sample| sample.time_ns < now.time_ns);
    let Some(&before) = before else { return String::new() };
    let (now, before) = (mib(now), mib(before));
    if now >= before { format!(" (+{})", now - before) } else { format!(" (-{})", before - now) }
}

fn mib(sample: Sample) -> u64 {
    sample.rss_bytes >> 20
}

/// The thread that mapped the most, `None` if there is none or no room for it.
fn top(recording: &Recording, room: usize) -> Option<String> {
    let (thread, value) = recording.ledger.top_thread(Metric::Mapped)?;
    let share = units::share(value, recording.ledger.sum(Metric::Mapped))?;
    let (before, after) = ("  top: ", format!(" {share}"));
    let room = room.checked_sub(before.len() + after.len())?;
    let name = names::thread(thread);
    (room >= MIN_NAME.min(name.chars().count()))
        .then(|| format!("{before}{}{after}", names::clip(&name, room)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        report::sample::{S, recording, with_blocks, with_hostile_names},
        trace::Record,
    };

    /// `recording`, and a last sample in its tenth second.
    fn at_last(rss_bytes: u64) -> Recording {
        let mut recording = recording();
        recording.apply(Record::Sample(Sample { time_ns: 11 * S, rss_bytes, swap_bytes: 0 }));
        recording
    }

    #[test]
    fn whole() {
        // (resident at last, what the line begins with)
        let cases = [
            (691 << 20, "memtrace: 10 s  RSS 691 MiB (+0)"),
            (782 << 20, "memtrace: 10 s  RSS 782 MiB (+91)"),
            (600 << 20, "memtrace: 10 s  RSS 600 MiB (-91)"),
        ];
        for (rss_bytes, begin) in cases {
            assert_eq!(
                progress(&at_last(rss_bytes), 200),
                format!(
                    "{begin}  mapped 4.1 MiB  5 Inflaters (1 open)  top: mcc-config-scanner 100 %  lost 0"
                )
            );
        }
    }

    /// What is live of malloc's is told where it was measured.
    #[test]
    fn blocks() {
        let line = progress(&with_blocks(), 200);
        assert!(line.contains("  mapped 4.1 MiB  malloc 6.1 MiB live  5 Inflaters"), "{line}");
    }

    #[test]
    fn narrow() {
        let cases = [
            (
                99,
                "memtrace: 8 s  RSS 691 MiB (-9)  mapped 4.1 MiB  5 Inflaters (1 open)  top: mcc-conf… 100 %  lost 0",
            ),
            (93, "memtrace: 8 s  RSS 691 MiB (-9)  mapped 4.1 MiB  5 Inflaters (1 open)  lost 0"),
            (40, "memtrace: 8 s  RSS 691 MiB (-9)…  lost 0"),
            (12, "mem…  lost 0"),
            (5, "  lo…"),
            (0, ""),
        ];
        for (width, expected) in cases {
            let line = progress(&recording(), width);
            assert_eq!(line, expected);
            assert!(line.chars().count() <= width, "{line}");
        }
    }

    #[test]
    fn nothing_yet() {
        let line = progress(&Recording::default(), 80);
        assert_eq!(line, "memtrace: 0 s  mapped 0 B  lost 0");
    }

    #[test]
    fn hostile_names() {
        let line = progress(&with_hostile_names(), 200);
        assert_eq!(
            line,
            r"memtrace: 0 s  mapped 4.0 KiB  top: a;b\n<script>alert(1)</script>\xff 100 %  lost 3"
        );
    }
}
