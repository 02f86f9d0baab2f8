//! Samples of page faults: a counter on each processor, whoever's faults these are, with the kernel side behind it.

use anyhow::{Context, Result};
use aya::{
    Ebpf,
    programs::{
        PerfEvent,
        perf_event::{
            PerfEventConfig, PerfEventLinkId, PerfEventScope, SamplePolicy, SoftwareEvent,
        },
    },
    util::online_cpus,
};

use super::program_mut;

/// Faults on a processor of which one is told of: 256 KiB of pages.
pub const FAULTS_PER_SAMPLE: u64 = 64;

/// Begins to count on each processor.
pub(super) fn attach(ebpf: &mut Ebpf) -> Result<Vec<PerfEventLinkId>> {
    let program: &mut PerfEvent = program_mut(ebpf, "page_fault")?;
    let cpus = online_cpus().map_err(|(what, error)| error_of(what, error))?;
    let attach = |cpu| {
        program
            .attach(
                PerfEventConfig::Software(SoftwareEvent::PageFaults),
                PerfEventScope::AllProcessesOneCpu { cpu },
                SamplePolicy::Period(FAULTS_PER_SAMPLE),
                false,
            )
            .with_context(|| format!("failed to count page faults on processor {cpu}"))
    };
    cpus.into_iter().map(attach).collect()
}

fn error_of(what: &str, error: std::io::Error) -> anyhow::Error {
    anyhow::Error::new(error).context(format!("failed to read {what}"))
}
