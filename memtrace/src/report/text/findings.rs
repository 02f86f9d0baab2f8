//! The first part of the end screen: what is the matter, and what to do about it.

use super::{Screen, stacks, units};
use crate::{
    findings::{Confidence, Finding, Findings, Remedy, Verdict, findings},
    report::sentence::sentence,
    stacks::FrameId,
    trace::Recording,
};

/// Findings that are told in full; of more the title.
const MAX_IN_FULL: usize = 3;
/// Findings that are told of at all, of each kind.
const MAX_FINDINGS: usize = 8;
/// Remedies of a finding that are shown.
const MAX_REMEDIES: usize = 5;
/// Where the text of a line begins.
const INDENT: usize = 14;

/// What is suspicious, then what is large by design.
pub(super) fn section(recording: &Recording, screen: &mut Screen) {
    let Some(Findings { list, doubts }) = findings(recording) else { return };
    screen.heading("Findings");
    let of = |verdict| list.iter().filter(move |it| it.verdict == verdict);
    for (index, finding) in of(Verdict::Suspicious).take(MAX_FINDINGS).enumerate() {
        if index < MAX_IN_FULL {
            in_full(recording, finding, screen);
        } else {
            title(recording, finding, screen);
        }
    }
    let is_clean = of(Verdict::Suspicious).next().is_none();
    if is_clean {
        screen.line("  nothing suspicious");
        for doubt in &doubts {
            row("but", &sentence(recording, doubt), screen);
        }
    }
    let mut large = of(Verdict::ByDesign).take(MAX_FINDINGS).peekable();
    if large.peek().is_some() {
        screen.line("  large, but as it was asked for:");
    }
    for finding in large {
        title(recording, finding, screen);
        finding.evidence.iter().take(1).for_each(|it| row("", &sentence(recording, it), screen));
        finding.remedies.iter().take(1).for_each(|it| remedy(recording, it, screen));
    }
}

/// The findings of a footprint, a line or more each.
pub(in crate::report) fn lines(recording: &Recording, found: &[Finding]) -> String {
    let mut screen = Screen { text: String::new(), colors: false };
    for finding in found {
        in_full(recording, finding, &mut screen);
    }
    screen.text
}

fn title(recording: &Recording, finding: &Finding, screen: &mut Screen) {
    let how = match finding.confidence {
        Confidence::High => "",
        Confidence::Medium => " (likely)",
        Confidence::Low => " (possibly)",
    };
    let title = format!("{}{how}", sentence(recording, &finding.title));
    let bytes = units::bytes(finding.bytes);
    screen.wrapped(&format!("  {bytes:>10}  "), &title, INDENT);
}

fn in_full(recording: &Recording, finding: &Finding, screen: &mut Screen) {
    title(recording, finding, screen);
    for (label, proof) in ["why"].into_iter().chain(std::iter::repeat("")).zip(&finding.evidence) {
        row(label, &sentence(recording, proof), screen);
    }
    if !finding.call.is_empty() {
        let frames = stacks::frames(recording, methods(recording, &finding.call).into_iter().rev());
        screen.parts(&format!("  {:>10}  ", "where"), &frames, " ←", INDENT);
    }
    finding.doubts.iter().for_each(|doubt| row("but", &sentence(recording, doubt), screen));
    finding.remedies.iter().take(MAX_REMEDIES).for_each(|it| remedy(recording, it, screen));
}

/// Methods of a call, or all of its frames where none is a method.
fn methods(recording: &Recording, call: &[FrameId]) -> Vec<FrameId> {
    let is_method = |id: &&FrameId| {
        recording.frames.get(id.0 as usize).is_some_and(|frame| frame.kind.is_method())
    };
    let methods: Vec<FrameId> = call.iter().filter(is_method).copied().collect();
    if methods.is_empty() { call.to_vec() } else { methods }
}

fn remedy(recording: &Recording, remedy: &Remedy, screen: &mut Screen) {
    let Remedy { action, returns, rests_on, compare } = remedy;
    let mut text = sentence(recording, action);
    if let Some(range) = returns {
        let (low, high) = (units::bytes(*range.start()), units::bytes(*range.end()));
        let range = if low == high { high } else { format!("{low} to {high}") };
        text.push_str(&format!(": returns {range}"));
    }
    let rests_on = sentence(recording, rests_on);
    if !rests_on.is_empty() {
        text.push_str(&format!(" ({rests_on})"));
    }
    if let Some(setting) = compare.filter(|_| returns.is_none()) {
        text.push_str(&format!("; measure it with: memtrace compare --with {setting} -- COMMAND"));
    }
    row("do", &text, screen);
}

fn row(label: &str, text: &str, screen: &mut Screen) {
    screen.wrapped(&format!("  {label:>10}  "), text, INDENT);
}
