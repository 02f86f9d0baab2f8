//! Heap dumps of running JVMs, and what `memtrace heap` says of a dump.
//!
//! In: a JVM or a file. Out: the file, and the JSON that memtrace writes of it, by keys that are there or a test fails.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    heap_app::jcmd,
    hprof::{Format, Heap, Truth, populate},
    memtrace::{Memtrace, Outcome},
};

/// A heap dump, removed when dropped.
#[derive(Debug)]
pub struct HeapDump {
    folder: TempDir,
}

impl HeapDump {
    /// What is reachable in a running JVM, dumped by itself on a request of `jcmd`; `None` if `jcmd` can't talk to it.
    pub fn of_process(pid: u32) -> Option<Self> {
        let dump = Self::empty();
        jcmd(pid, &["GC.heap_dump", dump.path().to_str().expect("a path of ours is UTF-8")])?;
        // Of another user's JVM there may be an answer and no file.
        dump.path().is_file().then_some(dump)
    }

    /// A made-up heap.
    pub fn made_up(format: Format, n_objects: u64) -> (Self, Truth) {
        let mut file = Vec::new();
        let heap = Heap::new(&mut file, format, 8).expect("memory can be written");
        let truth = populate(heap, n_objects).expect("memory can be written");
        (Self::of_bytes(&file), truth)
    }

    /// Any bytes.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let dump = Self::empty();
        fs::write(dump.path(), bytes).expect("the temporary folder is writable");
        dump
    }

    /// In `/tmp`, which JVMs in roots of their own see too.
    fn empty() -> Self {
        let folder = TempDir::with_prefix_in("memtrace-heap-", "/tmp");
        Self { folder: folder.expect("/tmp is writable") }
    }

    /// The file.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("dump.hprof")
    }

    /// What memtrace says of it, in a view or all in all.
    pub fn report(&self, view: &[&str]) -> HeapReport {
        let outcome = heap(view, &self.path());
        assert_eq!(outcome.code(), Some(0), "{}", outcome.stderr);
        HeapReport::parse(&outcome.stdout)
    }
}

/// Runs `memtrace heap VIEW FILE --json -`.
pub fn heap(view: &[&str], file: &Path) -> Outcome {
    Memtrace::new().arg("heap").args(view).arg(file).args(["--json", "-"]).run()
}

/// What memtrace says of a heap dump.
#[derive(Clone, Debug)]
pub struct HeapReport(Value);

/// A row of memtrace's histogram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassRow {
    /// As Java writes it.
    pub class: String,
    /// Objects.
    pub instances: u64,
    /// Their own bytes.
    pub shallow_bytes: u64,
}

impl HeapReport {
    /// A report of the schema that the tests know.
    pub fn parse(json: &str) -> Self {
        let value: Value = serde_json::from_str(json).unwrap_or_else(|e| panic!("{e}: {json}"));
        assert_eq!(value["schema"], 1, "{value}");
        Self(value)
    }

    /// All of it.
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// A whole number of `totals`.
    pub fn total(&self, key: &str) -> u64 {
        number(&self.0["totals"], key)
    }

    /// Leaks, by application.
    pub fn leaks(&self) -> &[Value] {
        list(&self.0, "leaks")
    }

    /// Leaked class loaders.
    pub fn leaked_loaders(&self) -> &[Value] {
        list(&self.0, "leaked_loaders")
    }

    /// Objects and bytes by class.
    pub fn histogram(&self) -> Vec<ClassRow> {
        let row = |row: &Value| ClassRow {
            class: text(row, "class").to_owned(),
            instances: number(row, "instances"),
            shallow_bytes: number(row, "shallow_bytes"),
        };
        list(&self.0, "histogram").iter().map(row).collect()
    }
}

/// A list that must be there.
pub fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap_or_else(|| panic!("no list `{key}` in {value}"))
}

/// A whole number that must be there.
pub fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("no number `{key}` in {value}"))
}

/// A text that must be there.
pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no text `{key}` in {value}"))
}
