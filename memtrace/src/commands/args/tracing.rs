//! What can be typed of a trace.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::{super::units, OutputArgs};
use crate::probes::Blocks;

/// The mean number of bytes between two samples, as jemalloc and tcmalloc have it.
const MALLOC_RATE_BYTES: u64 = 512 << 10;
/// More is never sampled.
const MAX_RATE_BYTES: u64 = 1 << 40;

#[derive(Debug, Args)]
pub(crate) struct TraceArgs {
    /// Trace this running process
    ///
    /// Until Ctrl-C, --duration or its end.
    #[arg(short, long, value_name = "PID", required = true, conflicts_with_all = ["start", "user"])]
    pub(crate) pid: Option<u32>,

    /// Start this command and trace it, and its children, from its first instruction
    #[arg(value_name = "COMMAND", last = true, required_unless_present = "pid", id = "start")]
    pub(crate) start: Vec<String>,

    /// Stop after this time, written like 30s, 5m or 1h
    #[arg(short, long, value_name = "TIME", value_parser = units::parse_time)]
    pub(crate) duration: Option<Duration>,

    /// Record the trace to this file, for `memtrace report`
    ///
    /// Written as the trace goes on: whatever is killed, at most the last second is lost.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// Stop recording to --output at this size, written like 512M or 2G
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size, requires = "output")]
    pub(crate) max_size: Option<u64>,

    /// Trace the children that the process forks, too
    ///
    /// The children of a command that memtrace started are always traced.
    #[arg(long)]
    pub(crate) follow: bool,

    /// Probe zlib's own functions, too, for what is not Java
    ///
    /// inflateInit2_, inflateEnd, deflateInit2_ and deflateEnd of the libz that the process has mapped.
    #[arg(long)]
    pub(crate) zlib: bool,

    /// Probe the allocator: who asked it for memory, and what was not given back
    ///
    /// malloc, free and the like of every allocator that the process has: glibc, musl, jemalloc, tcmalloc, mimalloc,
    /// mapped, preloaded or built in. Each call costs the process about two microseconds.
    #[arg(long, value_enum, value_name = "MODE", default_value_t = Malloc::Off)]
    pub(crate) malloc: Malloc,

    /// Record one block for each so many bytes on average, written like 64K or 2M
    ///
    /// With --malloc sampled; 512K without this.
    #[arg(long, value_name = "SIZE", value_parser = parse_rate)]
    pub(crate) malloc_rate: Option<u64>,

    /// Ignore allocations smaller than this, written like 512, 4K or 2M
    ///
    /// With --malloc exact. Small blocks are most of the calls and rarely much of the memory: ignored, they cost neither a
    /// copy of the stack nor room in the report. How many there were, and how many bytes, is counted for each thread.
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    pub(crate) min_size: Option<u64>,

    /// Put empty programs on the allocator's functions
    ///
    /// For benchmarks of memtrace itself: what the traps alone cost. No block is recorded.
    #[arg(long, hide = true)]
    pub(crate) bare_probes: bool,

    /// Probe the allocator's functions one by one
    ///
    /// As on a kernel that can't probe many with one program and link. For tests of memtrace itself.
    #[arg(long, hide = true)]
    pub(crate) single_probes: bool,

    /// Show the Java part of each stack as one frame, `[java]`
    ///
    /// Otherwise its frames are read from the JVM's memory, without its knowing: class, method, and whether it was
    /// compiled (`_[j]`), compiled into its caller (`_[i]`) or interpreted (`_[0]`). JDK 8 to 26. This option leaves that
    /// out and takes memtrace about half the processor time.
    #[arg(long)]
    pub(crate) no_java_frames: bool,

    /// Write down in this file what resolving the stacks depends on
    ///
    /// For tests and benchmarks of memtrace itself. The file holds memory of the process.
    #[arg(long, value_name = "FILE", hide = true)]
    pub(crate) capture: Option<PathBuf>,

    /// Run the started command as this user
    ///
    /// Under sudo the default is the user who called sudo.
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<String>,

    #[command(flatten)]
    pub(crate) outputs: OutputArgs,
}

/// What of an allocator's calls is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Malloc {
    /// Nothing
    Off,
    /// How many calls and bytes, and by chance some of the blocks with their stacks, see --malloc-rate
    Sampled,
    /// Every call
    Exact,
}

impl TraceArgs {
    /// Refuses what says nothing.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if self.malloc_rate.is_some() && self.malloc != Malloc::Sampled {
            anyhow::bail!("--malloc-rate is for --malloc sampled");
        }
        if self.min_size.is_some() && self.malloc != Malloc::Exact {
            anyhow::bail!("--min-size is for --malloc exact");
        }
        Ok(())
    }

    /// Which blocks of allocators are told of.
    pub(crate) fn blocks(&self) -> Blocks {
        match self.malloc {
            Malloc::Off => Blocks::None,
            Malloc::Sampled => {
                let mean_bytes = self.malloc_rate.unwrap_or(MALLOC_RATE_BYTES);
                Blocks::Samples { mean_bytes }
            }
            Malloc::Exact => Blocks::All,
        }
    }
}

fn parse_rate(text: &str) -> Result<u64, String> {
    match units::parse_size(text)? {
        bytes @ 1..=MAX_RATE_BYTES => Ok(bytes),
        _ => Err("a rate is from 1 byte to 1024G".to_owned()),
    }
}
