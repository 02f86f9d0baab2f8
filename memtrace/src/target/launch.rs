//! Starting a command so that it can be traced from its first instruction: it waits before exec until it is released.

use std::{
    ffi::CString,
    io,
    io::{Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    process::{Command, ExitStatus},
    sync::mpsc,
    thread,
};

use anyhow::{Context, Result, anyhow};

use super::pidfd::PidFd;

/// How the child ends whose command never begins.
const NEVER_RELEASED: i32 = 1;

/// Who a command runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The user's name.
    pub name: String,
    uid: libc::uid_t,
    gid: libc::gid_t,
    groups: Vec<libc::gid_t>,
    home: String,
    shell: String,
}

/// A command that was started and waits to be released.
#[derive(Debug)]
pub struct Waiting {
    /// Its process id.
    pub pid: u32,
    pidfd: PidFd,
    gate: io::PipeWriter,
    result: mpsc::Receiver<io::Result<()>>,
    /// How it ended; the thread that waits for it sends that.
    ended: mpsc::Receiver<io::Result<ExitStatus>>,
}

/// A command that runs.
#[derive(Debug)]
pub struct Running {
    /// Its process id.
    pub pid: u32,
    pidfd: PidFd,
    ended: mpsc::Receiver<io::Result<ExitStatus>>,
}

impl User {
    /// Looks up `name`.
    pub fn find(name: &str) -> Result<Self> {
        let c_name = CString::new(name).context("a user name can't hold a zero byte")?;
        let mut buffer = vec![0; 16 << 10];
        // SAFETY: all zero is a valid `passwd`: integers and null pointers.
        let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
        let mut found = std::ptr::null_mut();
        // SAFETY: the buffers outlive the call, and their sizes are theirs.
        let error = unsafe {
            libc::getpwnam_r(
                c_name.as_ptr(),
                &raw mut entry,
                buffer.as_mut_ptr(),
                buffer.len(),
                &raw mut found,
            )
        };
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error))
                .with_context(|| format!("failed to look up user {name}"));
        }
        if found.is_null() {
            return Err(anyhow!("there is no user {name}"));
        }
        // SAFETY: the entry was filled in: its strings end with zeros and lie in `buffer`.
        let text =
            |pointer| unsafe { std::ffi::CStr::from_ptr(pointer) }.to_string_lossy().into_owned();
        Ok(Self {
            name: name.to_owned(),
            uid: entry.pw_uid,
            gid: entry.pw_gid,
            groups: groups(&c_name, entry.pw_gid),
            home: text(entry.pw_dir),
            shell: text(entry.pw_shell),
        })
    }

    /// The user who called sudo, if memtrace was called so.
    pub fn behind_sudo() -> Result<Option<Self>> {
        match std::env::var("SUDO_USER") {
            Ok(name) if name != "root" && !name.is_empty() => Self::find(&name).map(Some),
            _ => Ok(None),
        }
    }

    /// The user's id and group, to whom files that memtrace writes belong.
    pub fn ids(&self) -> (u32, u32) {
        (self.uid, self.gid)
    }

    /// The environment of `command` becomes this user's.
    pub(super) fn in_environment_of(&self, command: &mut Command) {
        command
            .env("HOME", &self.home)
            .env("SHELL", &self.shell)
            .env("USER", &self.name)
            .env("LOGNAME", &self.name);
    }

    /// Becomes this user; for the child, between fork and exec.
    pub(super) fn become_user(&self) -> io::Result<()> {
        // SAFETY: the list and its length belong together.
        check(unsafe { libc::setgroups(self.groups.len(), self.groups.as_ptr()) })?;
        // SAFETY: no memory is involved.
        check(unsafe { libc::setgid(self.gid) })?;
        // SAFETY: no memory is involved.
        check(unsafe { libc::setuid(self.uid) })
    }
}

/// Starts `command`, as `user` if one is given, up to just before its exec.
pub fn start(command: &[String], user: Option<User>) -> Result<Waiting> {
    let (program, arguments) = command.split_first().context("there is no command to start")?;
    let (mut pid_reader, pid_writer) = io::pipe().context("failed to make a pipe")?;
    let (gate_reader, gate) = io::pipe().context("failed to make a pipe")?;
    let mut child = Command::new(program);
    child.args(arguments);
    if let Some(user) = &user {
        user.in_environment_of(&mut child);
    }
    // The child gets a copy of the gate's other end, too: as long as it has that, it can't see memtrace close it.
    let other_end = gate.as_raw_fd();
    wait_before_exec(&mut child, pid_writer.into(), gate_reader.into(), other_end, user);
    let (result_sender, result) = mpsc::channel();
    let (ended_sender, ended) = mpsc::channel();
    // `spawn` returns when exec has succeeded or failed, and so not before the child is released.
    thread::Builder::new().name("launch".into()).spawn(move || {
        let spawned = child.spawn();
        drop(child);
        match spawned {
            Ok(mut running) => {
                result_sender.send(Ok(())).ok();
                ended_sender.send(running.wait()).ok();
            }
            Err(error) => {
                result_sender.send(Err(error)).ok();
            }
        }
    })?;
    let mut pid = [0; 4];
    if pid_reader.read_exact(&mut pid).is_err() {
        let error = result.recv().ok().and_then(Result::err);
        return Err(error.unwrap_or_else(io::Error::last_os_error))
            .context(format!("failed to start {program}"));
    }
    let pid = u32::from_ne_bytes(pid);
    // It waits at its gate, so that this is still it.
    let pidfd = PidFd::open(pid).with_context(|| format!("failed to watch process {pid}"))?;
    Ok(Waiting { pid, pidfd, gate, result, ended })
}

/// The child tells its pid and waits for a byte; only calls that are allowed after a fork are made.
fn wait_before_exec(
    child: &mut Command,
    pid_writer: OwnedFd,
    gate_reader: OwnedFd,
    other_end: RawFd,
    user: Option<User>,
) {
    let in_child = move || {
        // SAFETY: in the child, nothing uses this copy.
        check(unsafe { libc::close(other_end) })?;
        if let Some(user) = &user {
            user.become_user()?;
        }
        // SAFETY: no memory is involved.
        let pid = unsafe { libc::getpid() }.to_ne_bytes();
        // SAFETY: the buffer is 4 bytes.
        let written = unsafe { libc::write(pid_writer.as_raw_fd(), pid.as_ptr().cast(), 4) };
        check((written != 4).into())?;
        let mut byte = 0_u8;
        // SAFETY: the buffer is one byte.
        let read = unsafe { libc::read(gate_reader.as_raw_fd(), (&raw mut byte).cast(), 1) };
        if read != 1 {
            // memtrace failed meanwhile and says so; it may not even be there any more to be told of this end.
            // SAFETY: no memory is involved.
            unsafe { libc::_exit(NEVER_RELEASED) };
        }
        Ok(())
    };
    // SAFETY: the closure makes only async-signal-safe calls and allocates nothing.
    unsafe { child.pre_exec(in_child) };
}

impl Waiting {
    /// Lets the command run; fails as exec fails.
    pub fn release(mut self) -> io::Result<Running> {
        self.gate.write_all(&[1])?;
        self.result.recv().map_err(io::Error::other)??;
        Ok(Running { pid: self.pid, pidfd: self.pidfd, ended: self.ended })
    }
}

impl Running {
    /// Waits until the command has ended.
    pub fn wait(&self) -> io::Result<ExitStatus> {
        self.ended.recv().map_err(io::Error::other)?
    }

    /// How the command ended, if it has.
    pub fn try_wait(&self) -> Option<ExitStatus> {
        self.ended.try_recv().ok()?.ok()
    }

    /// Asks the command to end. By its pid another process might be asked: it ends and is waited for at any time.
    pub fn terminate(&self) -> io::Result<()> {
        self.pidfd.send(libc::SIGTERM)
    }
}

fn groups(name: &std::ffi::CStr, gid: libc::gid_t) -> Vec<libc::gid_t> {
    let mut groups = vec![gid; 256];
    let mut n: libc::c_int = 256;
    // SAFETY: the list has room for `n` groups.
    if unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &raw mut n) } < 0 {
        return vec![gid];
    }
    groups.truncate(usize::try_from(n).unwrap_or(1));
    groups
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    /// The command has not begun before it is released, and its status comes back.
    #[test]
    fn waits_and_runs() {
        let waiting = start(&command(&["sh", "-c", "exit 7"]), None).unwrap();
        let before = std::fs::read_to_string(format!("/proc/{}/comm", waiting.pid)).unwrap();
        assert_ne!(before.trim(), "sh");
        let running = waiting.release().unwrap();
        assert_eq!(running.wait().unwrap().code(), Some(7));
    }

    /// A command that is never released ends: memtrace failed before it came to that.
    #[test]
    fn never_released() {
        let waiting = start(&command(&["sleep", "1000"]), None).unwrap();
        let Waiting { gate, ended, .. } = waiting;
        drop(gate);
        assert_eq!(ended.recv().unwrap().unwrap().code(), Some(NEVER_RELEASED));
    }

    #[test]
    fn what_does_not_exist() {
        let waiting = start(&command(&["/no/such/program"]), None).unwrap();
        assert_eq!(waiting.release().unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    /// A child that has process id `pid`, waits to be killed, and tells by what it was.
    fn newcomer(pid: u32) -> io::Result<impl FnOnce() -> libc::c_int> {
        let set_tid = [pid];
        // SAFETY: all of its fields are numbers, for which 0 is a value.
        let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
        arguments.exit_signal = libc::SIGCHLD as u64;
        arguments.set_tid = set_tid.as_ptr() as u64;
        arguments.set_tid_size = 1;
        let (arguments, size) = (&raw const arguments, size_of::<libc::clone_args>());
        // SAFETY: as fork does; the child makes only calls that are allowed after a fork.
        match unsafe { libc::syscall(libc::SYS_clone3, arguments, size) } {
            -1 => Err(io::Error::last_os_error()),
            0 => loop {
                // SAFETY: no memory is involved.
                unsafe { libc::pause() };
            },
            child => Ok(move || {
                let mut status = 0;
                // SAFETY: the child is this process's own, `status` is written by the call.
                unsafe {
                    libc::kill(child as i32, libc::SIGKILL);
                    libc::waitpid(child as i32, &raw mut status, 0);
                }
                libc::WTERMSIG(status)
            }),
        }
    }

    /// A command that has ended is not asked to end, whoever has its process id now.
    #[test]
    fn reused_pid() {
        let running = start(&command(&["true"]), None).unwrap().release().unwrap();
        running.wait().unwrap();
        // Giving out a process id takes rights that only root has; without them nobody has it now.
        let newcomer = newcomer(running.pid).ok();
        let error = running.terminate().unwrap_err();
        assert_eq!(newcomer.map_or(libc::SIGKILL, |killed_by| killed_by()), libc::SIGKILL);
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    fn users() {
        assert_eq!(User::find("root").unwrap().ids(), (0, 0));
        assert_eq!(
            User::find("no such user").unwrap_err().to_string(),
            "there is no user no such user"
        );
    }
}
