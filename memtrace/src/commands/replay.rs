//! `memtrace __replay`: what resolving captured stacks takes. It is what `cargo xtask bench stacks` runs.
//!
//! In: captures, whose processes may still live. Out: one line of JSON, times of this thread's processor.

use std::{
    fs::File,
    io::{self, BufReader, Write},
    path::Path,
    process::ExitCode,
};

use anyhow::{Context, Result};
use serde::Serialize;

use super::{args::ReplayArgs, failure::Failure};
use crate::stacks::{Capture, Measured, Quality, Replay, StackId};

/// Stacks of each capture that are resolved with nothing known.
const N_COLD: usize = 40;

/// What resolving the stacks of all captures took.
#[derive(Debug, Default, Serialize)]
struct Cost {
    n_stacks: u64,
    /// Bytes of stack that came with the events.
    stack_bytes: u64,
    n_frames: u64,
    n_complete: u64,
    n_approximate: u64,
    /// For the events, and for looks at code.
    events_ns: u64,
    looks_ns: u64,
}

/// One round over all captures.
#[derive(Debug, Default, Serialize)]
struct Round {
    /// Events as they lay in the ring buffer.
    as_sent: Cost,
    /// Each event with its whole stack, equal stacks once.
    whole: Cost,
    /// Nanoseconds for a stack when nothing is known but files, ascending.
    cold_ns: Vec<u64>,
}

pub(super) fn run(args: &ReplayArgs) -> Result<ExitCode, Failure> {
    let mut rounds: Vec<Round> = (0..args.rounds).map(|_| Round::default()).collect();
    for path in &args.files {
        let capture = read(path)?;
        for round in &mut rounds {
            round.as_sent.add(&capture, args.living);
        }
        let whole = capture.with_distinct_whole_stacks();
        drop(capture);
        for round in &mut rounds {
            round.whole.add(&whole, args.living);
            round.cold_ns.extend(Replay::measure_cold(&whole, N_COLD, args.living, cpu_ns));
        }
    }
    rounds.iter_mut().for_each(|round| round.cold_ns.sort_unstable());
    let line = serde_json::to_string(&rounds).context("failed to write JSON")?;
    writeln!(io::stdout().lock(), "{line}").context("failed to write to stdout")?;
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> Result<Capture> {
    let failed = || format!("failed to read {}", path.display());
    let file = File::open(path).with_context(failed)?;
    Capture::read(BufReader::new(file)).with_context(failed)
}

impl Cost {
    /// Resolves the stacks of `capture`.
    fn add(&mut self, capture: &Capture, are_living: bool) {
        let mut replay =
            if are_living { Replay::beside_living(capture) } else { Replay::new(capture) };
        let Measured { events_ns, looks_ns, ids, stacks } = replay.measure(capture, cpu_ns);
        self.events_ns += events_ns;
        self.looks_ns += looks_ns;
        self.n_stacks += ids.len() as u64;
        self.stack_bytes += capture.size().1;
        // Stack 0 stands for those that there was no room for, and is the first that was new.
        for StackId(id) in ids {
            let Some(stack) = stacks.get(id as usize) else { continue };
            self.n_frames += stack.frames.len() as u64;
            self.n_complete += u64::from(stack.quality == Quality::Complete);
            self.n_approximate += u64::from(stack.quality == Quality::Approximate);
        }
    }
}

/// Time that this thread had of a processor.
fn cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is written by the call; the clock exists on every kernel.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}
