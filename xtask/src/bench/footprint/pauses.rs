//! For how long a process waits that is looked at.
//!
//! In: a process that works without pause and measures its own pauses. Out: the longest pause and the sum of all long ones,
//! with a look beside it and without, in turns. To read a process's page tables holds its lock of the map: who maps and
//! unmaps has to wait then, who touches pages has not. A thread has a pause, too, where it waits for a processor; of the whole
//! time that is told apart.

use std::{thread::sleep, time::Duration};

use serde_json::json;

use super::{
    busy_heap::{BusyHeap, Pauses, Work},
    looks,
};
use crate::bench::{Bed, statistics};

/// One after the other, with and without.
#[derive(Clone, Debug, Default, PartialEq)]
struct Series {
    without: Vec<Pauses>,
    with: Vec<Pauses>,
}

/// Measures; returns what is to be said.
pub(super) fn run(
    bed: &Bed,
    heap: &mut BusyHeap,
    n_rounds: usize,
    is_quiet: bool,
) -> anyhow::Result<Vec<String>> {
    let pid = heap.pid();
    let (first, _) = looks::look(bed, pid)?;
    let length = Duration::from_secs_f64(first);
    let mut lines = vec![format!("Pauses of a process while it is looked at, {n_rounds} rounds:")];
    if !is_quiet {
        lines.push("The machine was busy at the beginning.".to_owned());
    }
    let mut raw = Vec::new();
    for work in Work::ALL {
        let mut series = Series::default();
        for n in 0..n_rounds {
            // Neither is always the one that comes first.
            let turns = if n.is_multiple_of(2) { [false, true] } else { [true, false] };
            for is_looked_at in turns {
                let pauses = heap.measure(work, || {
                    if is_looked_at {
                        looks::look(bed, pid).map(drop)
                    } else {
                        sleep(length);
                        Ok(())
                    }
                })?;
                let turns = if is_looked_at { &mut series.with } else { &mut series.without };
                turns.push(pauses);
            }
        }
        lines.extend(series.lines(work));
        let values = |pauses: &[Pauses]| -> Vec<_> {
            pauses
                .iter()
                .map(|it| {
                    [it.count, it.longest_ns, it.long_ns, it.wall_ns, it.locked_ns(), it.delay_ns]
                })
                .collect()
        };
        let (without, with) = (values(&series.without), values(&series.with));
        raw.push(json!({ "work": work.name(), "without": without, "with": with }));
    }
    let file = bed.folder.join("footprint-pauses.json");
    std::fs::write(&file, serde_json::to_vec(&raw)?)?;
    Ok(lines)
}

impl Series {
    fn lines(&self, work: Work) -> [String; 3] {
        let say = |when: &str, pauses: &[Pauses]| {
            let ms = |of: fn(&Pauses) -> u64| -> Vec<f64> {
                pauses.iter().map(|it| of(it) as f64 / 1e6).collect()
            };
            let median = |values: &[f64]| statistics::median(values).unwrap_or(f64::NAN);
            let longest = ms(|it| it.longest_ns);
            let worst = longest.iter().copied().fold(0.0, f64::max);
            let [all, long, locked, delay] = [
                ms(|it| it.wall_ns),
                ms(|it| it.long_ns),
                ms(Pauses::locked_ns),
                ms(|it| it.delay_ns),
            ]
            .map(|values| median(&values));
            format!(
                "  {when:<7} longest pause {:.1} ms (worst {worst:.1}); of {all:.0} ms pauses over 0.1 ms are {long:.1}; \
                 waited for a lock {locked:.1}, for a processor {delay:.1}",
                median(&longest),
            )
        };
        [
            format!("{}, medians:", work.name()),
            say("without", &self.without),
            say("with", &self.with),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was neither on a processor nor waited for one slept.
    #[test]
    fn said() {
        let pauses = |longest: u64, all: u64, cpu: u64, delay: u64| Pauses {
            count: 1,
            longest_ns: longest * 1_000_000,
            long_ns: 2 * longest * 1_000_000,
            wall_ns: all * 1_000_000,
            cpu_ns: cpu * 1_000_000,
            delay_ns: delay * 1_000_000,
        };
        let series = Series {
            without: vec![pauses(1, 100, 90, 8), pauses(3, 100, 90, 10)],
            with: vec![pauses(5, 99, 50, 9), pauses(9, 98, 49, 9), pauses(7, 97, 48, 60)],
        };
        let want = [
            "page faults, medians:",
            "  without longest pause 2.0 ms (worst 3.0); of 100 ms pauses over 0.1 ms are 4.0; \
             waited for a lock 1.0, for a processor 9.0",
            "  with    longest pause 7.0 ms (worst 9.0); of 98 ms pauses over 0.1 ms are 14.0; \
             waited for a lock 40.0, for a processor 9.0",
        ];
        assert_eq!(series.lines(Work::Faults), want);
    }
}
