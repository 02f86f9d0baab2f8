//! `made-up-heap FILE OBJECTS [SEED]`: writes a heap dump of which everything is known, and prints what that is.
//!
//! In: how many objects. Out: the dump in FILE, and one JSON object on stdout.

use std::{env, error::Error, fs::File, io::BufWriter};

use memtrace_tests::hprof::{Format, Heap, Truth, populate};
use serde_json::{Value, json};

/// What the seed is unless one is given.
const SEED: u64 = 8;

#[expect(clippy::print_stdout, reason = "the result")]
fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [file, objects, seed @ ..] = &arguments[..] else {
        return Err("usage: made-up-heap FILE OBJECTS [SEED]".into());
    };
    let seed = seed.first().map_or(Ok(SEED), |seed| seed.parse())?;
    let file = BufWriter::with_capacity(1 << 20, File::create(file)?);
    let heap = Heap::new(file, Format::JDK_17, seed)?;
    println!("{}", json(&populate(heap, objects.parse()?)?, seed));
    Ok(())
}

fn json(truth: &Truth, seed: u64) -> Value {
    let retained = truth.retained.iter().map(|object| {
        json!({"id": format!("{:#x}", object.id), "class": object.class, "retained_bytes": object.bytes})
    });
    let histogram = truth
        .histogram
        .iter()
        .map(|(class, n, bytes)| json!({"class": class, "instances": n, "shallow_bytes": bytes}));
    json!({
        "seed": seed, "file_bytes": truth.file_bytes, "objects": truth.n_objects,
        "classes": truth.n_classes, "references": truth.n_references,
        "shallow_bytes": truth.shallow_bytes, "roots": truth.n_roots,
        "retained": retained.collect::<Vec<_>>(), "histogram": histogram.collect::<Vec<_>>(),
    })
}
