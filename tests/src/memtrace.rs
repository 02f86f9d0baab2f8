//! memtrace as a user runs it: a command line in, what it printed and wrote out.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{self, BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{fixtures::target_dir, own_mounts::own_mounts, report::Report, subject::send};

/// How long attaching may take on a loaded machine, and how long ending.
const PATIENCE: Duration = Duration::from_secs(60);

/// The memtrace that is tested.
pub fn program() -> PathBuf {
    env::var_os("MEMTRACE").map_or_else(|| target_dir().join("release/memtrace"), PathBuf::from)
}

/// A memtrace that is going to be run, with a folder for what it writes.
#[derive(Debug)]
pub struct Memtrace {
    command: Command,
    folder: TempDir,
}

/// A memtrace that runs.
#[derive(Debug)]
pub struct Tracing {
    child: Child,
    folder: TempDir,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<String>,
    lines: mpsc::Receiver<String>,
}

/// What is left of a memtrace that has ended.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it said besides.
    pub stderr: String,
    folder: TempDir,
}

impl Default for Memtrace {
    fn default() -> Self {
        Self::new()
    }
}

impl Memtrace {
    /// memtrace without arguments.
    pub fn new() -> Self {
        Self::started_by(&[])
    }

    /// memtrace without arguments, started by a program that executes what follows its own arguments.
    pub fn started_by(starter: &[&str]) -> Self {
        let memtrace = program();
        let mut words = starter.iter().map(OsStr::new).chain([memtrace.as_os_str()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        Self::run_by(command)
    }

    /// memtrace without arguments, after `script` has mounted what memtrace alone is to see; `$1` in it is `argument`.
    pub fn with_mounts(script: &str, argument: &str) -> Self {
        let script = format!("{script} && shift && exec \"$@\"");
        let mut memtrace = Self::started_by(&["sh", "-c", &script, "sh", argument]);
        own_mounts(memtrace.raw());
        memtrace
    }

    /// memtrace without arguments, of a user without any right. It is started in its own folder: that user may not be
    /// allowed to go all the way there.
    pub fn of_nobody() -> Self {
        let memtrace = program();
        let name = memtrace.file_name().expect("memtrace is a file");
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.arg(Path::new(".").join(name));
        command.current_dir(memtrace.parent().expect("memtrace lies in a folder"));
        Self::run_by(command)
    }

    fn run_by(mut command: Command) -> Self {
        let folder =
            TempDir::with_prefix("memtrace-test-").expect("the temporary folder is writable");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { command, folder }
    }

    /// memtrace that writes its report as JSON, to be followed by a target.
    pub fn with_json() -> Self {
        let memtrace = Self::new();
        let json = memtrace.folder.path().join("report.json");
        memtrace.arg("--json").arg(json)
    }

    /// memtrace that watches process `pid` and writes its report as JSON.
    pub fn of_process(pid: u32) -> Self {
        Self::with_json().arg("--pid").arg(pid.to_string())
    }

    /// memtrace that reads the trace at `path` and writes its report as JSON.
    pub fn report_of(path: &Path) -> Self {
        Self::new().arg("report").arg(path).file("--json", "report.json")
    }

    /// The same, recorded in a trace file too.
    #[must_use]
    pub fn recorded(self) -> Self {
        self.file("--output", "trace.mt")
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(arguments);
        self
    }

    /// An option and the file in memtrace's own folder that it names; see [`Outcome::file`].
    #[must_use]
    pub fn file(self, option: &str, name: &str) -> Self {
        let path = self.folder.path().join(name);
        self.arg(option).arg(path)
    }

    /// The command that memtrace starts and watches.
    #[must_use]
    pub fn command(self, program: impl AsRef<OsStr>, arguments: &[&str]) -> Self {
        self.arg("--").arg(program).args(arguments)
    }

    /// The command to be run, for what this type has no words for.
    pub fn raw(&mut self) -> &mut Command {
        &mut self.command
    }

    /// The folder for what memtrace writes.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs it to its own end.
    pub fn run(self) -> Outcome {
        self.start().end()
    }

    /// Runs it up to the point where it traces.
    pub fn attached(self) -> Tracing {
        let mut tracing = self.start();
        let deadline = Instant::now() + PATIENCE;
        while !tracing.awaits_events() {
            let ended = tracing.child.try_wait().expect("it is our child");
            if ended.is_some() || Instant::now() > deadline {
                let outcome = tracing.end();
                panic!("memtrace did not attach ({}): {}", outcome.status, outcome.stderr);
            }
            thread::sleep(Duration::from_millis(5));
        }
        tracing
    }

    /// Starts it.
    pub fn start(mut self) -> Tracing {
        // Where the tests themselves run under nohup, SIGHUP is ignored, and memtrace would inherit that.
        // SAFETY: signal may be called between fork and exec.
        unsafe { self.command.pre_exec(heed_hangup) };
        let child = self.command.spawn();
        let mut child = child.unwrap_or_else(|e| panic!("failed to start {:?}: {e}", self.command));
        let mut stdout = child.stdout.take().expect("stdout is a pipe");
        let stderr = child.stderr.take().expect("stderr is a pipe");
        let (sender, lines) = mpsc::channel();
        let stdout = thread::spawn(move || {
            let mut printed = Vec::new();
            stdout.read_to_end(&mut printed).expect("a pipe is readable");
            printed
        });
        let stderr = thread::spawn(move || {
            let mut said = String::new();
            for line in BufReader::new(stderr).split(b'\n') {
                let line = line.expect("a pipe is readable");
                let line = String::from_utf8_lossy(&line).into_owned();
                said.push_str(&line);
                said.push('\n');
                // Nobody waits for a line any more.
                sender.send(line).ok();
            }
            said
        });
        Tracing { child, folder: self.folder, stdout, stderr, lines }
    }
}

fn heed_hangup() -> io::Result<()> {
    // SAFETY: no handler is given.
    match unsafe { libc::signal(libc::SIGHUP, libc::SIG_DFL) } {
        libc::SIG_ERR => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

impl Tracing {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has done everything that comes before waiting for the first event: it would obey Ctrl-C,
    /// and it sleeps in epoll.
    fn awaits_events(&self) -> bool {
        let read = |name| fs::read_to_string(format!("/proc/{}/{name}", self.pid()));
        let status = read("status").unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        let obeys = caught.is_some_and(|mask| mask & (1 << (libc::SIGINT - 1)) != 0);
        let call = read("syscall").unwrap_or_default();
        let number: Option<i64> = call.split(' ').next().and_then(|number| number.parse().ok());
        obeys && [Some(libc::SYS_epoll_wait), Some(libc::SYS_epoll_pwait)].contains(&number)
    }

    /// Waits until it says a line with `part` in it; later lines are left for the next wait.
    pub fn await_part(&self, part: &str) {
        let mut heard = String::new();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.contains(part) => return,
                Ok(line) => heard = heard + &line + "\n",
                Err(e) => panic!("memtrace did not say `{part}`: {e}; it said:\n{heard}"),
            }
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: libc::c_int) {
        send(self.pid(), signal);
    }

    /// Ends the trace as Ctrl-C does.
    pub fn stop(self) -> Outcome {
        self.signal(libc::SIGINT);
        self.end()
    }

    /// Waits for its end.
    pub fn end(mut self) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                break status;
            }
            if Instant::now() > deadline {
                self.child.kill().expect("it is our child");
                self.child.wait().expect("it is our child");
                panic!("memtrace did not end; it said:\n{}", self.stderr.join().expect("no panic"));
            }
            thread::sleep(Duration::from_millis(5));
        };
        // A process that memtrace started and forgot would keep the pipes open for ever.
        while !(self.stdout.is_finished() && self.stderr.is_finished()) {
            assert!(Instant::now() < deadline, "memtrace ended and left a process behind");
            thread::sleep(Duration::from_millis(5));
        }
        let stdout = self.stdout.join().expect("the reader does not panic");
        let stderr = self.stderr.join().expect("the reader does not panic");
        let stdout = String::from_utf8_lossy(&stdout).into_owned();
        Outcome { status, stdout, stderr, folder: self.folder }
    }
}

impl Outcome {
    /// Its exit status; `None` if a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The path of a file that it was told to write.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What it wrote to a file.
    pub fn written(&self, name: &str) -> String {
        let bytes = fs::read(self.file(name));
        let bytes =
            bytes.unwrap_or_else(|e| panic!("{name}: {e}; memtrace said:\n{}", self.stderr));
        String::from_utf8(bytes).unwrap_or_else(|e| panic!("{name} is not UTF-8: {e}"))
    }

    /// Its report, which must be one of a trace that ended well.
    pub fn report(&self) -> Report {
        assert_eq!(self.code(), Some(0), "memtrace failed: {}", self.stderr);
        self.report_anyhow()
    }

    /// Its report, whatever its exit status says.
    pub fn report_anyhow(&self) -> Report {
        Report::parse(&self.written("report.json"))
    }
}
