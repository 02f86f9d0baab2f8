//! Who may run beside whom.
//!
//! Most tests look at their own process only and run [`together`]. One that looks at the machine
//! (which BPF programs are loaded, how much is lost under load) waits until it is [`alone`].

use std::{
    fs::{File, OpenOptions},
    os::fd::AsRawFd,
    path::Path,
};

use crate::fixtures::target_dir;

/// A lock on a file, given back when dropped. It holds between threads and between processes.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Waits until nobody else has the lock.
    pub(crate) fn exclusive(path: &Path) -> Self {
        Self::take(path, libc::LOCK_EX)
    }

    fn take(path: &Path, how: libc::c_int) -> Self {
        // Where the file is there already it need not be writable: it is not on another kernel.
        let file = File::open(path)
            .or_else(|_| OpenOptions::new().create(true).truncate(false).write(true).open(path));
        let file = file.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        // SAFETY: flock takes a descriptor, which `file` keeps open, and touches no memory.
        let result = unsafe { libc::flock(file.as_raw_fd(), how) };
        assert_eq!(result, 0, "failed to lock {}", path.display());
        Self { _file: file }
    }
}

/// The turn of a test that others may run beside.
pub fn together() -> Lock {
    Lock::take(&target_dir().join("turn.lock"), libc::LOCK_SH)
}

/// The turn of a test that must be the only one.
pub fn alone() -> Lock {
    Lock::take(&target_dir().join("turn.lock"), libc::LOCK_EX)
}
