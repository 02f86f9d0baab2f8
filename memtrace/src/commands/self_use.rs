//! What memtrace itself uses.

/// Processor time and memory of memtrace itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SelfUse {
    pub(super) cpu_ns: u64,
    pub(super) max_rss_bytes: u64,
}

impl SelfUse {
    /// Since memtrace began.
    pub(super) fn now() -> Self {
        // SAFETY: all zero is a valid `rusage`: integers only.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: `usage` is written by the call.
        unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
        let ns = |time: libc::timeval| {
            time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_usec.cast_unsigned() * 1000
        };
        Self {
            cpu_ns: ns(usage.ru_utime) + ns(usage.ru_stime),
            max_rss_bytes: usage.ru_maxrss.cast_unsigned() * 1024,
        }
    }
}
