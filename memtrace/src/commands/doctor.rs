//! `memtrace doctor`: what this kernel and a process allow, and what to do about the rest.

use std::{io, path::Path, process::ExitCode};

use super::{
    args::DoctorArgs,
    failure::{ERROR, Failure},
    outputs::{colors, to_stdout},
    trace::RING_BYTES,
};
use crate::{
    probes::{Probes, features::Features, one_line},
    report::doctor::{Check, Libzip, doctor, is_well, of_kernel, of_process},
    target::{self, Situation},
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
    let libzips: Vec<Libzip> = situation.libzips.iter().map(|path| libzip(path)).collect();
    of_process(&situation, &libzips)
}

fn libzip(path: &Path) -> Libzip {
    let functions = Probes::zlib_functions(path).map_err(|error| one_line(&error));
    // Where a mapped file is said by a link.
    let path = path.read_link().unwrap_or_else(|_| path.to_path_buf());
    Libzip { path: path.display().to_string(), functions }
}
