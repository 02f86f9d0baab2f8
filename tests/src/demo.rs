//! The demo application: the jar, the options that start it, and the application as it goes on.

use std::{
    env, fs,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{
    fixtures::{run, target_dir},
    java::Jdk,
    turn::Lock,
};

/// How long its start-up may take on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(240);
/// Ticks of the clock that it takes in a second when it has nothing to do.
const IDLE_TICKS: u64 = 8;

/// The options of the JVM that the demo application is run with: the opened package is what its old
/// libraries need on every JDK, and a heap of one size, as servers have it, is not obtained bit by bit
/// by whichever thread collects garbage.
pub const JVM_OPTIONS: [&str; 4] =
    ["-Xms1g", "-Xmx1g", "--add-opens", "java.base/java.lang=ALL-UNNAMED"];

/// The demo application's jar: the one that `MEMTRACE_DEMO_JAR` names, else built by Maven once.
pub fn jar() -> PathBuf {
    if let Some(jar) = env::var_os("MEMTRACE_DEMO_JAR") {
        return jar.into();
    }
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo-app");
    let jar = project.join("target/demo.jar");
    let _lock = Lock::exclusive(&target_dir().join("demo.lock"));
    if !jar.exists() {
        run(Command::new("mvn").args(["-q", "-B", "package", "-f"]).arg(project));
    }
    jar
}

/// The application, started and with nothing to do any more; killed when dropped.
#[derive(Debug)]
pub struct Demo {
    child: Child,
    _folder: TempDir,
}

impl Demo {
    /// Starts it on `jdk` with more options, and waits until both its start-up and its scan are over.
    pub fn start(jdk: &Jdk, options: &[&str]) -> Self {
        let jar = jar();
        let folder = TempDir::with_prefix("memtrace-demo-").expect("the folder is writable");
        let log = folder.path().join("log");
        let output = File::create(&log).expect("the folder is writable");
        let mut java = Command::new(jdk.java());
        java.args(JVM_OPTIONS).args(options).arg("-jar").arg(jar);
        java.stdin(Stdio::null()).stderr(output.try_clone().expect("it is open")).stdout(output);
        let child = java.spawn().unwrap_or_else(|e| panic!("failed to start {java:?}: {e}"));
        let mut demo = Self { child, _folder: folder };
        demo.wait_until_idle(&log);
        demo
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn wait_until_idle(&mut self, log: &Path) {
        let (began, mut before) = (Instant::now(), 0);
        while began.elapsed() < START_LIMIT {
            sleep(Duration::from_secs(1));
            let said = fs::read_to_string(log).unwrap_or_default();
            let ended = self.child.try_wait().expect("it is our child");
            assert!(ended.is_none(), "the application ended ({ended:?}): {said}");
            let ticks = self.ticks();
            if said.contains("demo: scan finished") && ticks - before < IDLE_TICKS {
                return;
            }
            before = ticks;
        }
        panic!("the application has not started: {}", fs::read_to_string(log).unwrap_or_default());
    }

    /// Its processor time, in ticks of the clock.
    fn ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("it is alive");
        let (_, fields) = stat.rsplit_once(") ").expect("its name stands in parentheses");
        let times = fields.split(' ').skip(11).take(2);
        times.filter_map(|field| field.parse::<u64>().ok()).sum()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // It may have ended.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
