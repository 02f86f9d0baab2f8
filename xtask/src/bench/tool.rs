//! The tools that are measured, and how each is put on the target.
//!
//! In: a tool, a bed and a target. Out: what is to be said on the command line, and what else has to run. Starts nothing.

use clap::ValueEnum;

use super::{Bed, async_profiler, path, table::Bars, target::Target};
use crate::{
    bpf_toolchain::Places,
    needs::{HEAPTRACK_PRELOAD, JEMALLOC, library},
};

/// A tool that tells where memory comes from, or an allocator to compare one with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tool {
    /// memtrace with default settings
    Memtrace,
    /// memtrace, every call of the allocator
    MemtraceExact,
    /// memtrace, samples of blocks
    MemtraceSampled,
    /// Empty programs where memtrace probes the allocator
    MemtraceBare,
    /// strace of the calls that obtain and return memory
    Strace,
    /// A bpftrace script that does what bcc's memleak does
    Bpftrace,
    /// async-profiler in the process, every malloc
    AsyncProfiler,
    /// async-profiler in the process, a sample each 512 KiB
    AsyncProfilerSampled,
    /// heaptrack, preloaded
    Heaptrack,
    /// jemalloc in place of glibc's allocator
    Jemalloc,
    /// jemalloc with its own profiler, a sample each 512 KiB
    JemallocSampled,
}

/// How a tool is put on a target.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Harness {
    /// Words in front of the command line of what measures the target.
    pub(crate) before: Vec<String>,
    /// The target's environment, as NAME=VALUE.
    pub(crate) variables: Vec<String>,
    /// The JVM's option that loads the tool.
    pub(crate) agent: Option<String>,
}

impl Tool {
    /// The tool's row in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memtrace => "memtrace",
            Self::MemtraceExact => "memtrace, malloc exact",
            Self::MemtraceSampled => "memtrace, malloc sampled",
            Self::MemtraceBare => "memtrace's probes, empty",
            Self::Strace => "strace -f, memory calls",
            Self::Bpftrace => "bpftrace, memleak-like",
            Self::AsyncProfiler => "async-profiler, every call",
            Self::AsyncProfilerSampled => "async-profiler, 512 KiB",
            Self::Heaptrack => "heaptrack",
            Self::Jemalloc => "jemalloc",
            Self::JemallocSampled => "jemalloc, 512 KiB",
        }
    }

    /// Whether it can run here.
    pub(crate) fn is_installed(self) -> bool {
        let places = Places::of_this_machine();
        match self {
            Self::Memtrace | Self::MemtraceExact | Self::MemtraceSampled | Self::MemtraceBare => {
                true
            }
            Self::Strace => places.program("strace").is_some(),
            Self::Bpftrace => places.program("bpftrace").is_some(),
            Self::AsyncProfiler | Self::AsyncProfilerSampled => places.program("mvn").is_some(),
            Self::Heaptrack => library(&places, HEAPTRACK_PRELOAD).is_some(),
            Self::Jemalloc | Self::JemallocSampled => library(&places, JEMALLOC).is_some(),
        }
    }

    /// Whether it is memtrace, which reports on itself.
    pub(crate) fn is_memtrace(self) -> bool {
        matches!(
            self,
            Self::Memtrace | Self::MemtraceExact | Self::MemtraceSampled | Self::MemtraceBare
        )
    }

    /// What the demo's start-up may cost; only of what has a bar the interval is to be narrow.
    pub(crate) fn bars(self) -> Option<Bars> {
        match self {
            Self::Memtrace => Some(Bars {
                ratio: 1.05,
                aim: None,
                rss_bytes: Some(150e6),
                cpu_share: Some(0.10),
                is_lossless: false,
            }),
            Self::MemtraceExact => Some(Bars {
                ratio: 1.5,
                aim: Some(1.30),
                rss_bytes: None,
                cpu_share: None,
                is_lossless: true,
            }),
            Self::MemtraceSampled => Some(Bars {
                ratio: 1.25,
                aim: Some(1.12),
                rss_bytes: None,
                cpu_share: None,
                is_lossless: false,
            }),
            _ => None,
        }
    }

    /// Fetches what the tool is made of, if need be.
    pub(super) fn prepare(self, bed: &Bed) -> anyhow::Result<()> {
        match self {
            Self::AsyncProfiler | Self::AsyncProfilerSampled => {
                async_profiler::fetch(&bed.folder).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// How it is put on `target`; it is fetched if need be.
    pub(super) fn harness(self, bed: &Bed, target: &Target) -> anyhow::Result<Harness> {
        match self {
            Self::Memtrace | Self::MemtraceExact | Self::MemtraceSampled | Self::MemtraceBare => {
                let before = self.memtrace(bed);
                Ok(Harness { before, ..Harness::default() })
            }
            Self::Strace => {
                let file = path(&bed.folder.join("strace.txt"));
                let calls = "trace=mmap,munmap,mremap,mprotect,brk,madvise";
                let before = words(&["strace", "-f", "-qq", "-o", &file, "-e", calls]);
                Ok(Harness { before, ..Harness::default() })
            }
            // Runs beside the target.
            Self::Bpftrace => Ok(Harness::default()),
            Self::AsyncProfiler => async_profiler_on(bed, target, 0),
            Self::AsyncProfilerSampled => async_profiler_on(bed, target, 512 << 10),
            Self::Heaptrack => {
                let output = format!("DUMP_HEAPTRACK_OUTPUT={}", path(&bed.heaptrack_pipe()));
                Ok(preloaded(HEAPTRACK_PRELOAD, [output]))
            }
            Self::Jemalloc => Ok(preloaded(JEMALLOC, [])),
            Self::JemallocSampled => {
                let dumps = path(&bed.folder.join(super::JEMALLOC_DUMPS));
                // 2^19 bytes are 512 KiB.
                let conf = "prof:true,lg_prof_sample:19,prof_final:true";
                Ok(preloaded(JEMALLOC, [format!("MALLOC_CONF={conf},prof_prefix:{dumps}")]))
            }
        }
    }

    /// memtrace's own command line.
    pub(super) fn memtrace(self, bed: &Bed) -> Vec<String> {
        let options: &[&str] = match self {
            Self::MemtraceExact => &["--malloc", "exact"],
            Self::MemtraceSampled => &["--malloc", "sampled"],
            Self::MemtraceBare => &["--malloc", "exact", "--bare-probes"],
            _ => &[],
        };
        let mut all = vec![path(&bed.memtrace)];
        all.extend(words(options));
        all.extend(words(&["--json", &path(&bed.memtrace_json()), "--"]));
        all
    }
}

/// async-profiler as a JVM's agent or, in what is no JVM, preloaded.
fn async_profiler_on(bed: &Bed, target: &Target, interval: u32) -> anyhow::Result<Harness> {
    let library = path(&async_profiler::fetch(&bed.folder)?);
    let recording = path(&bed.folder.join("async-profiler.jfr"));
    let command = format!("start,nativemem={interval},file={recording}");
    if target.is_jvm {
        let agent = Some(format!("-agentpath:{library}={command}"));
        return Ok(Harness { agent, ..Harness::default() });
    }
    let variables = vec![format!("LD_PRELOAD={library}"), format!("ASPROF_COMMAND={command}")];
    Ok(Harness { variables, ..Harness::default() })
}

fn preloaded<const N: usize>(name: &str, more: [String; N]) -> Harness {
    let library = library(&Places::of_this_machine(), name).unwrap_or_else(|| name.into());
    let mut variables = vec![format!("LD_PRELOAD={}", path(&library))];
    variables.extend(more);
    Harness { variables, ..Harness::default() }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
