//! Running something where tracefs is mounted, without mounting it for anyone else.
//!
//! Attaching to a tracepoint needs its number from tracefs. Where that is not mounted, a thread of its own gets a
//! mount namespace of its own and mounts it there; thread and mount end together.

use std::{fs, io, path::Path, ptr, thread};

use anyhow::{Result, anyhow};

use super::Obstacle;

const TRACING: &str = "/sys/kernel/tracing";

/// Runs `work` where `/sys/kernel/tracing` holds the kernel's trace events.
pub(super) fn with_tracefs<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    if is_mounted() {
        return work();
    }
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            mount_privately().map_err(Obstacle::Tracefs)?;
            work()
        });
        worker.join().map_err(|_| anyhow!("the thread that attaches to tracepoints panicked"))?
    })
}

/// Whether the kernel's trace events can be seen already.
pub fn is_mounted() -> bool {
    Path::new(TRACING).join("events/syscalls").is_dir()
        || Path::new("/sys/kernel/debug/tracing/events/syscalls").is_dir()
}

fn mount_privately() -> io::Result<()> {
    fs::metadata(TRACING)?;
    // SAFETY: only this thread's view of the file system is unshared; no memory is involved.
    check(unsafe { libc::unshare(libc::CLONE_FS | libc::CLONE_NEWNS) })?;
    keep_to_ourselves()?;
    // SAFETY: constant strings, no data.
    check(unsafe {
        libc::mount(
            c"tracefs".as_ptr(),
            c"/sys/kernel/tracing".as_ptr(),
            c"tracefs".as_ptr(),
            0,
            ptr::null(),
        )
    })
}

/// Keeps what is mounted here from others. In a chroot the root is no mount point; then what is nearest to tracefs is
/// asked.
fn keep_to_ourselves() -> io::Result<()> {
    let flags = libc::MS_REC | libc::MS_SLAVE;
    let candidates = [c"/", c"/sys/kernel/tracing", c"/sys/kernel", c"/sys"];
    let mut result = Ok(());
    for mount_point in candidates {
        // SAFETY: constant strings; `MS_SLAVE` takes neither source nor type.
        result = check(unsafe {
            libc::mount(ptr::null(), mount_point.as_ptr(), ptr::null(), flags, ptr::null())
        });
        match &result {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            _ => break,
        }
    }
    result
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
