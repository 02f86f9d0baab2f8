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

/// The stack pointer of a thread that is off every processor; `None` where it runs, or has ended.
///
/// `NUMBER ARGUMENT… SP PC` in a system call, `-1 SP PC` elsewhere (`proc_pid_syscall` in fs/proc/base.c).
pub fn stack_pointer(pid: u32, tid: u32) -> Option<u64> {
    pointer_in(&try_text_of(&file(pid, tid, "syscall")).ok()?)
}

fn pointer_in(text: &str) -> Option<u64> {
    let mut words = text.split_whitespace().rev();
    let (_pc, pointer) = (words.next()?, words.next()?);
    words.next()?;
    u64::from_str_radix(pointer.strip_prefix("0x")?, 16).ok()
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
    use super::pointer_in;

    /// What the kernel writes for each kind of thread.
    #[test]
    fn stack_pointers() {
        for (text, want) in [
            ("202 0x7f 0x89 0x0 0x0 0x0 0xff 0x7ffd10 0x7f88\n", Some(0x7f_fd10)),
            ("-1 0x7ffd20 0x7f88\n", Some(0x7f_fd20)),
            ("running\n", None),
            ("0x1 0x2\n", None),
            ("", None),
        ] {
            assert_eq!(pointer_in(text), want, "{text:?}");
        }
    }
    use std::{
        sync::{
            Arc,
            atomic::{AtomicU64, Ordering::Relaxed},
            mpsc,
        },
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

    /// Asks `question` until it answers; a busy machine takes its time.
    fn until<T>(what: &str, question: impl Fn() -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(answer) = question() {
                return answer;
            }
            assert!(Instant::now() < deadline, "in a minute: {what}");
            thread::yield_now();
        }
    }

    /// Of a thread that waits, or soon will: for some milliseconds it is seen to stand still.
    fn standstill(tid: u32) -> Standstill {
        until("it stands still", || {
            let begun = Standstill::begin(std::process::id(), tid)?;
            let lasts = |_| {
                thread::sleep(Duration::from_millis(1));
                begun.has_lasted()
            };
            (0..5).all(lasts).then_some(begun)
        })
    }

    /// A thread that waits stands still until it gets to run, however shortly; one that computes does while others have
    /// its processor.
    #[test]
    fn waiting_and_running() {
        let pid = std::process::id();
        let (tell, told) = mpsc::channel();
        let (wake, woken) = mpsc::channel::<()>();
        let n_rounds = Arc::new(AtomicU64::new(0));
        let counted = n_rounds.clone();
        let waiting = thread::spawn(move || {
            tell.send(own_tid()).unwrap();
            while woken.recv().is_ok() {
                tell.send(own_tid()).unwrap();
            }
            // It computes until it is told to end.
            while counted.fetch_add(1, Relaxed) < u64::MAX / 2 {}
        });
        let tid = told.recv().unwrap();
        let before = standstill(tid);
        wake.send(()).unwrap();
        told.recv().unwrap();
        assert!(!before.has_lasted());
        // It waits as before, in the same call.
        let now = standstill(tid);
        assert!(!before.has_lasted());
        drop(wake);
        let runs = || n_rounds.load(Relaxed);
        until("it computes", || (runs() > 0).then_some(()));
        assert!(!now.has_lasted());
        // With one processor, who looks has it.
        if thread::available_parallelism().is_ok_and(|n| n.get() > 1) {
            until("it is seen to run", || Standstill::begin(pid, tid).is_none().then_some(()));
        }
        for _ in 0..100 {
            let Some(off) = Standstill::begin(pid, tid) else { continue };
            let n_before = runs();
            until("it goes on", || (runs() > n_before).then_some(()));
            assert!(!off.has_lasted());
        }
        n_rounds.store(u64::MAX / 2, Relaxed);
        waiting.join().unwrap();
        assert_eq!(Standstill::begin(pid, tid), None);
    }
}
