//! How memtrace itself runs while it traces: how urgently, and what ends it.

/// Priority while tracing: on a busy machine the ring buffer would fill while memtrace waits for its turn.
const NICE: libc::c_int = -15;

/// Asks for a higher priority; without the right to it, the one there is has to do.
pub(super) fn hurry() {
    // SAFETY: no memory is involved.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
}

/// Allows memtrace as many open files as it may have: a probe is one, and so is a library that is yet to be read.
pub(super) fn allow_many_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is written by the first call and read by the second.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// From now on a signal ends memtrace: the trace is written, and it only waits for the command.
pub(super) fn listen_no_more() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the default disposition involves no code of memtrace's.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_files() {
        allow_many_files();
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `limit` is written by the call.
        unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
        assert_eq!(limit.rlim_cur, limit.rlim_max);
    }
}
