//! Folded stacks: a line a stack, outermost first, and a number.
//!
//! In: a recording and what to count. Out: lines for flame graphs, in the order of their bytes, no two with the same
//! stack. What is counted stands in no line: who asked for it knows.

use std::{
    collections::HashMap,
    io::{self, BufWriter, Write},
};

use super::{
    names,
    room::{LEFT_OUT, Room},
    rows,
};
use crate::{
    ledger::{Metric, StackRow},
    trace::Recording,
};

/// Writes a line for each stack that `metric` counts something at.
///
/// # Errors
///
/// Only those of `out`.
pub fn write(recording: &Recording, metric: Metric, out: impl Write) -> io::Result<()> {
    let mut lines: Vec<_> = stacks(recording, metric).into_iter().map(line).collect();
    lines.sort_unstable();
    let mut out = BufWriter::new(out);
    for line in lines {
        writeln!(out, "{line}")?;
    }
    out.flush()
}

/// A stack and its value.
pub(super) fn line((mut stack, value): (String, u64)) -> String {
    stack.push(' ');
    stack.push_str(&value.to_string());
    stack
}

/// The stacks and their values in no order. Stacks that differ only in what can't be seen are one.
pub(super) fn stacks(recording: &Recording, metric: Metric) -> HashMap<String, u64> {
    stacks_within(recording, metric, Room::new(Room::DEFAULT_BYTES))
}

/// Where there is no room for all, those with the largest values have it.
fn stacks_within(recording: &Recording, metric: Metric, mut room: Room) -> HashMap<String, u64> {
    let mut values: HashMap<String, u64> = HashMap::new();
    for row in rows::by_stack(recording, metric) {
        let stack = if room.take(recording, row.stack) {
            stack(recording, row)
        } else {
            format!("{};{LEFT_OUT}", thread(recording, row))
        };
        let value = values.entry(stack).or_default();
        *value = value.saturating_add(row.value);
    }
    values
}

fn thread(recording: &Recording, row: StackRow) -> String {
    let thread = recording.ledger.threads().get(row.thread as usize);
    thread.map(names::thread_frame).unwrap_or_default()
}

fn stack(recording: &Recording, row: StackRow) -> String {
    let mut text = thread(recording, row);
    text.push_str(names::how_it_begins(recording.quality_of(row.stack)));
    for frame in recording.frames_of(row.stack) {
        text.push(';');
        text.push_str(&names::folded_frame(frame));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::{recording, with_hostile_names};

    fn folded(recording: &Recording, metric: Metric) -> String {
        let mut text = Vec::new();
        write(recording, metric, &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn each_metric() {
        // (metric, what is written)
        let cases = [
            (
                Metric::Mapped,
                "[main tid=100];[broken];mmap 8192\n\
                 [main tid=100];start_thread;libjvm.so+0x1a2b_[?];mmap 4096\n\
                 [mcc-config-scanner tid=104];[java];Inflater_init;calloc;mprotect 4194304\n\
                 [mcc-config-scanner tid=104];[truncated];f;f;f;f;f;f;f;f;f;f;f;f;f;f;mmap 65536\n",
            ),
            (
                Metric::MappedLive,
                "[main tid=100];start_thread;libjvm.so+0x1a2b_[?];mmap 4096\n\
                 [mcc-config-scanner tid=104];[java];Inflater_init;calloc;mprotect 4194304\n\
                 [mcc-config-scanner tid=104];[truncated];f;f;f;f;f;f;f;f;f;f;f;f;f;f;mmap 65536\n",
            ),
            (Metric::Inflaters, "[mcc-config-scanner tid=104];[java];Inflater_init 5\n"),
            (Metric::InflatersLive, "[mcc-config-scanner tid=104];[java];Inflater_init 1\n"),
        ];
        for (metric, expected) in cases {
            assert_eq!(folded(&recording(), metric), expected, "{metric}");
        }
    }

    /// Nothing that a name holds divides frames or lines, or is taken for a value.
    #[test]
    fn hostile_names() {
        assert_eq!(
            folded(&with_hostile_names(), Metric::Mapped),
            concat!(
                r#"[a,b\n<script>alert(1)</script>\xff tid=666];x,y\x1b[31m\n"><script>;"#,
                "end ]]> 12_34 4096\n"
            )
        );
    }

    /// Of one thread's stacks that look the same, one line is left.
    #[test]
    fn equal_stacks_are_one() {
        let mut recording = recording();
        let text = folded(&recording, Metric::Mapped);
        let same = recording.stacks[1].clone();
        recording.stacks.push(same);
        let stack = crate::stacks::StackId(recording.stacks.len() as u32 - 1);
        recording.apply(crate::report::sample::mmap(100, stack, 0x900_0000, 4096));
        assert_eq!(
            folded(&recording, Metric::Mapped),
            text.replace("_[?];mmap 4096", "_[?];mmap 8192")
        );
    }

    /// Where there is no room for all stacks the largest are told, and no value is lost.
    #[test]
    fn no_room() {
        let mut lines: Vec<_> = stacks_within(&recording(), Metric::Mapped, Room::new(60))
            .into_iter()
            .map(line)
            .collect();
        lines.sort_unstable();
        assert_eq!(
            lines,
            [
                "[main tid=100];[broken];mmap 8192",
                "[main tid=100];[left out] 4096",
                "[mcc-config-scanner tid=104];[java];Inflater_init;calloc;mprotect 4194304",
                "[mcc-config-scanner tid=104];[left out] 65536",
            ]
        );
    }

    #[test]
    fn nothing_recorded() {
        assert_eq!(folded(&Recording::default(), Metric::Mapped), "");
    }
}
