//! What resolving stacks takes, as text.
//!
//! In: what `memtrace __replay` measured. Out: the table, with each bar as met or missed. Computes shares and rates only.

use std::fmt::Write;

use anyhow::Context;
use serde_json::Value;

use super::statistics::median;

/// Stacks a second, on one core.
const LEAST_RATE: f64 = 200_000.0;
const AIM_RATE: f64 = 500_000.0;
/// Bytes of distinct stacks below which caches would be measured.
const LEAST_BYTES: f64 = 1e9;
const LEAST_COMPLETE: f64 = 0.995;
const LEAST_WITHOUT_GUESS: f64 = 0.995;

/// One round over all captures.
#[derive(Debug, PartialEq)]
pub(crate) struct Round {
    /// Each event with its whole stack, equal stacks once.
    whole: Cost,
    /// Events as the kernel side sent them: what changed since the thread's last.
    as_sent: Cost,
    /// Nanoseconds for a stack when nothing is known but files.
    cold_ns: Vec<f64>,
}

#[derive(Debug, PartialEq)]
struct Cost {
    n_stacks: f64,
    stack_bytes: f64,
    n_frames: f64,
    n_complete: f64,
    n_approximate: f64,
    /// Nanoseconds for the events, and for looks at code.
    events_ns: f64,
    looks_ns: f64,
}

/// The rounds that `memtrace __replay` printed.
pub(crate) fn parse(text: &str) -> Option<Vec<Round>> {
    let rounds: Value = serde_json::from_str(text).ok()?;
    rounds.as_array()?.iter().map(Round::of).collect()
}

impl Round {
    fn of(value: &Value) -> Option<Self> {
        let cold = value["cold_ns"].as_array()?.iter().map(Value::as_f64);
        Some(Self {
            whole: Cost::of(&value["whole"])?,
            as_sent: Cost::of(&value["as_sent"])?,
            cold_ns: cold.collect::<Option<_>>()?,
        })
    }
}

impl Cost {
    fn of(value: &Value) -> Option<Self> {
        let number = |name: &str| value[name].as_f64();
        Some(Self {
            n_stacks: number("n_stacks")?,
            stack_bytes: number("stack_bytes")?,
            n_frames: number("n_frames")?,
            n_complete: number("n_complete")?,
            n_approximate: number("n_approximate")?,
            events_ns: number("events_ns")?,
            looks_ns: number("looks_ns")?,
        })
    }

    /// Nanoseconds for everything.
    fn cost_ns(&self) -> f64 {
        self.events_ns + self.looks_ns
    }

    /// Stacks a second.
    fn rate(&self) -> f64 {
        self.n_stacks / self.cost_ns() * 1e9
    }
}

/// The whole table; the best round counts.
pub(crate) fn format(rounds: &[Round], n_starts: usize, is_quiet: bool) -> anyhow::Result<String> {
    let mut text = format!(
        "{:<13}{:>8}  {:>8}  {:>6}  {:>9}  {:>8}  {:<17}  {:>8}  {:>5}\n",
        "",
        "stacks",
        "bytes",
        "frames",
        "complete",
        "stacks/s",
        "(all rounds)",
        "ns/frame",
        "looks"
    );
    let whole: Vec<&Cost> = rounds.iter().map(|round| &round.whole).collect();
    let as_sent: Vec<&Cost> = rounds.iter().map(|round| &round.as_sent).collect();
    for (name, costs) in [("whole stacks", &whole), ("as sent", &as_sent)] {
        writeln!(text, "{name:<13}{}", row(costs)?)?;
    }
    let cold = rounds.iter().filter_map(|round| median(&round.cold_ns)).reduce(f64::min);
    let cold = cold.context("no stack was measured cold")?;
    writeln!(text, "cold stack   {:.0} µs, the median of {}", cold / 1e3, rounds[0].cold_ns.len())?;
    text.push('\n');
    let whole = best(&whole)?;
    let complete = whole.n_complete / whole.n_stacks;
    let without_guess = (whole.n_stacks - whole.n_approximate) / whole.n_stacks;
    for (what, is, least) in [
        ("whole stacks a second, 200,000", whole.rate(), LEAST_RATE),
        ("aim: 500,000", whole.rate(), AIM_RATE),
        ("bytes of distinct stacks, 1 GB", whole.stack_bytes, LEAST_BYTES),
        ("complete stacks, 99.5 %", complete, LEAST_COMPLETE),
        ("stacks with a guess, at most 0.5 %", without_guess, LEAST_WITHOUT_GUESS),
    ] {
        writeln!(text, "{what}: {}", if is >= least { "met" } else { "missed" })?;
    }
    writeln!(
        text,
        "\n{n_starts} start-ups of the demo application, their JVMs alive; times of one thread's processor,\n\
         with interning and reads of the JVMs' memory. whole stacks: each event with its whole stack, equal stacks left out.\n\
         as sent: with what changed since the thread's last stack, as in a trace. looks: at the code cache and at mapped code.\n\
         cold stack: nothing known but files, and what one look at the code cache tells."
    )?;
    if !is_quiet {
        writeln!(text, "The machine was busy when it began.")?;
    }
    Ok(text)
}

fn best<'a>(costs: &[&'a Cost]) -> anyhow::Result<&'a Cost> {
    let best = costs.iter().max_by(|one, other| one.rate().total_cmp(&other.rate()));
    best.filter(|cost| cost.n_stacks > 0.0).copied().context("no stack was resolved")
}

fn row(costs: &[&Cost]) -> anyhow::Result<String> {
    let cost = best(costs)?;
    let rates = || costs.iter().map(|cost| cost.rate());
    let range = format!(
        "({:.0}–{:.0})",
        rates().fold(f64::MAX, f64::min),
        rates().fold(f64::MIN, f64::max)
    );
    Ok(format!(
        "{:>8}  {:>5.2} GB  {:>6.1}  {:>7.2} %  {:>8.0}  {range:<17}  {:>8.1}  {:>3.0} %",
        cost.n_stacks,
        cost.stack_bytes / 1e9,
        cost.n_frames / cost.n_stacks,
        cost.n_complete / cost.n_stacks * 100.0,
        cost.rate(),
        cost.cost_ns() / cost.n_frames,
        cost.looks_ns / cost.cost_ns() * 100.0,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(n_stacks: u64, stack_bytes: u64, cost_ns: u64) -> Value {
        serde_json::json!({
            "n_stacks": n_stacks, "stack_bytes": stack_bytes, "n_frames": 50 * n_stacks,
            "n_complete": n_stacks, "n_approximate": 0, "events_ns": cost_ns / 2, "looks_ns": cost_ns / 2,
        })
    }

    fn rounds(cost_ns: &[u64], stack_bytes: u64) -> Vec<Round> {
        let round = |&cost_ns: &u64| {
            let whole = json(1_000_000, stack_bytes, cost_ns);
            let cold_ns = [3000.0, 1000.0, 2000.0];
            serde_json::json!({"whole": whole, "as_sent": json(7, 8, 9), "cold_ns": cold_ns})
        };
        let all: Vec<Value> = cost_ns.iter().map(round).collect();
        parse(&Value::from(all).to_string()).unwrap()
    }

    /// The best round counts, and each bar is met or missed by it.
    #[test]
    fn best_round() {
        // (nanoseconds of each round for a million stacks, bytes, what is said)
        let cases: [(&[u64], u64, [&str; 4]); 3] = [
            (
                &[5_000_000_000, 4_000_000_000],
                2_000_000_000,
                [" 250000 ", "(200000–250000)", "200,000: met", "500,000: missed"],
            ),
            (
                &[1_000_000_000],
                999_999_999,
                [" 1000000 ", "1 GB: missed", "cold stack   2 µs", "500,000: met"],
            ),
            (&[6_000_000_000], 1_000_000_000, ["200,000: missed", " 50.0 ", "100.00 %", " 120.0"]),
        ];
        for (cost_ns, bytes, said) in cases {
            let text = format(&rounds(cost_ns, bytes), 3, true).unwrap();
            for said in said {
                assert!(text.contains(said), "{said}: {text}");
            }
        }
    }

    /// Of a million stacks so many may be incomplete, and so many guesses.
    #[test]
    fn qualities() {
        // (complete, with a guess, what is said)
        let cases = [
            (995_000.0, 5_000.0, ["99.5 %: met", "at most 0.5 %: met"]),
            (994_999.0, 5_001.0, ["99.5 %: missed", "at most 0.5 %: missed"]),
        ];
        for (n_complete, n_approximate, said) in cases {
            let mut rounds = rounds(&[1_000_000_000], 1_000_000_000);
            (rounds[0].whole.n_complete, rounds[0].whole.n_approximate) =
                (n_complete, n_approximate);
            let text = format(&rounds, 1, true).unwrap();
            for said in said {
                assert!(text.contains(said), "{said}: {text}");
            }
        }
    }

    /// Nothing is printed that was not measured.
    #[test]
    fn nothing() {
        for text in ["", "{}", "[{}]", r#"[{"cold_ns": [1]}]"#] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert!(format(&[], 1, true).is_err());
    }
}
