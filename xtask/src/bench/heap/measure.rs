//! One run of a reader.
//!
//! In: a command line. Out: its wall time, CPU time and memory. The kernel keeps the peak of all resident pages, but not of
//! the anonymous ones apart from those of the mapped dump: these are sampled while the program runs, so a peak that lasts
//! less than a sample's distance is missed.

use std::{
    fs,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use anyhow::{Context, bail};

use crate::bench::{
    process::{now_ns, wait},
    timed::seconds_between,
};

/// How far apart samples of the resident size are.
const SAMPLE: Duration = Duration::from_millis(2);

/// What a run took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Taken {
    pub(super) wall_seconds: f64,
    pub(super) cpu_seconds: f64,
    /// The most that was resident, with mapped files.
    pub(super) max_rss_bytes: u64,
    /// The most anonymous memory that a sample saw.
    pub(super) max_anon_bytes: u64,
}

/// Runs `command`, whose output nobody sees; anything but success is an error.
pub(super) fn measure(command: &mut Command) -> anyhow::Result<Taken> {
    let program = command.get_program().to_string_lossy().into_owned();
    let start_ns = now_ns();
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("failed to start {program}"))?;
    let has_ended = AtomicBool::new(false);
    let (waited, end_ns, max_anon_bytes) = thread::scope(|scope| {
        let sampler = scope.spawn(|| most_anonymous(&child, &has_ended));
        let waited = wait(&child);
        let end_ns = now_ns();
        has_ended.store(true, Relaxed);
        (waited, end_ns, sampler.join().unwrap_or(0))
    });
    let (status, usage) = waited.with_context(|| format!("failed to wait for {program}"))?;
    if !status.success() {
        bail!("failed to read the dump with {program}: {status}");
    }
    Ok(Taken {
        wall_seconds: seconds_between(start_ns, end_ns),
        cpu_seconds: usage.cpu_seconds,
        max_rss_bytes: usage.max_rss_bytes,
        max_anon_bytes,
    })
}

/// The most anonymous memory of a child until it has ended.
fn most_anonymous(child: &Child, has_ended: &AtomicBool) -> u64 {
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    while !has_ended.load(Relaxed) {
        let now = fs::read_to_string(&status).ok().and_then(|text| anonymous_bytes(&text));
        most = most.max(now.unwrap_or(0));
        thread::sleep(SAMPLE);
    }
    most
}

/// `RssAnon` of `/proc/PID/status`.
fn anonymous_bytes(status: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(rest.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anonymous_memory_is_read() {
        let cases = [
            ("VmRSS:\t  900 kB\nRssAnon:\t     124 kB\nRssFile:\t 3 kB\n", Some(126_976)),
            ("Name:\tkthreadd\n", None),
            ("RssAnon:\t x kB\n", None),
        ];
        for (text, want) in cases {
            assert_eq!(anonymous_bytes(text), want, "{text}");
        }
    }

    /// A program that fills 64 MiB is seen to hold that; one that fails is no measurement.
    #[test]
    fn memory_of_a_program() {
        let fill = "x=$(head -c 67108864 /dev/zero | tr '\\0' x); sleep 0.05; echo ${#x}";
        let taken = measure(Command::new("sh").args(["-c", fill])).unwrap();
        assert!(taken.max_anon_bytes >= 64 << 20, "{taken:?}");
        assert!(taken.max_rss_bytes >= taken.max_anon_bytes && taken.wall_seconds >= 0.05);
        let error = measure(Command::new("sh").args(["-c", "exit 3"])).unwrap_err();
        assert_eq!(error.to_string(), "failed to read the dump with sh: exit status: 3");
    }
}
