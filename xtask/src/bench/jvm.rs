//! The demo application as a process that goes on: started, observed, ended.
//!
//! In: the jar. Out: a JVM that has started and has nothing to do.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use super::clean_command;
use crate::demo::JAVA;

/// How long a start-up may take, traced, on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(300);
/// Ticks of the clock that an application which has started takes in a second.
const IDLE_TICKS: u64 = 10;

/// The demo application, started and alive; killed when dropped.
pub(super) struct Jvm {
    child: Child,
    /// Where it writes.
    log: PathBuf,
}

impl Drop for Jvm {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Jvm {
    /// Starts a process that will be the application; it is stopped.
    pub(super) fn start_stopped(jar: &Path, log: &Path) -> anyhow::Result<Self> {
        let output =
            File::create(log).with_context(|| format!("failed to create {}", log.display()))?;
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
        let jvm = Self { child, log: log.to_owned() };
        while jvm.state()? != 'T' {
            sleep(Duration::from_millis(5));
        }
        Ok(jvm)
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets one go on that was stopped.
    pub(super) fn go_on(&self) {
        // SAFETY: kill takes two numbers and touches no memory; the process is a child that nobody has waited for.
        unsafe { libc::kill(self.child.id().cast_signed(), libc::SIGCONT) };
    }

    /// Whether it has not ended.
    pub(super) fn is_running(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_none())
    }

    /// Both the start-up and the scan are over when the scan says so and the process has nothing to do.
    pub(super) fn wait_until_started(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut before = 0;
        while began.elapsed() < START_LIMIT {
            sleep(Duration::from_secs(1));
            if !self.is_running() {
                bail!("the application ended; what it said is in {}", self.log.display());
            }
            let said = fs::read_to_string(&self.log).unwrap_or_default();
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
