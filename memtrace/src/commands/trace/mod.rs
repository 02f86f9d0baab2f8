//! Tracing: a running process, or a command from its first instruction.

mod before;
mod behind;
mod capturing;
mod conduct;
mod follow;
mod inputs;
mod looking;
mod naming;
mod processes;
mod records;
mod session;
mod tally;

use std::{
    io,
    os::unix::process::ExitStatusExt,
    process::{ExitCode, ExitStatus},
};

use anyhow::{Context, anyhow};

use self::{follow::follow, inputs::Inputs, records::Records, session::Session};
use super::{
    args::TraceArgs,
    clock,
    failure::Failure,
    jstack::{self, SavedNames},
    outputs::{self, Outputs, to_stderr},
};
use crate::{
    probes::{self, Probes},
    report::escape,
    target::{
        self,
        launch::{self, Running, User, Waiting},
    },
    trace::{Recording, Why},
};

/// Its pages are mapped twice and so count twice in memtrace's own memory.
pub(super) const RING_BYTES: u32 = 32 << 20;

/// As `env` has them.
const MEMTRACE_FAILED: u8 = 125;
const NOT_RUNNABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

pub(super) fn run(args: &TraceArgs) -> Result<ExitCode, Failure> {
    let is_launch = args.pid.is_none();
    trace(args)
        .map_err(|failure| if is_launch { failure.or_code(MEMTRACE_FAILED) } else { failure })
}

fn trace(args: &TraceArgs) -> Result<ExitCode, Failure> {
    init_log(args.outputs.verbose);
    args.check()?;
    let subject = Subject::find(args)?;
    // A command that waits to be run has been made already, with the limit that memtrace was started with.
    conduct::allow_many_files();
    let (path, of_command) = (args.output.as_deref(), args.pid.is_none());
    let outputs = Outputs::open(&args.outputs, outputs::Trace::Recorded { path, of_command })?;
    let records = Records::open(args)?;
    let names = match &args.outputs.jstack {
        Some(path) if !jstack::is_attach(path) => jstack::of_process(subject.pid(), path)?,
        _ => SavedNames::default(),
    };
    let options = probes::Options {
        ring_bytes: RING_BYTES,
        debug: args.outputs.verbose >= 2,
        zlib: args.zlib,
        blocks: args.blocks(),
        min_block_bytes: args.min_size.unwrap_or_default(),
        bare: args.bare_probes,
        sessions: !args.single_probes,
    };
    let mut probes = Probes::load(options)?;
    // A command's children belong to it; whoever attaches decides.
    probes.add_target(subject.pid(), args.follow || args.pid.is_none())?;
    subject.probe_ahead(&mut probes);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("failed to start the event loop")?;
    let inputs = {
        let _inside = runtime.enter();
        Inputs::new(&mut probes, args, subject.pid())?
    };
    let mut session = Session::new(subject.pid(), args, probes, records);
    session.begin_capture()?;
    match &subject {
        Subject::Process(_) => {
            session.begin_process()?;
            if let Some(warning) = session.warning().filter(|_| !args.outputs.quiet) {
                to_stderr(&format!("memtrace: warning: {warning}\n"));
            }
        }
        Subject::Command(..) => session.begin_command()?,
    }
    conduct::hurry();
    if !args.outputs.quiet {
        to_stderr(&format!("memtrace: tracing {}; Ctrl-C ends the trace\n", subject.name()));
    }
    let running = subject.release()?;
    // Only now is it certain that there will be a trace.
    session.begin_file();
    if running.is_some() {
        session.name_target(args.start.clone());
    }
    let (recording, why) = runtime.block_on(follow(session, inputs, args, names));
    let written = outputs.write(&recording, &args.outputs);
    tell_file_end(&recording, args);
    // Whatever became of the outputs: the command is not left alone.
    let status = running.map(|running| end_of(&running, why, args.outputs.quiet)).transpose()?;
    written?;
    match (status, why) {
        (_, Why::OutputFailed) => {
            Err(anyhow!("the trace ended early: its file could not be written").into())
        }
        (None, _) => Ok(ExitCode::SUCCESS),
        (Some(status), _) => Ok(status_of(status)),
    }
}

/// What is traced.
enum Subject {
    Process(u32),
    Command(Waiting, Vec<String>),
}

impl Subject {
    fn find(args: &TraceArgs) -> Result<Self, Failure> {
        let Some(pid) = args.pid else { return Self::start(args) };
        match target::check(pid) {
            Ok(()) => Ok(Self::Process(pid)),
            Err(error) => {
                let hint = error.hint();
                Err(Failure::new(error, hint))
            }
        }
    }

    fn start(args: &TraceArgs) -> Result<Self, Failure> {
        let user = match &args.user {
            Some(name) => Some(User::find(name)?),
            None => User::behind_sudo()?,
        };
        if let Some(user) = user.as_ref().filter(|_| !args.outputs.quiet) {
            let why =
                if args.user.is_some() { "--user" } else { "who called sudo; --user changes that" };
            to_stderr(&format!("memtrace: running {} as {} ({why})\n", args.start[0], user.name));
        }
        if let Some(path) = target::resolve_command(&args.start[0]) {
            target::check_program(&path).map_err(anyhow::Error::from)?;
        }
        Ok(Self::Command(launch::start(&args.start, user)?, args.start.clone()))
    }

    fn pid(&self) -> u32 {
        match self {
            Self::Process(pid) => *pid,
            Self::Command(waiting, _) => waiting.pid,
        }
    }

    fn name(&self) -> String {
        let (pid, command) = match self {
            Self::Process(pid) => (*pid, target::command_line(*pid)),
            Self::Command(waiting, command) => (waiting.pid, command.clone()),
        };
        format!("process {pid} ({})", escape::line(command.first().map_or("?", String::as_str)))
    }

    /// A Java launcher's zlib is probed before it runs, so that its very first Inflater is seen; and so is a command's
    /// allocator.
    fn probe_ahead(&self, probes: &mut Probes) {
        let Self::Command(waiting, command) = self else { return };
        if probes.wants_allocators() {
            let path = target::resolve_command(&command[0]);
            for file in path.iter().flat_map(|path| target::code_files_ahead(path)) {
                if let Err(error) = probes.attach_allocator(waiting.pid, &file) {
                    log::warn!("{error:#}");
                }
            }
        }
        for library in target::resolve_command(&command[0])
            .iter()
            .flat_map(|path| target::launcher_zlib_libraries(path))
        {
            if let Err(error) = probes.attach_zlib(&library) {
                log::warn!("{error:#}");
            }
        }
    }

    fn release(self) -> Result<Option<Running>, Failure> {
        let Self::Command(waiting, command) = self else { return Ok(None) };
        waiting.release().map(Some).map_err(|error| {
            let code =
                if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUNNABLE };
            Failure::new(anyhow!("failed to run {}: {error}", command[0]), None).with_code(code)
        })
    }
}

/// Says where the trace is, for the next step.
fn tell_file_end(recording: &Recording, args: &TraceArgs) {
    let complete = recording.end.is_some_and(|end| end.why != Why::OutputFailed);
    let says = complete && !args.outputs.quiet;
    if let Some(path) = args.output.as_ref().filter(|path| says && !outputs::is_stdout(path)) {
        to_stderr(&format!(
            "memtrace: the trace is in {0}; read it with `memtrace report {0}`\n",
            path.display()
        ));
    }
}

/// Waits for the command; one that still runs because the user ended the trace is asked to end.
fn end_of(running: &Running, why: Why, quiet: bool) -> Result<ExitStatus, Failure> {
    if let Some(status) = running.try_wait() {
        return Ok(status);
    }
    conduct::listen_no_more();
    let told = match why {
        // It may have ended meanwhile, too.
        Why::Asked => running.terminate().map_or("ended", |()| "asked to end (SIGTERM)"),
        Why::TargetEnded => "ended",
        Why::Duration | Why::OutputFailed => "still running; memtrace waits for its end",
    };
    if !quiet && why != Why::TargetEnded {
        to_stderr(&format!("memtrace: the command (process {}) is {told}\n", running.pid));
    }
    Ok(running.wait().context("failed to wait for the command")?)
}

fn status_of(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    ExitCode::from(code.and_then(|code| u8::try_from(code & 0xff).ok()).unwrap_or(MEMTRACE_FAILED))
}

fn init_log(verbose: u8) {
    let level = match verbose {
        0 => log::LevelFilter::Error,
        1 => log::LevelFilter::Info,
        _ => log::LevelFilter::Debug,
    };
    // The kernel side's messages come as `memtrace_ebpf`; the symbolizer's own are of no use to anyone.
    let mut logger = env_logger::Builder::new();
    logger.filter_module("memtrace", level).filter_module("memtrace_ebpf", level);
    logger.format_timestamp(None).try_init().ok();
}
