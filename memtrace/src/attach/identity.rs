//! Acting as the target's user, in one thread that ends afterwards.
//!
//! A JVM looks at the effective user and group of whom connects (`SO_PEERCRED`), and JDK 8 wants
//! both to be its own: not even root is accepted. libc's `seteuid` would change every thread of
//! memtrace, the bare system calls change the calling one only.

use std::io;
use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::sys;

/// A user and a group, as the kernel names them here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Held while a thread changes its user and the process's `dumpable` flag with it.
static CHANGING: Mutex<()> = Mutex::new(());

/// Runs `act` in a thread of its own whose effective user and group are `owner`.
///
/// Fails if memtrace may not become `owner`.
pub(super) fn run_as<T: Send>(owner: &Owner, act: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread =
            thread::Builder::new().name("attach".to_owned()).spawn_scoped(scope, || {
                become_quietly(*owner)?;
                Ok(act())
            })?;
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Becomes `owner` in this thread, and undoes what the kernel does to the whole process with it:
/// it marks memtrace as one whose memory must not be dumped.
fn become_quietly(owner: Owner) -> io::Result<()> {
    let _guard = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
    let dumpable = sys::dumpable()?;
    sys::become_owner(owner)?;
    sys::set_dumpable(dumpable)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::time::Duration;

    use super::*;

    /// Root can become anybody, anybody else at least itself.
    fn somebody() -> Owner {
        let current = sys::effective_owner();
        if current.uid == 0 { Owner { uid: 65534, gid: 65533 } } else { current }
    }

    /// The caller keeps its identity, whatever the thread became.
    #[test]
    fn caller_keeps_its_identity() {
        let dumpable = || {
            let _guard = CHANGING.lock();
            sys::dumpable().unwrap()
        };
        let before = (sys::effective_owner(), dumpable());
        let owner = somebody();
        assert_eq!(run_as(&owner, sys::effective_owner).unwrap(), owner);
        assert_eq!((sys::effective_owner(), dumpable()), before);
    }

    /// Who is connected to sees the user and the group, both of which JDK 8 compares to its own.
    #[test]
    fn peer_sees_user_and_group() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        let owner = somebody();
        let connect = || sys::connect(path.to_str().unwrap(), Duration::from_secs(10));
        let _client = run_as(&owner, connect).unwrap().unwrap();
        let server = listener.accept().unwrap().0;
        assert_eq!(peer(&server), owner);
    }

    fn peer(stream: &UnixStream) -> Owner {
        let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
        let mut size = size_of::<libc::ucred>() as libc::socklen_t;
        let (level, name) = (libc::SOL_SOCKET, libc::SO_PEERCRED);
        // SAFETY: the kernel writes at most `size` bytes to `peer`, borrowed exclusively here.
        let result = unsafe {
            let peer = (&raw mut peer).cast();
            libc::getsockopt(stream.as_raw_fd(), level, name, peer, &raw mut size)
        };
        assert_eq!(result, 0);
        Owner { uid: peer.uid, gid: peer.gid }
    }
}
