//! A thread that is held for as long as its stack is copied: the one thing here that acts on a process, and only where a
//! flag asks for it by name.
//!
//! In: a thread. Out: its registers, and that it stands still until [`Held`] is dropped. If memtrace itself is killed, the
//! kernel lets go of what it holds (ptrace(2), "Death under ptrace").

use std::{
    io, ptr, thread,
    time::{Duration, Instant},
};

use memtrace_common::{Regs, ThreadRegisters};

/// How long a thread may take to stop. One that waits for a disk can't be stopped; it is let go of when the thread ends
/// that asked it to.
const PATIENCE: Duration = Duration::from_millis(200);
const LOOK_EVERY: Duration = Duration::from_micros(50);
/// `PTRACE_EVENT_STOP` (include/uapi/linux/ptrace.h): it stopped because it was asked to, not for a signal.
const EVENT_STOP: i32 = 128;

/// A thread that stands still until this is dropped.
#[derive(Debug)]
pub struct Held {
    tid: libc::pid_t,
    /// The signal that it was about to get when it stopped, and gets when it goes on; 0 if none.
    signal: i32,
    /// Its registers.
    pub registers: ThreadRegisters,
}

impl Held {
    /// Stops thread `tid` of the initial pid namespace.
    pub fn stop(tid: u32) -> io::Result<Self> {
        let mut held =
            Self { tid: tid.cast_signed(), signal: 0, registers: ThreadRegisters::default() };
        held.request(libc::PTRACE_SEIZE, 0)?;
        held.request(libc::PTRACE_INTERRUPT, 0)?;
        held.signal = held.await_stop()?;
        held.registers = held.read_registers()?;
        Ok(held)
    }

    /// Waits until it has stopped; returns the signal that it was about to get.
    fn await_stop(&self) -> io::Result<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut status = 0;
            let flags = libc::__WALL | libc::WNOHANG;
            // SAFETY: `status` is written by the call.
            let tid = unsafe { libc::waitpid(self.tid, &raw mut status, flags) };
            if tid == self.tid && libc::WIFSTOPPED(status) {
                let is_asked = status >> 16 == EVENT_STOP;
                return Ok(if is_asked { 0 } else { libc::WSTOPSIG(status) });
            }
            if tid != 0 {
                let ended = || io::Error::new(io::ErrorKind::NotFound, "it has ended");
                return Err(if tid < 0 { io::Error::last_os_error() } else { ended() });
            }
            if Instant::now() > deadline {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "it did not stop in time"));
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    fn read_registers(&self) -> io::Result<ThreadRegisters> {
        // SAFETY: the structure consists of integers.
        let mut all: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        self.request(libc::PTRACE_GETREGS, &raw mut all as usize)?;
        let regs = Regs {
            ip: all.rip,
            sp: all.rsp,
            bp: all.rbp,
            bx: all.rbx,
            r12: all.r12,
            r13: all.r13,
            r14: all.r14,
            r15: all.r15,
        };
        Ok(ThreadRegisters {
            regs,
            fs_base: all.fs_base,
            tid: self.tid.cast_unsigned(),
            reserved: 0,
        })
    }

    fn request(&self, request: libc::c_uint, data: usize) -> io::Result<()> {
        let none = ptr::null_mut::<libc::c_void>();
        // SAFETY: `data` is a number, or, for the registers, the address of room for them that lives in the caller.
        let result = unsafe { libc::ptrace(request, self.tid, none, data as *mut libc::c_void) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Fails where the thread has not stopped, or is gone: there is nothing to let go of then.
        self.request(libc::PTRACE_DETACH, self.signal as usize).ok();
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::target::proc;

    fn state(pid: u32) -> String {
        let status = proc::text(pid, "status");
        proc::status_field(&status, "State:").unwrap_or_default().to_owned()
    }

    /// A process stands still as long as it is held, and goes on then; one that is stopped already stays stopped.
    #[test]
    fn holds_and_lets_go() {
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let pid = child.id();
        for is_stopped in [false, true] {
            if is_stopped {
                // SAFETY: takes numbers; the process is our child.
                unsafe { libc::kill(pid.cast_signed(), libc::SIGSTOP) };
                thread::sleep(Duration::from_millis(100));
            }
            let held = Held::stop(pid).unwrap();
            assert!(held.registers.regs.ip != 0 && held.registers.regs.sp != 0);
            assert!(state(pid).starts_with('t'), "{}", state(pid));
            drop(held);
            thread::sleep(Duration::from_millis(100));
            let expected = if is_stopped { 'T' } else { 'S' };
            assert!(state(pid).starts_with(expected), "{}", state(pid));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(Held::stop(pid).is_err());
    }
}
