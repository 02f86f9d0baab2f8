//! A command with everything that it starts, to be ended as a whole.
//!
//! Memtrace becomes the parent of those whose own parents end (`PR_SET_CHILD_SUBREAPER`, prctl(2)): so also a daemon, which
//! has left its process group and its session, is known to belong to the command. All children of memtrace belong to it:
//! there is one such command at a time, and nothing else is started beside it.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{
    launch::User,
    pidfd::PidFd,
    proc::{status_field, status_number, try_text_of},
};

/// How often is looked whether all have ended.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long the kernel may take to end a process that is killed.
const KILL_PATIENCE: Duration = Duration::from_secs(10);
/// Lists of processes of which two are to be the same.
const MAX_LISTS: usize = 5;
/// Processes that one command may have.
const MAX_PROCESSES: usize = 65_536;

/// What is to be started.
#[derive(Debug)]
pub struct Start<'a> {
    /// Program and arguments.
    pub command: &'a [String],
    /// What its environment has beside memtrace's own.
    pub environment: &'a [(String, String)],
    /// Who it runs as, where not as memtrace.
    pub user: Option<&'a User>,
    /// Where its output goes, that of errors as well.
    pub output: File,
}

/// A command that runs, or has ended, and all processes that it has started.
#[derive(Debug)]
pub struct Group {
    /// Its first process.
    pub pid: u32,
    status: Option<ExitStatus>,
    has_processes: bool,
    is_over: bool,
}

impl Group {
    /// Starts a command in a process group of its own, with nothing to read. If memtrace is killed, so is its first process.
    ///
    /// # Errors
    ///
    /// As exec fails.
    pub fn start(start: Start<'_>) -> io::Result<Self> {
        let Some((program, arguments)) = start.command.split_first() else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        // SAFETY: takes numbers only.
        if unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let mut child = Command::new(program);
        child.args(arguments).stdin(Stdio::null()).process_group(0);
        child.stderr(start.output.try_clone()?).stdout(start.output);
        if let Some(user) = start.user {
            user.in_environment_of(&mut child);
        }
        child.envs(start.environment.iter().map(|(name, value)| (name, value)));
        let (user, parent) = (start.user.cloned(), std::process::id());
        let in_child = move || {
            if let Some(user) = &user {
                user.become_user()?;
            }
            end_with_parent(parent)
        };
        // SAFETY: the closure makes only async-signal-safe calls and allocates nothing.
        unsafe { child.pre_exec(in_child) };
        let pid = child.spawn()?.id();
        Ok(Self { pid, status: None, has_processes: true, is_over: false })
    }

    /// How the first process ended, if it has.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.reap();
        self.status
    }

    /// Whether there is any that has not ended. A list may miss one that gets another parent meanwhile; this does not.
    pub fn is_alive(&mut self) -> bool {
        self.reap();
        self.has_processes
    }

    /// All of its processes that have not ended, the first one first.
    pub fn processes(&mut self) -> Vec<u32> {
        let mut last = Vec::new();
        for _ in 0..MAX_LISTS {
            if !self.is_alive() {
                return Vec::new();
            }
            let found = descendants_of(std::process::id());
            if found == last && !found.is_empty() {
                break;
            }
            last = found;
        }
        last
    }

    /// Asks all processes to end, and kills those that have not after `grace`, or as soon as `is_hurried`. Returns those
    /// that are left even so: of another user, or in the kernel.
    pub fn end(&mut self, grace: Duration, is_hurried: &dyn Fn() -> bool) -> Vec<u32> {
        send_each(&self.processes(), libc::SIGTERM);
        let asked = Instant::now();
        while self.is_alive() && asked.elapsed() < grace && !is_hurried() {
            thread::sleep(LOOK_EVERY);
        }
        let began = Instant::now();
        while self.is_alive() && began.elapsed() < KILL_PATIENCE {
            // They may have started others meanwhile.
            send_each(&self.processes(), libc::SIGKILL);
            thread::sleep(LOOK_EVERY);
        }
        self.is_over = true;
        self.processes()
    }

    /// Takes note of who has ended.
    fn reap(&mut self) {
        for _ in 0..MAX_PROCESSES {
            let mut status = 0;
            // SAFETY: `status` is written by the call.
            let ended = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
            if ended <= 0 {
                // All that the command has started and that has lost its parent is a child of memtrace's: without one, there
                // is nothing left (ECHILD).
                self.has_processes = ended == 0;
                return;
            }
            if ended.cast_unsigned() == self.pid {
                self.status = Some(ExitStatus::from_raw(status));
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.is_over {
            self.end(Duration::ZERO, &|| true);
        }
    }
}

/// Has the kernel kill this process when memtrace ends, which it may have done already.
fn end_with_parent(parent: u32) -> io::Result<()> {
    // SAFETY: takes numbers only.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: no preconditions.
    let is_orphan = unsafe { libc::getppid() }.cast_unsigned() != parent;
    if is_orphan { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
}

fn send_each(pids: &[u32], signal: libc::c_int) {
    for &pid in pids {
        // One that has ended meanwhile needs no signal; one of another user can't have it, and is left.
        PidFd::open(pid).and_then(|process| process.send(signal)).ok();
    }
}

/// The living processes below `ancestor`, parents first.
fn descendants_of(ancestor: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for (pid, parent) in processes_with_parents() {
        children.entry(parent).or_default().push(pid);
    }
    let mut found = children.remove(&ancestor).unwrap_or_default();
    let mut next = 0;
    while let Some(pid) = found.get(next).copied().filter(|_| found.len() < MAX_PROCESSES) {
        found.extend(children.remove(&pid).unwrap_or_default());
        next += 1;
    }
    found
}

/// All processes that have not ended.
fn processes_with_parents() -> impl Iterator<Item = (u32, u32)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let status = try_text_of(&entry.path().join("status")).ok()?;
        let is_zombie = status_field(&status, "State:")?.starts_with(['Z', 'X']);
        // A process whose first thread has ended is a zombie in name only.
        if is_zombie && super::threads(pid).len() < 2 {
            return None;
        }
        Some((pid, u32::try_from(status_number(&status, "PPid:")?).ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Children's children are found, and only what is below.
    #[test]
    fn descendants() {
        let mut shell =
            Command::new("sh").args(["-c", "sleep 100 & wait"]).spawn().expect("sh is there");
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut below = Vec::new();
        while below.is_empty() && Instant::now() < deadline {
            below = descendants_of(shell.id());
        }
        assert_eq!(below.len(), 1, "{below:?}");
        assert!(descendants_of(std::process::id()).contains(&below[0]));
        assert!(descendants_of(below[0]).is_empty());
        send_each(&[shell.id(), below[0]], libc::SIGKILL);
        shell.wait().unwrap();
    }
}
