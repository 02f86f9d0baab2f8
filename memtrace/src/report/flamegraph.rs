//! The flame graph: folded stacks as an SVG that a browser opens.
//!
//! In: a recording and what to count. Out: one SVG, or nothing at all where there is nothing to draw. It names the
//! command, what its widths mean, how long was traced and what was lost.

use std::io::{self, BufWriter, Write};

use inferno::flamegraph::{Options, Palette, color::MultiPalette, from_lines};

use super::{folded, loss, names, rows, units};
use crate::{
    ledger::{Metric, Unit},
    trace::Recording,
};

/// Characters of a command that the title has room for.
const MAX_COMMAND: usize = 80;

/// Percent of the picture: narrower frames can't be seen, and are the larger part of the file. Folded stacks have them.
const MIN_WIDTH: f64 = 0.05;

/// Why there is no flame graph.
#[derive(Debug, thiserror::Error)]
pub enum FlameGraphError {
    /// Nothing was counted.
    #[error("nothing was recorded that metric {0} counts")]
    Empty(Metric),
    /// Only a damaged trace has so large values.
    #[error("the values of metric {0} add up to more than 64 bits")]
    TooLarge(Metric),
    /// It could not be written.
    #[error(transparent)]
    Write(#[from] io::Error),
}

/// Draws where the values of `metric` are from.
///
/// # Errors
///
/// [`FlameGraphError`]; nothing was written to `out` unless it is [`FlameGraphError::Write`].
pub fn write(
    recording: &Recording,
    metric: Metric,
    out: impl Write,
) -> Result<(), FlameGraphError> {
    let stacks = folded::stacks(recording, metric);
    if stacks.is_empty() {
        return Err(FlameGraphError::Empty(metric));
    }
    let sum: u128 = stacks.values().map(|&value| u128::from(value)).sum();
    if sum > u128::from(u64::MAX / 2) {
        return Err(FlameGraphError::TooLarge(metric));
    }
    let mut stacks: Vec<_> = stacks.into_iter().collect();
    // By frame: in order of the bytes of a line, `f g;h` comes between `f` and `f;h`, and would tear `f` in two.
    stacks.sort_unstable_by(|(a, _), (b, _)| b.split(';').cmp(a.split(';')));
    let lines: Vec<_> = stacks.into_iter().map(folded::line).collect();
    from_lines(
        &mut options(recording, metric),
        lines.iter().map(String::as_str),
        BufWriter::new(out),
    )?;
    Ok(())
}

fn options(recording: &Recording, metric: Metric) -> Options<'static> {
    let mut options = Options::default();
    options.title = title(recording, metric);
    options.subtitle = Some(subtitle(recording, metric));
    options.count_name = metric.unit().to_string();
    options.colors = Palette::Multi(MultiPalette::Java);
    // The same recording, the same picture.
    options.deterministic = true;
    // Means only that lines are drawn from the last to the first, as they are.
    options.flame_chart = true;
    options.min_width = MIN_WIDTH;
    options
}

fn title(recording: &Recording, metric: Metric) -> String {
    let counted = names::counted(metric);
    let command = names::clip(&names::command(&recording.target), MAX_COMMAND);
    if command.is_empty() { counted.to_owned() } else { format!("{command}: {counted}") }
}

fn subtitle(recording: &Recording, metric: Metric) -> String {
    let sum = rows::sum(recording, metric);
    let sum = match metric.unit() {
        Unit::Bytes => units::bytes(sum),
        Unit::Count => units::count(sum),
    };
    let span = units::span(recording.ledger.duration_ns());
    format!("{sum} in {span}, lost: {}", loss::line(recording))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        report::sample::{mmap, recording, with_hostile_names},
        stacks::{Frame, FrameId, FrameKind, Quality, Stack, StackId},
        trace::Record,
    };

    fn svg(recording: &Recording, metric: Metric) -> String {
        let mut svg = Vec::new();
        write(recording, metric, &mut svg).unwrap();
        String::from_utf8(svg).unwrap()
    }

    /// What stands in tags `name`, in order.
    fn texts<'a>(svg: &'a str, name: &str) -> Vec<&'a str> {
        let (open, close) = (format!("<{name}"), format!("</{name}>"));
        let after = svg.split(&open).skip(1);
        after.filter_map(|part| Some(part.split_once('>')?.1.split_once(&close)?.0)).collect()
    }

    #[test]
    fn what_it_says() {
        let svg = svg(&recording(), Metric::Inflaters);
        assert_eq!(
            texts(&svg, "title"),
            [
                "all (5 count, 100%)",
                "[mcc-config-scanner tid=104] (5 count, 100.00%)",
                "[java] (5 count, 100.00%)",
                "Inflater_init (5 count, 100.00%)",
            ]
        );
        let texts = texts(&svg, "text");
        assert_eq!(texts[0], "java -jar app.jar: Inflaters and Deflaters opened");
        assert_eq!(texts[1], "5 in 8.1 s, lost: nothing");
    }

    #[test]
    fn the_same_each_time() {
        let draw = || svg(&recording(), Metric::Mapped);
        assert_eq!(draw(), draw());
    }

    /// A name can end neither the element it stands in nor the document's being well-formed.
    #[test]
    fn hostile_names() {
        let clean = svg(&recording(), Metric::Mapped);
        let svg = svg(&with_hostile_names(), Metric::Mapped);
        assert_eq!(svg.matches("<script").count(), clean.matches("<script").count());
        assert_eq!(svg.matches("<title>").count(), 4);
        assert!(svg.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{svg}");
        assert!(!svg.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\t')));
        assert!(!svg.contains('\u{202e}'));
        assert!(svg.contains("lost: 3 ring\\n_full"), "{svg}");
    }

    /// A function's box is one, whatever other names begin with its own.
    #[test]
    fn boxes_are_whole() {
        let mut recording = Recording::default();
        let frame = |name: &str| Frame {
            name: name.into(),
            kind: FrameKind::Native,
            guess: false,
            source: None,
        };
        for name in ["f", "f g", "h"] {
            recording.apply(Record::Frame(frame(name)));
        }
        for (number, frames) in [&[0][..], &[2, 1], &[2, 0]].into_iter().enumerate() {
            let frames = frames.iter().map(|&frame| FrameId(frame)).collect();
            recording.apply(Record::Stack(Stack { frames, quality: Quality::Complete }));
            recording.apply(mmap(1, StackId(number as u32), (number as u64) << 20, 4096));
        }
        let svg = svg(&recording, Metric::Mapped);
        let boxes: Vec<_> = texts(&svg, "title");
        assert!(boxes.contains(&"f (8,192 bytes, 66.67%)"), "{boxes:?}");
    }

    /// A recording with a stack of one frame for each name.
    fn of_names(names: &[&str]) -> Recording {
        let mut recording = Recording::default();
        for (number, name) in (0_u32..).zip(names) {
            let frame =
                Frame { name: (*name).into(), kind: FrameKind::Native, guess: false, source: None };
            recording.apply(Record::Frame(frame));
            let frames = vec![FrameId(number)];
            recording.apply(Record::Stack(Stack { frames, quality: Quality::Complete }));
            recording.apply(mmap(1, StackId(number), u64::from(number) << 20, 4096));
        }
        recording
    }

    /// Whatever a name looks like to those who parse lines, it is one box of its own size.
    #[test]
    fn odd_names() {
        let names = [
            "a 1",
            "a 1.5 2",
            "a  7",
            "9",
            "# a",
            "-",
            "--",
            "_[k]",
            "é_[j]",
            "_[é]",
            ";;",
            "\u{3000}",
            "a\u{3000}",
            "a b",
            "]]>",
            "&amp;",
            "\u{1f600}\u{1f600}\u{1f600}\u{1f600}",
        ];
        let svg = svg(&of_names(&names), Metric::Mapped);
        let boxes = texts(&svg, "title");
        assert_eq!(boxes.len(), names.len() + 2, "{boxes:?}");
        let share = "(4,096 bytes, 5.88%)";
        assert_eq!(boxes.iter().filter(|name| name.ends_with(share)).count(), names.len());
    }

    #[test]
    fn nothing_to_draw() {
        let mut out = Vec::new();
        let error = write(&Recording::default(), Metric::Inflaters, &mut out).unwrap_err();
        assert_eq!(error.to_string(), "nothing was recorded that metric inflaters counts");
        assert_eq!(out, b"");
    }
}
