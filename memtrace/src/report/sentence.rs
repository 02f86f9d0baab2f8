//! What findings say, in words.

use super::{escape, names, units};
use crate::{
    findings::{Part, Sentence},
    trace::Recording,
};

/// Columns that a thread's name gets at most.
const NAME: usize = 40;

/// A sentence with its numbers as everywhere, and its names fit to print.
pub(super) fn sentence(recording: &Recording, sentence: &Sentence) -> String {
    sentence.0.iter().map(|it| part(recording, it)).collect()
}

fn part(recording: &Recording, part: &Part) -> String {
    match part {
        Part::Text(text) => text.as_ref().to_owned(),
        Part::Bytes(n) => units::bytes(*n),
        Part::Count(n) => units::count(*n),
        Part::Things(n, name) => units::things(*n, name),
        Part::Share(part, whole) => units::share(*part, *whole).unwrap_or_else(|| "0 %".into()),
        Part::Span(ns) => units::span(*ns),
        Part::Thread(index) => match recording.ledger.threads().get(*index as usize) {
            Some(thread) => names::thread_with_id(thread, NAME),
            None => "a thread".into(),
        },
        Part::Frame(id) => match recording.frames.get(id.0 as usize) {
            Some(frame) => names::frame_with_source(frame),
            None => "?".into(),
        },
        Part::Name(name) => names::clip(escape::line(name).trim(), NAME),
    }
}
