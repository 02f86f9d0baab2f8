//! The whole report for programs.
//!
//! In: a recording, at its end or under way. Out: one JSON document; sizes are bytes, times seconds, counts whole
//! numbers. What was not measured is absent. Keys may be added within a schema number; a change of meaning changes it.

mod blocks;
mod compare;
mod findings;
mod footprint;
mod heap;
mod heap_views;
mod layout;
mod retained;
mod shape;
mod threads;
mod trial;

use std::io::{self, BufWriter, Write};

use serde::Serialize;
use serde_json::Serializer;

use crate::trace::Recording;
pub use compare::write_comparison;
pub use footprint::{
    NoFootprint, WrittenRows, read_footprint, write_footprint, write_footprint_line,
};
pub use heap::{write_heap, write_heap_histogram};
pub use heap_views::{write_heap_object, write_heap_paths, write_heap_threads};
use layout::Layout;
pub use threads::write_threads;
pub use trial::write_trial;

/// Writes everything that `recording` says, piece by piece: the document may be much larger than the recording.
///
/// # Errors
///
/// Only those of `out`.
pub fn write(recording: &Recording, out: impl Write) -> io::Result<()> {
    let mut out = BufWriter::new(out);
    let mut serializer = Serializer::with_formatter(&mut out, Layout::default());
    shape::Report::of(recording).serialize(&mut serializer)?;
    out.write_all(b"\n")?;
    out.flush()
}

#[cfg(test)]
mod tests;
