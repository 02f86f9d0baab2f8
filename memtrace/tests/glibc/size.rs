//! A large heap of small blocks.

use std::{fs, process::Command};

use memtrace_tests::{
    fixtures::built,
    skip::{runs_all, skip},
    subject::Subject,
};

use super::Scan;

/// What memtrace itself may take for it.
const MAX_OWN_BYTES: u64 = 100 << 20;

/// Peak of this process's memory, in bytes.
fn own_peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_ascii_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

/// A heap of 1 GiB in six million chunks takes little memory to read. How long it takes the benchmark tells.
#[test]
fn a_gigabyte() {
    if !runs_all() {
        return skip("glibc::size::a_gigabyte", "it takes 1 GiB: only with `--all`");
    }
    // Peaks count for a process, and other tests share this one.
    if std::env::var_os("MEMTRACE_ALONE").is_none() {
        let own = std::env::current_exe().unwrap();
        let mut alone = Command::new(own);
        alone
            .args(["--exact", "glibc::size::a_gigabyte", "--nocapture"])
            .env("MEMTRACE_ALONE", "1");
        assert!(alone.status().unwrap().success());
        return;
    }
    let mut subject = Subject::ready(&built("heap_small"), &["1024"]);
    subject.finish();
    let before = own_peak();
    let scan = Scan::of(subject.pid());
    let grown = own_peak() - before;
    let chunks = scan.malloc.chunks();
    eprintln!(
        "{} chunks in {:?}, {grown} bytes of its own",
        chunks.n_live + chunks.n_free,
        scan.took
    );
    assert!(chunks.n_live + chunks.n_free > 5_000_000, "{chunks:?}");
    assert_eq!(scan.malloc.losses.n_skips, 0);
    assert!(grown <= MAX_OWN_BYTES, "{grown}");
}
