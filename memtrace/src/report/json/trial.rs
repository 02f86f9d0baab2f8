//! What a trim or a collection has returned, as JSON.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Serializer;

use super::{
    footprint::Footprint,
    layout::Layout,
    shape::{SCHEMA, Target},
};
use crate::{trace, trials};

#[derive(Serialize)]
struct Document<'r> {
    schema: u32,
    memtrace: &'static str,
    target: Target<'r>,
    trial: Trial<'r>,
    before: Footprint<'r>,
    after: Footprint<'r>,
}

#[derive(Serialize)]
struct Trial<'r> {
    what: &'static str,
    command: &'static str,
    seconds: f64,
    jvm_says: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    predicted: Option<Predicted<'r>>,
    returned_bytes: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    as_predicted: Option<bool>,
}

#[derive(Serialize)]
struct Predicted<'r> {
    from_bytes: i64,
    to_bytes: i64,
    rests_on: &'r str,
}

/// Writes everything.
///
/// # Errors
///
/// Only those of `out`.
pub fn write_trial(
    target: &trace::Target,
    it: &trials::Trial,
    mut out: impl Write,
) -> io::Result<()> {
    let predicted = it.prediction.as_ref().map(|prediction| Predicted {
        from_bytes: prediction.from_bytes,
        to_bytes: prediction.to_bytes,
        rests_on: &prediction.rests_on,
    });
    let document = Document {
        schema: SCHEMA,
        memtrace: env!("CARGO_PKG_VERSION"),
        target: Target::of(target),
        trial: Trial {
            what: it.act.name(),
            command: it.act.command(),
            seconds: it.took.as_secs_f64(),
            jvm_says: &it.jvm_says,
            predicted,
            returned_bytes: it.returned_bytes(),
            as_predicted: it.is_as_predicted(),
        },
        before: Footprint::of(&it.before, it.before.time_ns),
        after: Footprint::of(&it.after, it.after.time_ns),
    };
    document.serialize(&mut Serializer::with_formatter(&mut out, Layout::default()))?;
    out.write_all(b"\n")
}
