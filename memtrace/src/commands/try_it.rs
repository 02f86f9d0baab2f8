//! `memtrace try trim|gc PID`: has the JVM do it, and prints what was predicted against what was returned.

use std::process::ExitCode;

use super::{
    args::{TryArgs, TryWhat},
    clock,
    failure::Failure,
    footprint::about,
    outputs,
    outputs::to_stderr,
};
use crate::{
    report::{json, trial},
    target,
    trials::{self, Act},
};

pub(super) fn run(args: &TryArgs) -> Result<ExitCode, Failure> {
    let pid = args.pid;
    if let Err(error) = target::check(pid) {
        let hint = error.hint();
        return Err(Failure::new(error, hint));
    }
    let act = match args.what {
        TryWhat::Trim => Act::Trim,
        TryWhat::Gc => Act::Collect,
    };
    let json = args.json.as_deref().map(outputs::Output::find).transpose()?;
    let is_stdout_taken = args.json.as_deref().is_some_and(outputs::is_stdout);
    let mut tell = |prediction: Option<&trials::Prediction>| {
        if !args.quiet {
            to_stderr(&trial::announcement(act, pid, prediction));
        }
    };
    let done = trials::perform(act, pid, args.timeout, &clock::now_ns, &mut tell);
    let done = done.map_err(|error| {
        let hint = error.hint();
        Failure::new(error, hint)
    })?;
    let target = about(pid);
    if let Some(json) = json {
        json.write(|out| Ok(json::write_trial(&target, &done, out)?))?;
    }
    if !is_stdout_taken {
        outputs::to_stdout_by(|out| Ok(trial::write_text(&target, &done, out)?))?;
    }
    Ok(ExitCode::SUCCESS)
}
