//! The whole report for programs.
//!
//! In: a recording, at its end or under way. Out: one JSON document; sizes are bytes, times seconds, counts whole
//! numbers. What was not measured is absent. Keys may be added within a schema number; a change of meaning changes it.

mod shape;

use std::io::{self, Write};

use super::escape;
use crate::trace::Recording;

/// Writes everything that `recording` says.
///
/// # Errors
///
/// Only those of `out`.
pub fn write(recording: &Recording, mut out: impl Write) -> io::Result<()> {
    let text = serde_json::to_string_pretty(&shape::Report::of(recording))?;
    out.write_all(escaped(text).as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// `json` with an escape for each character that acts on a terminal and that JSON allows as it is. Beyond ASCII there is
/// nothing but strings, so the document means the same.
fn escaped(json: String) -> String {
    let acts = |c: char| c >= '\x7f' && escape::is_unprintable(c);
    if !json.contains(acts) {
        return json;
    }
    let mut text = String::with_capacity(json.len() + 64);
    for c in json.chars() {
        if acts(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests;
