//! What a trim or a collection has returned, against what was predicted.

use std::io::{self, Write};

use super::{escape, footprint, names, units};
use crate::{
    trace::Target,
    trials::{Act, Prediction, Trial},
};

/// What will be done to process `pid`, what it costs, and what it is to return; lines for stderr.
#[must_use]
pub fn announcement(act: Act, pid: u32, prediction: Option<&Prediction>) -> String {
    let (command, costs) = (act.command(), act.costs());
    let predicted = match prediction {
        Some(prediction) => format!("predicted to return {}", range(prediction)),
        None => format!("not predicted: {}", why_not(act)),
    };
    format!(
        "memtrace: asking the JVM of process {pid} for {command}: {costs}\nmemtrace: {predicted}\n"
    )
}

/// Writes everything for people.
///
/// # Errors
///
/// Only those of `out`.
pub fn write_text(target: &Target, it: &Trial, out: &mut dyn Write) -> io::Result<()> {
    let command = names::clip(&names::command(target), 60);
    writeln!(out, "process {} ({command})", target.pid)?;
    let took = format!("{:.2} s", it.took.as_secs_f64());
    writeln!(out, "asked for  {}, answered after {took}", it.act.command())?;
    if !it.jvm_says.is_empty() {
        writeln!(out, "JVM says   {}", escape::line(&it.jvm_says))?;
    }
    match &it.prediction {
        Some(prediction) => {
            writeln!(out, "predicted  {}", range(prediction))?;
            writeln!(out, "           {}", prediction.rests_on)?;
        }
        None => writeln!(out, "predicted  nothing: {}", why_not(it.act))?,
    }
    writeln!(out, "returned   {}{}", signed(it.returned_bytes()), verdict(it))?;
    writeln!(out)?;
    let changes =
        footprint::changes(&footprint::by_name(&it.before), &footprint::by_name(&it.after));
    footprint::write_changes(&changes, (it.before.rss_bytes, it.after.rss_bytes), out)
}

/// A range, or the number where it is one.
fn range(prediction: &Prediction) -> String {
    let Prediction { from_bytes, to_bytes, .. } = *prediction;
    if from_bytes == to_bytes {
        return signed(from_bytes);
    }
    format!("{} to {}", signed(from_bytes), signed(to_bytes))
}

fn signed(bytes: i64) -> String {
    let sign = if bytes < 0 { "-" } else { "" };
    format!("{sign}{}", units::bytes(bytes.unsigned_abs()))
}

fn why_not(act: Act) -> &'static str {
    match act {
        Act::Trim => "only the heap of glibc's malloc is known well enough",
        Act::Collect => {
            "no rule is known for this collector and its flags, or its heap can't be read from outside"
        }
    }
}

fn verdict(it: &Trial) -> String {
    let (Some(off), Some(is_as_predicted)) = (it.off_bytes(), it.is_as_predicted()) else {
        return String::new();
    };
    if is_as_predicted {
        return ", as predicted".to_owned();
    }
    let size = units::bytes(off.unsigned_abs());
    let (by, why) = match (off > 0, it.act) {
        (true, Act::Trim) => ("more", "the process freed more meanwhile"),
        (false, Act::Trim) => ("less", "the process went on and used what was free"),
        (true, Act::Collect) => ("more", "less was alive than what was taken to be"),
        (false, Act::Collect) => ("less", "more was alive, or the process went on and allocated"),
    };
    format!(", {size} {by} than predicted: {why}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::footprint::{Footprint, Row, RowKind};

    fn trial(act: Act, kind: RowKind, after_mib: u64) -> Trial {
        let footprint = |mib: u64| Footprint {
            rss_bytes: mib << 20,
            rows: vec![Row { kind, resident_bytes: mib << 20, swap_bytes: 0 }],
            ..Footprint::default()
        };
        let prediction =
            Prediction { from_bytes: -(1 << 20), to_bytes: 60 << 20, rests_on: "rules".into() };
        Trial {
            act,
            prediction: Some(prediction),
            took: Duration::from_millis(120),
            jvm_says: "Trimmed\x1b[2J".into(),
            before: footprint(100),
            after: footprint(after_mib),
        }
    }

    fn target() -> Target {
        Target { pid: 7, command: vec!["java".into()], ..Target::default() }
    }

    /// The whole text; nothing that a terminal would act on passes through.
    #[test]
    fn as_text() {
        let expected = "\
process 7 (java)
asked for  GC.run, answered after 0.12 s
JVM says   Trimmed\\x1b[2J
predicted  -1.0 MiB to 60.0 MiB
           rules
returned   60.0 MiB, as predicted

      change      before       after  what
   -60.0 MiB   100.0 MiB    40.0 MiB  Java heap, used
   -60.0 MiB   100.0 MiB    40.0 MiB  resident in all
";
        let mut out = Vec::new();
        write_text(&target(), &trial(Act::Collect, RowKind::JavaHeapUsed, 40), &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    /// What is off is said, and why that may be.
    #[test]
    fn off() {
        let less = verdict(&trial(Act::Trim, RowKind::MallocLive, 110));
        assert_eq!(
            less,
            ", 9.0 MiB less than predicted: the process went on and used what was free"
        );
        let more = verdict(&trial(Act::Collect, RowKind::JavaHeapUsed, 20));
        assert_eq!(
            more,
            ", 20.0 MiB more than predicted: less was alive than what was taken to be"
        );
    }
}
