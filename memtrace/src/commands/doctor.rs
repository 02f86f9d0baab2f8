//! `memtrace doctor`: what this kernel and a process allow, and what to do about the rest.

use std::{io, process::ExitCode};

use super::{
    args::DoctorArgs,
    failure::{ERROR, Failure},
    outputs::{colors, to_stdout},
    trace::RING_BYTES,
};
use crate::{
    probes::{Probes, features::Features, one_line},
    report::doctor::{Check, Libzip, doctor, is_well, of_kernel, of_process},
    target::{self, Library, Situation},
};

pub(super) fn run(args: &DoctorArgs) -> Result<ExitCode, Failure> {
    let mut checks = of_kernel(&Features::find(RING_BYTES));
    checks.extend(args.pid.map(check_process).unwrap_or_default());
    to_stdout(&doctor(&checks, colors(args.color, &io::stdout())))?;
    Ok(if is_well(&checks) { ExitCode::SUCCESS } else { ExitCode::from(ERROR) })
}

fn check_process(pid: u32) -> Vec<Check> {
    if let Err(error) = target::check(pid) {
        let hint = error.hint();
        return vec![Check::fail("process", one_line(&error.into()), hint)];
    }
    let situation = Situation::of(pid);
    let libzips: Vec<Libzip> = situation.libzips.iter().map(libzip).collect();
    of_process(&situation, &libzips)
}

fn libzip(library: &Library) -> Libzip {
    let functions = Probes::zlib_functions(library).map_err(|error| one_line(&error));
    Libzip { path: library.name().display().to_string(), functions }
}
