//! One start of a command: followed to where it is measured, measured, and ended.

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io,
    os::unix::process::ExitStatusExt,
    process::ExitStatus,
    thread,
    time::{Duration, Instant},
};

use super::{Heard, settling::Settling};
use crate::{
    footprint::{self, ResidentError, RowKind},
    target::{
        self,
        group::{Group, Start},
        launch::User,
    },
};

/// How often is looked at memory.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a command that is asked to end may take.
const GRACE: Duration = Duration::from_secs(10);
/// How long what was printed may take to be read.
const READ_PATIENCE: Duration = Duration::from_millis(500);

/// How far a start is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Until resident memory does not change any more.
    Settled,
    /// Until this is seen in its output.
    Seen(String),
    /// For this time.
    Passed(Duration),
}

/// How it is started and followed.
#[derive(Debug)]
pub struct Plan<'a> {
    /// Program and arguments.
    pub command: &'a [String],
    /// What its environment has beside memtrace's own.
    pub environment: &'a [(String, String)],
    /// Who it runs as, where not as memtrace.
    pub user: Option<&'a User>,
    /// Where it is measured.
    pub goal: &'a Goal,
    /// How long it may take until then.
    pub timeout: Duration,
    /// Where what it prints goes, if that is kept.
    pub log: Option<File>,
}

/// What a start came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// Until the text was seen; until memory had settled; until it ended by itself. `None` where it was followed for a time.
    pub startup: Option<Duration>,
    /// The most that was resident of all its processes together.
    pub peak_rss_bytes: u64,
    /// What was resident where it was followed to; `None` if it had ended by itself.
    pub settled: Option<Settled>,
    /// Whether its first process ended, with success, and others went on: they were followed.
    pub has_daemonised: bool,
    /// Processes that could not be ended.
    pub left: Vec<u32>,
}

/// What was resident at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Resident bytes of all its processes.
    pub rss_bytes: u64,
    /// Where they are.
    pub rows: BTreeMap<RowKind, u64>,
    /// The allocators of its processes, as far as they can be told.
    pub allocators: Vec<String>,
    /// How many processes these were.
    pub n_processes: usize,
}

/// Why a start came to nothing.
#[derive(Debug)]
pub enum Failed {
    /// It could not be started.
    NotStarted(io::Error),
    /// It ended in failure, or before a text was seen.
    Ended(ExitStatus),
    /// It did not get so far in time; by how many thousandths memory still changed.
    Late(Duration, u64),
    /// It could not be measured.
    Unmeasured(ResidentError),
    /// The user wants an end.
    Interrupted,
}

impl fmt::Display for Failed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted(error) => write!(out, "failed to start it: {error}"),
            Self::Ended(status) => match (status.code(), status.signal()) {
                (Some(0), _) => write!(out, "it ended before that was seen"),
                (Some(code), _) => write!(out, "it ended with exit status {code}"),
                (None, signal) => write!(out, "signal {} ended it", signal.unwrap_or_default()),
            },
            Self::Late(after, per_mille) => {
                let (seconds, percent) = (after.as_secs(), *per_mille / 10);
                write!(out, "it was not ready after {seconds} s (--timeout)")?;
                write!(out, "; its memory changed by {percent} % in the last 5 s")
            }
            Self::Unmeasured(error) => write!(out, "failed to measure it: {error}"),
            Self::Interrupted => write!(out, "interrupted"),
        }
    }
}

/// Starts the command and follows it to its goal; tells of what is resident meanwhile. It has ended, with everything that
/// it has started, when this returns. `n_asked` is how often the user wants an end: once ends it, twice kills it.
pub fn follow(
    plan: Plan<'_>,
    n_asked: &dyn Fn() -> u32,
    progress: &mut dyn FnMut(Duration, u64),
) -> Result<Run, (Failed, Vec<String>)> {
    let not_started = |error| (Failed::NotStarted(error), Vec::new());
    let text = match plan.goal {
        Goal::Seen(text) => Some(&**text),
        Goal::Settled | Goal::Passed(_) => None,
    };
    let (heard, output) = Heard::begin(text, plan.log).map_err(not_started)?;
    let Plan { command, environment, user, goal, timeout, log: _ } = plan;
    let began = Instant::now();
    let group = Group::start(Start { command, environment, user, output }).map_err(not_started)?;
    let run = Run::default();
    let mut followed = Followed { group, heard, began, run, settling: Settling::default() };
    let result = followed.to(goal, timeout, n_asked, progress);
    followed.run.left = followed.group.end(GRACE, &|| n_asked() > 1);
    followed.heard.finish(READ_PATIENCE);
    match result {
        Ok(()) => Ok(followed.run),
        Err(failed) => Err((failed, followed.heard.last_lines())),
    }
}

/// A command that runs.
struct Followed {
    group: Group,
    heard: Heard,
    began: Instant,
    run: Run,
    settling: Settling,
}

impl Followed {
    fn to(
        &mut self,
        goal: &Goal,
        timeout: Duration,
        n_asked: &dyn Fn() -> u32,
        progress: &mut dyn FnMut(Duration, u64),
    ) -> Result<(), Failed> {
        loop {
            if n_asked() > 0 {
                return Err(Failed::Interrupted);
            }
            let processes = self.group.processes();
            let rss_bytes = self.note_peak(&processes);
            let time = self.began.elapsed();
            let settled_since = self.settling.add(time, rss_bytes);
            progress(time, rss_bytes);
            if self.is_over(goal)? {
                return Ok(());
            }
            let reached = match goal {
                Goal::Settled => settled_since.map(Some),
                Goal::Seen(_) => self.heard.seen().map(|seen| Some(seen - self.began)),
                Goal::Passed(wanted) => (time >= *wanted).then_some(None),
            };
            if let Some(startup) = reached {
                self.run.startup = startup;
                return self.measure();
            }
            if time >= timeout {
                return Err(Failed::Late(time, self.settling.change_per_mille()));
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Whether all has ended by itself, and well.
    fn is_over(&mut self, goal: &Goal) -> Result<bool, Failed> {
        let Some(status) = self.group.status() else { return Ok(false) };
        if !status.success() {
            return Err(Failed::Ended(status));
        }
        if self.group.is_alive() {
            self.run.has_daemonised = true;
            return Ok(false);
        }
        let time = self.began.elapsed();
        self.heard.finish(READ_PATIENCE);
        self.run.has_daemonised = false;
        self.run.startup = match (goal, self.heard.seen()) {
            (Goal::Seen(_), None) => return Err(Failed::Ended(status)),
            (Goal::Seen(_), Some(seen)) => Some(seen - self.began),
            (Goal::Settled | Goal::Passed(_), _) => Some(time),
        };
        Ok(true)
    }

    /// What is resident now of all of them; the most that it ever was is kept.
    fn note_peak(&mut self, processes: &[u32]) -> u64 {
        let rss_bytes = processes.iter().map(|&pid| target::memory(pid).rss_bytes).sum();
        let largest = processes.iter().map(|&pid| target::peak_rss_bytes(pid)).max().unwrap_or(0);
        self.run.peak_rss_bytes = self.run.peak_rss_bytes.max(rss_bytes).max(largest);
        rss_bytes
    }

    /// Where it is resident now.
    fn measure(&mut self) -> Result<(), Failed> {
        let processes = self.group.processes();
        let mut settled = Settled::default();
        for &pid in &processes {
            let footprint = match footprint::take(pid, 0) {
                Ok(footprint) => footprint,
                // It may end at any time.
                Err(_) if !target::is_alive(pid) => continue,
                Err(error) => return Err(Failed::Unmeasured(error)),
            };
            settled.rss_bytes += footprint.rss_bytes;
            settled.n_processes += 1;
            for row in &footprint.rows {
                *settled.rows.entry(row.kind).or_default() += row.resident_bytes;
            }
            let allocator = target::allocator(pid);
            settled.allocators.extend(allocator.filter(|name| !settled.allocators.contains(name)));
        }
        self.note_peak(&processes);
        self.run.peak_rss_bytes = self.run.peak_rss_bytes.max(settled.rss_bytes);
        self.run.settled = Some(settled).filter(|settled| settled.n_processes > 0);
        match self.group.status() {
            Some(status) if !status.success() => Err(Failed::Ended(status)),
            _ => Ok(()),
        }
    }
}
