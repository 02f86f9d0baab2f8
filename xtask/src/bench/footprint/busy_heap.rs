//! The program with a large heap that measures its own pauses.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::bench::{
    Bed, clean_command,
    program::{Program, number},
};

/// What it does while it measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Maps and unmaps: the kernel lets nobody read the map meanwhile.
    Maps,
    /// Touches new pages.
    Faults,
}

impl Work {
    pub(super) const ALL: [Self; 2] = [Self::Maps, Self::Faults];

    fn word(self) -> &'static str {
        match self {
            Self::Maps => "maps",
            Self::Faults => "faults",
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Maps => "mmap, touch and munmap",
            Self::Faults => "page faults",
        }
    }
}

/// What it measured of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pauses {
    /// How often it did its work.
    pub(super) count: u64,
    /// The longest time from one to the next.
    pub(super) longest_ns: u64,
    /// What those of more than 0.1 ms add up to.
    pub(super) long_ns: u64,
    /// How long it worked.
    pub(super) wall_ns: u64,
    /// How long of that it was on a processor.
    pub(super) cpu_ns: u64,
    /// How long of that it waited for one.
    pub(super) delay_ns: u64,
}

impl Pauses {
    /// How long it slept: for a lock, as it does nothing that waits for anything else.
    pub(super) fn locked_ns(&self) -> u64 {
        self.wall_ns.saturating_sub(self.cpu_ns).saturating_sub(self.delay_ns)
    }
}

/// The program, with its heap; ended when dropped.
pub(super) struct BusyHeap {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    pub(super) n_blocks: u64,
}

impl Drop for BusyHeap {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl BusyHeap {
    pub(super) fn start(bed: &Bed, mib: u64, n_mappings: u64) -> anyhow::Result<Self> {
        let program = Program::compile(bed, "busy_heap", include_str!("busy_heap.c"))?;
        let mut child = clean_command(program.binary())
            .args([mib.to_string(), n_mappings.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("failed to start busy_heap")?;
        let stdin = child.stdin.take().context("no stdin")?;
        let stdout = BufReader::new(child.stdout.take().context("no stdout")?);
        let mut heap = Self { child, stdin, stdout, n_blocks: 0 };
        let line = heap.line()?;
        let n_blocks = line.strip_prefix("ready ").and_then(|n| n.trim().parse().ok());
        heap.n_blocks = n_blocks.with_context(|| format!("busy_heap said {line:?}"))?;
        Ok(heap)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it work while `beside` runs.
    pub(super) fn measure(
        &mut self,
        work: Work,
        beside: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<Pauses> {
        self.say(work.word())?;
        let result = beside();
        self.say("stop")?;
        let line = self.line()?;
        let figures: Value = serde_json::from_str(&line).context("failed to parse its figures")?;
        result?;
        Ok(Pauses {
            count: number(&figures, "count")?,
            longest_ns: number(&figures, "longest_ns")?,
            long_ns: number(&figures, "long_ns")?,
            wall_ns: number(&figures, "wall_ns")?,
            cpu_ns: number(&figures, "cpu_ns")?,
            delay_ns: number(&figures, "delay_ns")?,
        })
    }

    fn say(&mut self, word: &str) -> anyhow::Result<()> {
        writeln!(self.stdin, "{word}").context("failed to write to busy_heap: it has ended")
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).context("failed to read from busy_heap")?;
        if line.is_empty() {
            bail!("busy_heap ended before it was to");
        }
        Ok(line)
    }
}
