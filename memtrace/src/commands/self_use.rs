//! What memtrace itself uses.

use std::fs;

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
        let max_rss_bytes = max_rss_bytes().unwrap_or(usage.ru_maxrss.cast_unsigned() * 1024);
        Self { cpu_ns: ns(usage.ru_utime) + ns(usage.ru_stime), max_rss_bytes }
    }
}

/// The most that was resident since exec; what getrusage(2) tells counts what the parent had before it, too.
fn max_rss_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(kib.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It is the memory of this process: never less than it has now, and it grows with it.
    #[test]
    fn memory() {
        let before = max_rss_bytes().unwrap();
        let large = vec![1_u8; 256 << 20];
        let after = SelfUse::now().max_rss_bytes;
        assert!(after >= large.len() as u64 && after >= before, "{before} {after}");
    }
}
