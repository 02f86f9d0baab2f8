//! A process that is meant for good: its pid may be given to another once it has ended, its pidfd never means another.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

/// A handle on a process.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// The process that has id `pid` now. Linux 5.3.
    pub fn open(pid: u32) -> io::Result<Self> {
        // SAFETY: takes two numbers.
        let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
        // SAFETY: the call has made this descriptor; nobody else has it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    /// Sends a signal; fails if the process has ended. Linux 5.1.
    pub fn send(&self, signal: libc::c_int) -> io::Result<()> {
        let (fd, info) = (self.0.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
        // SAFETY: a null `info` makes the kernel fill it in as `kill` does.
        check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, info, 0) })?;
        Ok(())
    }

    /// Whether the process has ended.
    pub fn has_ended(&self) -> io::Result<bool> {
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: the kernel writes `revents` of the one element, which is borrowed exclusively here.
        check(unsafe { libc::poll(&raw mut poll, 1, 0) }.into())?;
        Ok(poll.revents != 0)
    }
}

/// Turns a system call's -1 into its error.
fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
