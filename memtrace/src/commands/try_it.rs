//! `memtrace try trim|gc PID`: has the JVM do it, and prints what was predicted against what was returned.

use std::{
    process::ExitCode,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use anyhow::{Context, anyhow};

use super::{
    args::{TryArgs, TryWhat},
    clock,
    failure::Failure,
    footprint::about,
    interrupts::Interrupts,
    outputs,
    outputs::to_stderr,
};
use crate::{
    report::{json, trial},
    target,
    trials::{self, Act, Prediction, Trial},
};

/// How often is looked whether the user wants an end.
const LOOK_EVERY: Duration = Duration::from_millis(50);

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
    let done = perform(act, args)?;
    let target = about(pid);
    if let Some(json) = json {
        json.write(|out| Ok(json::write_trial(&target, &done, out)?))?;
    }
    if !is_stdout_taken {
        outputs::to_stdout_by(|out| Ok(trial::write_text(&target, &done, out)?))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Lets a question that is under way come to its end, which leaves nothing behind, unless the user insists.
fn perform(act: Act, args: &TryArgs) -> Result<Trial, Failure> {
    let (pid, timeout, is_quiet) = (args.pid, args.timeout, args.quiet);
    let interrupts = Interrupts::listen()?;
    let (sender, receiver) = mpsc::sync_channel(1);
    let perform = move || {
        let mut tell = |prediction: Option<&Prediction>| {
            if !is_quiet {
                to_stderr(&trial::announcement(act, pid, prediction));
            }
        };
        sender.send(trials::perform(act, pid, timeout, &clock::now_ns, &mut tell)).ok();
    };
    thread::Builder::new().name("trial".into()).spawn(perform).context("failed to begin")?;
    let mut n_told = 0;
    loop {
        match receiver.recv_timeout(LOOK_EVERY) {
            Ok(done) => {
                return done.map_err(|error| {
                    let hint = error.hint();
                    Failure::new(error, hint)
                });
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(anyhow!("the trial broke off").into());
            }
        }
        match interrupts.count() {
            0 => {}
            1 if n_told == 1 => {}
            1 => {
                n_told = 1;
                to_stderr("memtrace: waiting for the JVM's answer; Ctrl-C again does not wait\n");
            }
            _ => return Err(anyhow!("ended by the user; the JVM may still do it").into()),
        }
    }
}
