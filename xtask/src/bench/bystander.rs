//! What everyone else on the host pays while memtrace traces something.
//!
//! In: a memtrace. Out: nanoseconds of a system call that memtrace does not care about, made by a
//! process that it does not trace, without and with it. A probe on one system call makes the
//! entry of every system call of every process take the slower path.

use std::{
    fs,
    path::Path,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use super::{clean_command, process, statistics};

const CALLS: u32 = 500_000;
const ROUNDS: usize = 11;
/// How long memtrace may take to attach to a process that sleeps.
const ATTACH: Duration = Duration::from_secs(10);

/// Nanoseconds of one `getppid`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bystander {
    /// While nothing is traced.
    pub(crate) without_ns: f64,
    /// While memtrace traces another process.
    pub(crate) with_ns: f64,
}

/// Measures both, with a sleeping process as the one that is traced.
pub(crate) fn measure(memtrace: &Path) -> anyhow::Result<Bystander> {
    let without_ns = getppid_ns()?;
    let sleeper = clean_command("sleep").arg("600").spawn().context("failed to start sleep")?;
    let with_ns = while_traced(memtrace, &sleeper);
    end(&sleeper)?;
    Ok(Bystander { without_ns, with_ns: with_ns? })
}

fn while_traced(memtrace: &Path, sleeper: &Child) -> anyhow::Result<f64> {
    let mut tracer = clean_command(memtrace)
        .args(["--pid", &sleeper.id().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("failed to start memtrace")?;
    let measured = wait_until_attached(&mut tracer).and_then(|()| getppid_ns());
    let is_running = tracer.try_wait()?.is_none();
    if is_running {
        end(&tracer)?;
    }
    if !is_running && measured.is_ok() {
        bail!("memtrace ended while it should trace a sleeping process");
    }
    measured
}

/// Waits until memtrace holds probes and adds no more.
fn wait_until_attached(tracer: &mut Child) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut before = 0;
    while start.elapsed() < ATTACH {
        thread::sleep(Duration::from_millis(300));
        if let Some(status) = tracer.try_wait()? {
            bail!("failed to trace a sleeping process: memtrace ended with {status}");
        }
        let n_probes = probes(tracer.id());
        if n_probes > 0 && n_probes == before {
            return Ok(());
        }
        before = n_probes;
    }
    bail!("failed to see memtrace attach within {} s", ATTACH.as_secs())
}

/// How many probes a process holds: BPF links and perf events among its files.
fn probes(pid: u32) -> usize {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    files
        .filter_map(|file| fs::read_link(file.path()).ok())
        .filter(|to| {
            let to = to.to_string_lossy();
            to.contains("bpf_link") || to.contains("[perf_event]")
        })
        .count()
}

fn end(child: &Child) -> anyhow::Result<()> {
    process::ask_to_end(child);
    process::wait(child).context("failed to wait for a process that was asked to end")?;
    Ok(())
}

/// The median of several rounds, each of many calls.
fn getppid_ns() -> anyhow::Result<f64> {
    let round = || {
        let start = Instant::now();
        for _ in 0..CALLS {
            // SAFETY: getppid takes nothing, touches no memory and cannot fail.
            unsafe { libc::getppid() };
        }
        start.elapsed().as_nanos() as f64 / f64::from(CALLS)
    };
    let rounds: Vec<f64> = (0..ROUNDS).map(|_| round()).collect();
    statistics::median(&rounds).context("failed to time a system call")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A system call takes more than nothing and less than a scheduler's tick.
    #[test]
    fn a_call_takes_time() {
        let ns = getppid_ns().unwrap();
        assert!((5.0..1_000_000.0).contains(&ns), "{ns}");
    }

    /// A process without probes holds none, and a memtrace that ends at once is an error.
    #[test]
    fn needs_a_tracer() {
        assert_eq!(probes(std::process::id()), 0);
        let error = measure(Path::new("/bin/false")).unwrap_err();
        assert!(format!("{error:#}").contains("failed to trace a sleeping process"), "{error:#}");
    }
}
