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
    report::doctor::{AllocatorFile, Check, Libzip, doctor, is_well, of_kernel, of_process},
    target::{self, Library, Situation},
};

pub(super) fn run(args: &DoctorArgs) -> Result<ExitCode, Failure> {
    let mut checks = of_kernel(&Features::find(RING_BYTES));
    checks.extend(args.pid.map(check_process).unwrap_or_default());
    if args.verbose == 0 {
        checks.iter_mut().for_each(|check| check.details.clear());
    }
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
    of_process(&situation, &allocator_files(pid), &libzips)
}

/// The files of process `pid` that have an allocator, and those that can't be looked at.
fn allocator_files(pid: u32) -> Vec<AllocatorFile> {
    let look = |file: io::Result<Library>| match file {
        Ok(library) => {
            let functions = Probes::allocator_functions(&library).map_err(|error| one_line(&error));
            AllocatorFile { path: library.name().display().to_string(), functions }
        }
        Err(error) => AllocatorFile {
            path: "a file with code".into(),
            functions: Err(format!("failed to open it: {error}")),
        },
    };
    let mut files: Vec<_> = target::code_files(pid, |_| false).into_iter().map(look).collect();
    files.retain(|file| file.functions.as_ref().map_or(true, |functions| !functions.is_empty()));
    files
}

fn libzip(library: &Library) -> Libzip {
    let functions = Probes::zlib_functions(library).map_err(|error| one_line(&error));
    Libzip { path: library.name().display().to_string(), functions }
}
