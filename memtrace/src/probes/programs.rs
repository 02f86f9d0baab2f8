//! The programs of the kernel side: which are loaded at the beginning, and which when they are needed.

use anyhow::{Context, Result};
use aya::{
    Btf, Ebpf,
    programs::{BtfTracePoint, PerfEvent, TracePoint, UProbe},
};

use super::LIFE;

/// Programs on functions that nearly every JVM needs: an opened stream must not wait for the verifier.
const FIRST_NEEDED: [&str; 2] = ["stream_opens", "stream_end"];
/// Programs on an allocator's functions where there are no sessions.
pub(super) const OF_ALLOCATORS: [&str; 3] = ["block_wanted", "block_got", "block_given_back"];

/// Loads what each trace needs.
pub(super) fn load(ebpf: &mut Ebpf, btf: &Btf) -> Result<()> {
    for (program, tracepoint) in LIFE {
        let program: &mut BtfTracePoint = program_mut(ebpf, program)?;
        program
            .load(tracepoint, btf)
            .with_context(|| format!("the kernel refused the program for {tracepoint}"))?;
    }
    for name in ["sys_enter", "sys_exit"] {
        let program: &mut TracePoint = program_mut(ebpf, name)?;
        program.load().with_context(|| format!("the kernel refused program {name}"))?;
    }
    let program: &mut PerfEvent = program_mut(ebpf, "page_fault")?;
    program.load().context("the kernel refused program page_fault")?;
    FIRST_NEEDED.into_iter().try_for_each(|name| load_if_needed(ebpf, name).map(drop))
}

/// The program on a function `name`, loaded. What few traces need is loaded when it is needed: the verifier takes longer for
/// it than a trace of a second takes for its events.
pub(super) fn load_if_needed<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut UProbe> {
    let program: &mut UProbe = program_mut(ebpf, name)?;
    if program.fd().is_err() {
        program.load().with_context(|| format!("the kernel refused program {name}"))?;
    }
    Ok(program)
}

/// The empty program that goes where program `name` of an allocator's functions would.
pub(super) fn without_work(name: &'static str) -> &'static str {
    match name {
        "block_wanted" | "block_given_back" => "trap",
        "block_got" => "trap_at_return",
        other => other,
    }
}

pub(super) fn program_mut<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = aya::programs::ProgramError>,
{
    let program =
        ebpf.program_mut(name).with_context(|| format!("the kernel side has no program {name}"))?;
    program.try_into().with_context(|| format!("program {name} is of another type"))
}
