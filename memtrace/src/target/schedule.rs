//! Whether a thread stood still between two looks at it.
//!
//! A thread's state alone does not tell: on its way to sleep it is a sleeper's while it still runs, and it is one again
//! before the kernel has counted that it left its processor. So both looks ask for more: `/proc/PID/task/TID/syscall` is
//! answered only when the thread is off every processor (`wait_task_inactive` in lib/syscall.c, Linux 3.x and newer). The
//! number of times that it left a processor is read before the first answer and after the second: who ran in between has
//! left one in between, and was counted when that happened (`__schedule` in kernel/sched/core.c).

use std::path::PathBuf;

use super::proc::{status_number, try_text_of};

/// A thread that was off every processor at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standstill {
    pid: u32,
    tid: u32,
    /// How often it had left a processor, no later than at that moment.
    n_switches: u64,
}

impl Standstill {
    /// Thread `tid` of process `pid` now; `None` where it runs, or has ended.
    pub fn begin(pid: u32, tid: u32) -> Option<Self> {
        let n_switches = n_switches(pid, tid)?;
        is_off(pid, tid).then_some(Self { pid, tid, n_switches })
    }

    /// Whether the thread has stood still until now.
    #[must_use]
    pub fn has_lasted(&self) -> bool {
        let Self { pid, tid, n_switches: n_before } = *self;
        is_off(pid, tid) && n_switches(pid, tid) == Some(n_before)
    }
}

fn file(pid: u32, tid: u32, name: &str) -> PathBuf {
    format!("/proc/{pid}/task/{tid}/{name}").into()
}

/// Whether the thread is off every processor; one that has ended is not.
fn is_off(pid: u32, tid: u32) -> bool {
    try_text_of(&file(pid, tid, "syscall")).is_ok_and(|text| is_answer(&text))
}

/// A thread that is off has a system call and its arguments, or -1 where it was interrupted elsewhere.
fn is_answer(text: &str) -> bool {
    text.starts_with(|first: char| first == '-' || first.is_ascii_digit())
}

fn n_switches(pid: u32, tid: u32) -> Option<u64> {
    let status = try_text_of(&file(pid, tid, "status")).ok()?;
    let n_asked = status_number(&status, "voluntary_ctxt_switches:")?;
    let n_forced = status_number(&status, "nonvoluntary_ctxt_switches:")?;
    Some(n_asked.wrapping_add(n_forced))
}

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc,
        thread,
        time::{Duration, Instant},
    };

    use super::*;

    fn own_tid() -> u32 {
        // SAFETY: no preconditions.
        unsafe { libc::gettid() }.cast_unsigned()
    }

    /// What the kernel says of a thread that waits, one that was interrupted, one that runs, and one that is gone.
    #[test]
    fn answers() {
        let cases = [
            ("202 0x7f 0x80 0x0 0x0 0x0 0x0 0x7ffc 0x7f1c\n", true),
            ("-1 0x7ffc 0x7f1c\n", true),
            ("running\n", false),
            ("", false),
        ];
        for (text, is_off) in cases {
            assert_eq!(is_answer(text), is_off, "{text}");
        }
    }

    /// A thread that waits stands still until it gets to run, however shortly; one that computes never does.
    #[test]
    fn waiting_and_running() {
        let pid = std::process::id();
        let (tell, told) = mpsc::channel();
        let (wake, woken) = mpsc::channel::<()>();
        let waiting = thread::spawn(move || {
            tell.send(own_tid()).unwrap();
            while woken.recv().is_ok() {}
            let end = Instant::now() + Duration::from_millis(200);
            while Instant::now() < end {}
        });
        let tid = told.recv().unwrap();
        thread::sleep(Duration::from_millis(50));
        let standstill = Standstill::begin(pid, tid).unwrap();
        assert!(standstill.has_lasted() && standstill.has_lasted());
        wake.send(()).unwrap();
        thread::sleep(Duration::from_millis(50));
        // It waits as before, in the same call.
        assert!(!standstill.has_lasted());
        assert!(Standstill::begin(pid, tid).is_some_and(|now| now.has_lasted()));
        drop(wake);
        thread::sleep(Duration::from_millis(50));
        assert!(Standstill::begin(pid, tid).is_none_or(|now| !now.has_lasted()));
        waiting.join().unwrap();
        assert_eq!(Standstill::begin(pid, tid), None);
    }
}
