//! Mounts that one command alone sees.

use std::{io, os::unix::process::CommandExt, process::Command, ptr};

/// As deep as a chroot may lie.
const MAX_DEPTH: usize = 64;

/// Lets `command` mount what nobody else sees, and what is gone when it ends.
///
/// `unshare --mount` does this, too, but not in a chroot: it asks for privacy at the root, which is no mount point there.
pub fn own_mounts(command: &mut Command) -> &mut Command {
    // SAFETY: between fork and exec there are only system calls, which allocate nothing.
    unsafe { command.pre_exec(unshare) }
}

fn unshare() -> io::Result<()> {
    let open = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: strings are constant, descriptors were just opened, and the process is this thread alone.
    unsafe {
        check(libc::unshare(libc::CLONE_NEWNS))?;
        let here = check(libc::open(c".".as_ptr(), open))?;
        let root = check(libc::open(c"/".as_ptr(), open))?;
        // What a root is mounted on is above it, and only who has another root gets there.
        check(libc::chroot(c"/proc".as_ptr()))?;
        check(libc::fchdir(root))?;
        for _ in 0..MAX_DEPTH {
            check(libc::chdir(c"..".as_ptr()))?;
        }
        let flags = libc::MS_REC | libc::MS_PRIVATE;
        check(libc::mount(ptr::null(), c".".as_ptr(), ptr::null(), flags, ptr::null()))?;
        check(libc::fchdir(root))?;
        check(libc::chroot(c".".as_ptr()))?;
        check(libc::fchdir(here))?;
    }
    Ok(())
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
