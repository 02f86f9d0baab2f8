//! What the kernel says about the resources of a process.
//!
//! In: a child. Out: its exit status with CPU time and largest RSS, and the clock
//! that they are set beside.

use std::{
    io, mem,
    os::unix::process::ExitStatusExt,
    process::{Child, ExitStatus},
};

/// What a process and the children that it waited for used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Usage {
    /// CPU time, user and system.
    pub(crate) cpu_seconds: f64,
    /// The largest resident size of any of them.
    pub(crate) max_rss_bytes: u64,
}

impl Usage {
    /// What this process alone has used so far.
    pub(crate) fn of_this_process() -> Self {
        // SAFETY: rusage is plain numbers, for which zero bytes are valid.
        let mut usage: libc::rusage = unsafe { mem::zeroed() };
        // SAFETY: `usage` is a live rusage; getrusage writes it and nothing else.
        unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
        Self::from(usage)
    }
}

impl From<libc::rusage> for Usage {
    fn from(usage: libc::rusage) -> Self {
        let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
        Self {
            cpu_seconds: seconds(usage.ru_utime) + seconds(usage.ru_stime),
            max_rss_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
        }
    }
}

/// Waits for a child to end.
pub(crate) fn wait(child: &Child) -> io::Result<(ExitStatus, Usage)> {
    let (pid, mut status) = (pid(child), 0);
    // SAFETY: rusage is plain numbers, for which zero bytes are valid.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    loop {
        // SAFETY: `status` and `usage` are live and of the types that wait4 writes.
        let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
        if waited == pid {
            return Ok((ExitStatus::from_raw(status), Usage::from(usage)));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Asks a process to end in order. In the background of a shell it would not hear SIGINT: that is ignored there, and
/// passed on so.
pub(crate) fn ask_to_end(child: &Child) {
    // SAFETY: kill takes two numbers and touches no memory. The process is a child that nobody
    // has waited for, so its id cannot have passed to another process.
    unsafe { libc::kill(pid(child), libc::SIGTERM) };
}

fn pid(child: &Child) -> libc::pid_t {
    // std keeps the kernel's pid_t as an unsigned number.
    child.id().cast_signed()
}

/// The monotonic clock.
pub(crate) fn now_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a live timespec; clock_gettime writes it and nothing else.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000
        + u64::try_from(time.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn waiting_gives_status_and_usage() {
        let mut child = Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap();
        let (status, usage) = wait(&child).unwrap();
        assert_eq!(status.code(), Some(7));
        assert!(usage.max_rss_bytes > 0 && usage.cpu_seconds < 5.0, "{usage:?}");
        assert!(child.wait().is_err(), "a child can be waited for once");
    }

    #[test]
    fn asking_ends_a_child() {
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        ask_to_end(&child);
        let (status, _) = wait(&child).unwrap();
        assert_eq!(status.signal(), Some(libc::SIGTERM));
        assert!(child.wait().is_err(), "already waited for");
    }

    #[test]
    fn clock_goes_on() {
        let before = now_ns();
        assert!(now_ns() >= before && before > 0);
    }
}
