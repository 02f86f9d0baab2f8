//! `memtrace footprint PID`: where the resident bytes of a process are at this moment.

mod diff;
mod watch;

use std::process::ExitCode;

use super::{args::FootprintArgs, clock, failure::Failure, outputs};
use crate::{
    footprint::{self, ResidentError, Wanted},
    report::{
        footprint::{FootprintNow, write_text},
        json,
    },
    target::{self, JavaHome},
    trace::{Jvm, Target},
};

pub(super) fn run(args: &FootprintArgs) -> Result<ExitCode, Failure> {
    if let [before, after] = &args.diff[..] {
        return diff::run(before, after);
    }
    let Some(pid) = args.pid else {
        return Err(anyhow::anyhow!("a process id is missing").into());
    };
    if let Err(error) = target::check(pid) {
        let hint = error.hint();
        return Err(Failure::new(error, hint));
    }
    let wanted = Wanted { contents: args.peek };
    if let Some(every) = args.watch {
        return watch::run(pid, wanted, every, args.json.as_deref());
    }
    let json = args.json.as_deref().map(outputs::Output::find).transpose()?;
    let is_stdout_taken = args.json.as_deref().is_some_and(outputs::is_stdout);
    let now = FootprintNow { target: about(pid), footprint: take(pid, wanted)? };
    if let Some(json) = json {
        json.write(|out| Ok(json::write_footprint(&now, out)?))?;
    }
    if !is_stdout_taken {
        outputs::to_stdout_by(|out| Ok(write_text(&now, out)?))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The footprint of this moment.
fn take(pid: u32, wanted: Wanted) -> Result<footprint::Footprint, Failure> {
    footprint::take_with(pid, clock::now_ns(), wanted).map_err(|error| {
        let needs_root = matches!(error, ResidentError::NoPermission(_));
        let hint = format!("try it with `sudo memtrace footprint {pid}`");
        Failure::new(error, needs_root.then_some(hint))
    })
}

/// What process it is.
pub(super) fn about(pid: u32) -> Target {
    let jvm = JavaHome::of_process(pid).map(|home| {
        let version = home.version().unwrap_or_default();
        Jvm { major: target::feature_release(&version), version }
    });
    let allocator = target::allocator(pid);
    Target { pid, command: target::command_line(pid), allocator, jvm }
}
