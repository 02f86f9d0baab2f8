//! A footprint as a test reads it, and the kernel's own sum to hold against it.

use std::{collections::BTreeMap, fs, path::Path, thread::sleep, time::Duration};

use serde_json::Value;

use crate::{
    memtrace::{Memtrace, Outcome},
    subject::{Subject, send},
};

/// `memtrace footprint PID` with `options`.
pub fn footprint(pid: u32, options: &[&str]) -> Outcome {
    Memtrace::new().arg("footprint").arg(pid.to_string()).args(options).run()
}

/// A footprint as its JSON has it.
#[derive(Clone, Debug)]
pub struct Footprint(pub Value);

impl Footprint {
    /// That of process `pid`, at this moment.
    pub fn of(pid: u32) -> Self {
        Self::with(pid, &[])
    }

    /// The same, with options.
    pub fn with(pid: u32, options: &[&str]) -> Self {
        Self::told(&footprint(pid, &[&["--json", "-"], options].concat()))
    }

    /// What a memtrace told with `--json -`.
    pub fn told(outcome: &Outcome) -> Self {
        assert_eq!(outcome.code(), Some(0), "{}", outcome.stderr);
        Self::parse(&outcome.stdout)
    }

    /// From the text of a document.
    pub fn parse(text: &str) -> Self {
        let document: Value =
            serde_json::from_str(text).unwrap_or_else(|e| panic!("no JSON ({e}): {text}"));
        assert_eq!(document["schema"], 1);
        Self(document["footprint"].clone())
    }

    /// Resident bytes by the name of the row.
    pub fn rows(&self) -> BTreeMap<String, u64> {
        let rows = self.0["rows"].as_array().expect("it has rows").iter();
        let name = |row: &Value| row["kind"].as_str().expect("a row has a kind").to_owned();
        rows.map(|row| (name(row), row["resident_bytes"].as_u64().expect("it is a number")))
            .collect()
    }

    /// The resident bytes of one row; 0 where there is none.
    pub fn row(&self, kind: &str) -> u64 {
        self.rows().get(kind).copied().unwrap_or_default()
    }

    /// What the page tables add up to.
    pub fn rss(&self) -> u64 {
        self.0["rss_bytes"].as_u64().expect("it is a number")
    }

    /// The notes, a line each.
    pub fn notes(&self) -> String {
        let notes = self.0["notes"].as_array().expect("it has notes").iter();
        notes.filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
    }

    /// Whatever it is of: each byte has one row.
    pub fn assert_adds_up(&self, what: &str) {
        assert_eq!(self.rows().values().sum::<u64>(), self.rss(), "{what}: {}", self.0);
    }
}

/// Resident bytes of a process as `smaps_rollup` adds them up.
pub fn kernels_rss(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("it is alive");
    let line = text.lines().find(|line| line.starts_with("Rss:")).expect("it has memory");
    let kib = line.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok());
    kib.expect("it is a number") << 10
}

/// A process that is stopped until this is dropped.
#[derive(Debug)]
pub struct Stopped(u32);

impl Stopped {
    /// Stops a subject, and waits until each of its threads stands still.
    pub fn new(subject: &Subject) -> Self {
        Self::process(subject.pid())
    }

    /// The same of any child of this process.
    pub fn process(pid: u32) -> Self {
        send(pid, libc::SIGSTOP);
        let is_stopped = |path: &Path| {
            // A thread may end meanwhile.
            let stat = fs::read_to_string(path.join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
        };
        let tasks = || fs::read_dir(format!("/proc/{pid}/task")).expect("it is alive");
        while !tasks().flatten().all(|task| is_stopped(&task.path())) {
            sleep(Duration::from_millis(1));
        }
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        send(self.0, libc::SIGCONT);
    }
}
