//! `cargo xtask bench stacks`: how many stacks memtrace resolves in a second.
//!
//! In: a bed with everything built. Out: a table. The demo application is started several times, and what resolving its
//! stacks depends on is captured. The JVMs go on living while the captured events are streamed through the real path:
//! everything is read of them as in a trace, files and memory; memory that has changed since is then put as it was, so
//! that code which is gone by now was there. Stacks of one JVM alone would be fewer than a processor's caches hold.

use std::{
    fs,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, bail};

use super::{
    Bed, clean_command,
    jvm::Jvm,
    process, quiet,
    resolving::{self, Round},
};
use crate::run;

/// What to measure and how long.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Capture so many start-ups
    #[arg(long, value_name = "N", default_value_t = 3)]
    starts: usize,

    /// Resolve everything so many times; the best round counts
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: u8,

    /// Measure this memtrace in place of the one built from the sources
    #[arg(long, value_name = "FILE")]
    pub(super) memtrace: Option<PathBuf>,
}

/// Measures and prints.
pub(crate) fn run(bed: &Bed, jar: &Path, options: &Options) -> anyhow::Result<()> {
    let (mut jvms, mut captures) = (Vec::new(), Vec::new());
    for n in 1..=options.starts {
        eprintln!("Capturing start-up {n} of {}.", options.starts);
        let capture = bed.folder.join(format!("stacks-{n}.capture"));
        jvms.push(start_captured(bed, jar, &capture)?);
        captures.push(capture);
    }
    let is_quiet = quiet::wait_until_quiet();
    eprintln!("Resolving.");
    let mut replay = Command::new(&bed.memtrace);
    replay.args(["__replay", "--living", "--rounds", &options.rounds.to_string()]).args(&captures);
    let raw = run::output(&mut replay)?;
    if let Some(jvm) = jvms.iter_mut().find_map(|jvm| (!jvm.is_running()).then_some(jvm.pid())) {
        bail!(
            "JVM {jvm} ended while its stacks were resolved: what was read of it is not measured"
        );
    }
    let file = bed.folder.join("stacks.json");
    fs::write(&file, &raw).with_context(|| format!("failed to write {}", file.display()))?;
    let rounds: Vec<Round> = resolving::parse(&raw).context("failed to parse what was measured")?;
    for capture in captures {
        // They hold hundreds of megabytes of nothing that is needed again.
        let _ = fs::remove_file(capture);
    }
    let table = resolving::format(&rounds, options.starts, is_quiet)?;
    write!(io::stdout().lock(), "{table}").context("failed to write the table")
}

/// Starts the application and captures its start-up, from its first instruction on.
fn start_captured(bed: &Bed, jar: &Path, capture: &Path) -> anyhow::Result<Jvm> {
    let mut jvm = Jvm::start_stopped(jar, &bed.folder.join("stacks.log"))?;
    let mut memtrace = attach(&jvm, bed, capture)?;
    jvm.go_on();
    let started = jvm.wait_until_started();
    process::ask_to_end(&memtrace);
    let (status, _) = process::wait(&memtrace).context("failed to wait for memtrace")?;
    // What it says at its end.
    memtrace.stderr.take();
    started?;
    if !status.success() {
        bail!("memtrace ended with {status} while it captured");
    }
    Ok(jvm)
}

/// Attaches memtrace; returns when it traces.
fn attach(jvm: &Jvm, bed: &Bed, capture: &Path) -> anyhow::Result<Child> {
    let mut memtrace = clean_command(&bed.memtrace)
        .args(["--color", "never", "--pid", &jvm.pid().to_string()])
        .arg("--capture")
        .arg(capture)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("failed to start memtrace")?;
    let lines = memtrace.stderr.take().context("failed to read from memtrace")?;
    let mut lines = BufReader::new(lines).lines();
    if !lines.any(|line| line.is_ok_and(|line| line.contains("tracing process"))) {
        process::wait(&memtrace)?;
        bail!("failed to capture: memtrace ended before it traced");
    }
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| eprintln!("{line}")));
    Ok(memtrace)
}
