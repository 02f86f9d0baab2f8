//! How many calls a second memtrace traces without losing one, or a stack.
//!
//! In: a bed. Out: the highest rate that held, and why the next did not. The program makes its calls from stacks of 20
//! frames, on two threads, and paces itself; memtrace runs beside it on the same processors, as it would for a user.
//! A rate holds if nothing was lost, no stack was left out, and memtrace's sums equal the program's.

use crate::bench::{
    Bed, grouped,
    program::{Program, number},
    quiet,
    said::Said,
    tool::Tool,
};

/// Calls a second.
const BAR: u64 = 300_000;
const AIM: u64 = 500_000;

/// Threads of the program.
const N_THREADS: u64 = 2;
/// Blocks that each thread keeps.
const N_KEPT: u64 = 64;
/// A rate that the program itself did not make, as a share of the one that was asked for.
const LEAST_MADE: f64 = 0.98;

/// Which rates are tried, in calls a second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steps {
    seconds: u64,
    from: u64,
    to: u64,
    by: u64,
}

/// One rate.
#[derive(Clone, Debug)]
struct Step {
    asked: u64,
    made: u64,
    n_mallocs: u64,
    n_frees: u64,
    said: Said,
}

impl Steps {
    pub(super) fn of(seconds: u64, quick: bool) -> Self {
        if quick {
            return Self { seconds: 2, from: 50_000, to: 150_000, by: 50_000 };
        }
        Self { seconds: seconds.max(1), from: 100_000, to: 1_500_000, by: 50_000 }
    }
}

/// Raises the rate until one does not hold; returns what is to be said.
pub(super) fn run(bed: &Bed, steps: Steps) -> anyhow::Result<Vec<String>> {
    let program = Program::compile(bed, "paced", include_str!("paced.c"))?;
    let mut tried = Vec::new();
    let mut asked = steps.from;
    let mut holds = true;
    while holds && asked <= steps.to {
        quiet::wait_until_quiet();
        let step = Step::measure(bed, &program, asked, steps.seconds)?;
        eprintln!("{}", step.line());
        holds = step.complaints().is_empty();
        tried.push(step);
        asked += steps.by;
    }
    Ok(summary(&tried))
}

impl Step {
    fn measure(bed: &Bed, program: &Program, asked: u64, seconds: u64) -> anyhow::Result<Self> {
        let target = program.target(&[asked, asked * seconds, N_THREADS, N_KEPT]);
        let said = bed.trace(Tool::MemtraceExact, &target)?;
        let figures = program.take_figures()?;
        let [n_mallocs, n_frees, wall_ns] =
            ["mallocs", "frees", "wall_ns"].map(|name| number(&figures, name));
        let (n_mallocs, n_frees) = (n_mallocs?, n_frees?);
        let made = (n_mallocs + n_frees) as f64 * 1e9 / wall_ns?.max(1) as f64;
        Ok(Self { asked, made: made as u64, n_mallocs, n_frees, said })
    }

    /// Why the rate did not hold; nothing if it did.
    fn complaints(&self) -> Vec<String> {
        let mut complaints: Vec<String> =
            self.said.losses().map(|losses| format!("lost: {losses}")).into_iter().collect();
        let Said { n_left_out, n_intervals, .. } = self.said;
        if n_left_out > 0 {
            let n = grouped(n_left_out);
            complaints.push(format!("{n} stacks left out in {n_intervals} intervals"));
        }
        for (function, n) in [("malloc", self.n_mallocs), ("free", self.n_frees)] {
            let n_traced = self.said.n_calls(function);
            if n_traced != n {
                let [n, n_traced] = [n, n_traced].map(grouped);
                complaints.push(format!("{n} calls of {function}, {n_traced} traced"));
            }
        }
        if (self.made as f64) < self.asked as f64 * LEAST_MADE {
            complaints.push("the program could not call so often".to_owned());
        }
        complaints
    }

    fn line(&self) -> String {
        let complaints = self.complaints();
        let verdict = if complaints.is_empty() { "held".to_owned() } else { complaints.join("; ") };
        let [asked, made] = [self.asked, self.made].map(grouped);
        format!(
            "{asked} calls/s asked, {made} made: {verdict} (memtrace: {:.1} s of CPU, RSS {:.0} MB)",
            self.said.cpu_seconds,
            self.said.max_rss_bytes as f64 / 1e6
        )
    }
}

fn summary(tried: &[Step]) -> Vec<String> {
    let mut lines =
        vec!["calls of malloc and free from stacks of 20 frames, every call an event".to_owned()];
    lines.extend(tried.iter().map(Step::line));
    let held = tried.iter().filter(|step| step.complaints().is_empty());
    let best = held.map(|step| step.made).max().unwrap_or_default();
    let ends = tried.last().is_some_and(|step| !step.complaints().is_empty());
    let highest =
        if ends { "the highest rate that held" } else { "the highest rate tried, which held" };
    lines.push(format!("{highest}: {} calls/s", grouped(best)));
    for (kind, least) in [("bar", BAR), ("aim", AIM)] {
        // A rate that was asked for is made but for some per mille.
        let is_met = best as f64 >= least as f64 * LEAST_MADE;
        let verdict = match (is_met, ends) {
            (true, _) => "met",
            (false, true) => "missed",
            (false, false) => "not tried",
        };
        lines.push(format!(
            "{kind}: nothing lost, sums exact at {} calls/s: {verdict}",
            grouped(least)
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::bench::said;

    /// A step whose program made 10 mallocs and 4 frees, as the report says.
    fn step(asked: u64, lost: &Value) -> Step {
        let said = said::tests::said(lost, &[]);
        Step { asked, made: asked - 5, n_mallocs: 10, n_frees: 4, said }
    }

    /// Whatever is not as it should be is a reason.
    #[test]
    fn when_a_rate_holds() {
        let good = step(100_000, &json!({"ring_full": 0, "stacks_left_out": 0}));
        assert_eq!(good.complaints(), [""; 0]);
        let cases: [(Step, &str); 5] = [
            (step(100_000, &json!({"ring_full": 3})), "lost: ring_full 3"),
            (
                step(100_000, &json!({"stacks_left_out": 1200})),
                "1,200 stacks left out in 0 intervals",
            ),
            (Step { n_mallocs: 11, ..good.clone() }, "11 calls of malloc, 10 traced"),
            (Step { n_frees: 3, ..good.clone() }, "3 calls of free, 4 traced"),
            (Step { made: 90_000, ..good.clone() }, "the program could not call so often"),
        ];
        for (step, want) in cases {
            assert_eq!(step.complaints(), [want]);
        }
    }

    /// The best rate is one that held; bars beyond what was tried are not judged.
    #[test]
    fn summaries() {
        let (good, bad) = (json!({}), json!({"ring_full": 1}));
        let tail = |tried: &[Step]| summary(tried).split_off(tried.len() + 1);
        let want = [
            "the highest rate that held: 349,995 calls/s",
            "bar: nothing lost, sums exact at 300,000 calls/s: met",
            "aim: nothing lost, sums exact at 500,000 calls/s: missed",
        ];
        assert_eq!(tail(&[step(300_000, &good), step(350_000, &good), step(400_000, &bad)]), want);
        let want = [
            "the highest rate tried, which held: 149,995 calls/s",
            "bar: nothing lost, sums exact at 300,000 calls/s: not tried",
            "aim: nothing lost, sums exact at 500,000 calls/s: not tried",
        ];
        assert_eq!(tail(&[step(150_000, &good)]), want);
    }
}
