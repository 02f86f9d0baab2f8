//! `cargo xtask bench stacks`: how many stacks memtrace resolves in a second.
//!
//! In: a bed with everything built. Out: a table. The demo application is started several times, and what resolving its
//! stacks depends on is captured. The JVMs go on living while the captured events are streamed through the real path:
//! everything is read of them as in a trace, files and memory; memory that has changed since is then put as it was, so
//! that code which is gone by now was there. Stacks of one JVM alone would be fewer than a processor's caches hold.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use super::{
    Bed, clean_command, process, quiet,
    resolving::{self, Round},
};
use crate::{demo::JAVA, run};

/// How long a start-up may take, captured, on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(300);
/// Ticks of the clock that an application which has started takes in a second.
const IDLE_TICKS: u64 = 10;

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
        jvms.push(Jvm::start_captured(bed, jar, &capture)?);
        captures.push(capture);
    }
    let is_quiet = quiet::wait_until_quiet();
    eprintln!("Resolving.");
    let mut replay = Command::new(&bed.memtrace);
    replay.args(["__replay", "--living", "--rounds", &options.rounds.to_string()]).args(&captures);
    let raw = run::output(&mut replay)?;
    if let Some(jvm) = jvms.iter_mut().find_map(|jvm| (!jvm.is_running()).then_some(jvm.child.id()))
    {
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

/// The demo application, started and alive; killed when dropped.
struct Jvm {
    child: Child,
}

impl Drop for Jvm {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Jvm {
    /// Starts the application and captures its start-up, from its first instruction on.
    fn start_captured(bed: &Bed, jar: &Path, capture: &Path) -> anyhow::Result<Self> {
        let log = bed.folder.join("stacks.log");
        let output =
            File::create(&log).with_context(|| format!("failed to create {}", log.display()))?;
        let java = JAVA.iter().filter(|word| !word.contains("demo.once"));
        let child = clean_command("sh")
            .args(["-c", "kill -STOP $$; exec \"$@\"", "sh"])
            .args(java)
            .arg(jar)
            .stdin(Stdio::null())
            .stdout(output.try_clone().context("failed to share the log")?)
            .stderr(output)
            .spawn()
            .context("failed to start the application")?;
        let mut jvm = Self { child };
        while jvm.state()? != 'T' {
            sleep(Duration::from_millis(5));
        }
        let mut memtrace = jvm.capture(bed, capture)?;
        jvm.go_on();
        let started = jvm.wait_until_started(&log);
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
    fn capture(&self, bed: &Bed, capture: &Path) -> anyhow::Result<Child> {
        let mut memtrace = clean_command(&bed.memtrace)
            .args(["--color", "never", "--pid", &self.child.id().to_string()])
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
        std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| eprintln!("{line}"))
        });
        Ok(memtrace)
    }

    fn go_on(&self) {
        // SAFETY: kill takes two numbers and touches no memory; the process is a child that nobody has waited for.
        unsafe { libc::kill(self.child.id().cast_signed(), libc::SIGCONT) };
    }

    fn is_running(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_none())
    }

    /// Both the start-up and the scan are over when the scan says so and the process has nothing to do.
    fn wait_until_started(&mut self, log: &Path) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut before = 0;
        while began.elapsed() < START_LIMIT {
            sleep(Duration::from_secs(1));
            if !self.is_running() {
                bail!("the application ended; what it said is in {}", log.display());
            }
            let said = fs::read_to_string(log).unwrap_or_default();
            let ticks = self.ticks()?;
            if said.contains("demo: scan finished") && ticks - before < IDLE_TICKS {
                return Ok(());
            }
            before = ticks;
        }
        bail!("the application has not started after {} s", START_LIMIT.as_secs())
    }

    fn stat(&self) -> anyhow::Result<Vec<String>> {
        let file = format!("/proc/{}/stat", self.child.id());
        let text = fs::read_to_string(&file).with_context(|| format!("failed to read {file}"))?;
        // The name may hold anything, and stands in parentheses.
        let (_, rest) =
            text.rsplit_once(") ").with_context(|| format!("failed to parse {file}"))?;
        Ok(rest.split(' ').map(str::to_owned).collect())
    }

    fn state(&self) -> anyhow::Result<char> {
        self.stat()?.first().and_then(|state| state.chars().next()).context("no state")
    }

    /// Its processor time, in ticks of the clock.
    fn ticks(&self) -> anyhow::Result<u64> {
        let stat = self.stat()?;
        let field = |n: usize| stat.get(n).and_then(|field| field.parse::<u64>().ok());
        field(11).zip(field(12)).map(|(user, system)| user + system).context("no times")
    }
}
