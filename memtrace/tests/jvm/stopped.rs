//! A thread of another process that is stopped, and steps by single instructions.

/// A thread that is stopped until this is dropped.
pub(crate) struct Stopped {
    tid: libc::pid_t,
    pub(crate) regs: libc::user_regs_struct,
    /// The signal that it has to get yet; 0 if none.
    signal: i32,
}

impl Stopped {
    pub(crate) fn new(tid: u32) -> Self {
        let tid = tid.cast_signed();
        let request = |request, data: *mut libc::c_void| {
            // SAFETY: `data` is null or room for the registers, which is what these requests want.
            let result =
                unsafe { libc::ptrace(request, tid, std::ptr::null_mut::<libc::c_void>(), data) };
            assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        };
        request(libc::PTRACE_SEIZE, std::ptr::null_mut());
        request(libc::PTRACE_INTERRUPT, std::ptr::null_mut());
        let mut status = 0;
        // SAFETY: `status` is a number that is written to.
        assert_eq!(unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL) }, tid);
        Self { tid, regs: registers(tid), signal: 0 }
    }

    /// Lets it execute one instruction; `None` where a signal came instead, which it is left with.
    pub(crate) fn step(&mut self) -> Option<()> {
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: takes no memory.
        let result = unsafe { libc::ptrace(libc::PTRACE_SINGLESTEP, self.tid, none, none) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        let mut status = 0;
        // SAFETY: `status` is a number that is written to.
        assert_eq!(unsafe { libc::waitpid(self.tid, &raw mut status, libc::__WALL) }, self.tid);
        assert!(libc::WIFSTOPPED(status), "the thread has ended: {status:#x}");
        self.regs = registers(self.tid);
        let signal = libc::WSTOPSIG(status);
        if signal == libc::SIGTRAP {
            return Some(());
        }
        self.signal = signal;
        None
    }
}

fn registers(tid: libc::pid_t) -> libc::user_regs_struct {
    // SAFETY: the structure consists of numbers.
    let mut regs: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    let (none, to) = (std::ptr::null_mut::<libc::c_void>(), &raw mut regs);
    // SAFETY: `regs` is room for the registers.
    let result = unsafe { libc::ptrace(libc::PTRACE_GETREGS, tid, none, to) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    regs
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let none = std::ptr::null_mut::<libc::c_void>();
        let signal = std::ptr::without_provenance_mut::<libc::c_void>(self.signal as usize);
        // SAFETY: takes no memory.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.tid, none, signal) };
    }
}
