//! The system calls of attaching that std does not have, one function each.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::identity::Owner;

/// Turns a system call's -1 into its error.
fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Takes ownership of a descriptor that a system call returned.
fn own(fd: libc::c_long) -> OwnedFd {
    let fd = i32::try_from(fd).expect("a descriptor is a small number");
    // SAFETY: the caller got `fd` from a successful call that makes a new one; nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Fails if the calling thread could not create a file in `dir`.
pub(super) fn check_writable(dir: &File) -> io::Result<()> {
    let mode = libc::W_OK | libc::X_OK;
    // SAFETY: the path is a constant that ends in a zero byte.
    let result = unsafe { libc::faccessat(dir.as_raw_fd(), c".".as_ptr(), mode, libc::AT_EACCESS) };
    check(result.into())?;
    Ok(())
}

/// Connects to the socket at `path`, waiting for at most `timeout` for a place in its queue.
pub(super) fn connect(path: &str, timeout: Duration) -> io::Result<UnixStream> {
    // SAFETY: takes three numbers.
    let fd = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    let stream = UnixStream::from(own(check(fd.into())?));
    stream.set_write_timeout(Some(timeout))?; // what bounds `connect` too
    // SAFETY: all of its fields are numbers, for which 0 is a value.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    if path.len() >= address.sun_path.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in address.sun_path.iter_mut().zip(path.bytes()) {
        *to = from as libc::c_char;
    }
    let (address, size) = (&raw const address, size_of::<libc::sockaddr_un>());
    // SAFETY: `address` is `size` bytes and outlives the call.
    check(unsafe { libc::connect(stream.as_raw_fd(), address.cast(), size as u32) }.into())?;
    Ok(stream)
}

/// The calling thread's effective user and group.
pub(super) fn effective_owner() -> Owner {
    // SAFETY: neither takes an argument nor can fail.
    unsafe { Owner { uid: libc::geteuid(), gid: libc::getegid() } }
}

/// Makes `owner` the calling thread's effective user and group, and drops its other groups.
///
/// It cannot be undone, so it is for a thread that ends afterwards.
pub(super) fn become_owner(owner: Owner) -> io::Result<()> {
    let current = effective_owner();
    if current == owner {
        return Ok(());
    }
    let Owner { uid, gid } = owner;
    let keep = u32::MAX;
    if current.uid == 0 {
        // SAFETY: zero groups are read from the null pointer.
        check(unsafe { libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>()) })?;
    }
    // SAFETY: takes three numbers; the bare call changes this thread only. The group comes first,
    // for afterwards the right to change it is gone.
    check(unsafe { libc::syscall(libc::SYS_setresgid, keep, gid, keep) })?;
    // SAFETY: as above.
    check(unsafe { libc::syscall(libc::SYS_setresuid, keep, uid, keep) })?;
    Ok(())
}

/// The process's `dumpable` flag.
pub(super) fn dumpable() -> io::Result<libc::c_long> {
    // SAFETY: takes no further argument.
    check(unsafe { libc::prctl(libc::PR_GET_DUMPABLE) }.into())
}

/// Sets the process's `dumpable` flag, unless it is the 2 that only the kernel may set.
pub(super) fn set_dumpable(dumpable: libc::c_long) -> io::Result<()> {
    if dumpable == 2 {
        return Ok(());
    }
    // SAFETY: takes a number.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, dumpable) }.into())?;
    Ok(())
}
