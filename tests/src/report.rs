//! memtrace's JSON report, as the tests ask about it.

use std::collections::BTreeMap;

use serde_json::Value;

/// The parsed report.
#[derive(Clone, Debug)]
pub struct Report(Value);

/// One row of `stacks`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// The thread.
    pub tid: u32,
    /// In the unit of the metric.
    pub value: u64,
    /// How many events it stands for.
    pub events: u64,
    /// How many blocks of an allocator it stands for, where it counts such.
    pub blocks: Option<u64>,
    /// `complete`, or what it is instead.
    pub quality: String,
    /// Outermost first.
    pub frames: Vec<String>,
}

/// One row of `threads`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// Its id.
    pub tid: u32,
    /// Its name.
    pub name: String,
    /// Where the name is from.
    pub name_from: String,
    /// Bytes of address space obtained.
    pub mapped: u64,
    /// Those not given back.
    pub live: u64,
    /// Inflaters and Deflaters opened.
    pub inflaters: u64,
    /// Those not ended.
    pub inflaters_live: u64,
    /// What it got of an allocator, if that was traced.
    pub malloc: Option<Malloc>,
}

/// What a thread got of an allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malloc {
    /// Blocks handed out to it.
    pub n: u64,
    /// Their bytes, as asked for.
    pub bytes: u64,
    /// The bytes of those not given back.
    pub live_bytes: u64,
    /// What open Inflaters and Deflaters hold of them.
    pub inflaters_live_bytes: u64,
}

impl Report {
    /// Reads a report; its schema must be the one that the tests know.
    pub fn parse(text: &str) -> Self {
        let value: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
        assert_eq!(value["schema"], 1);
        Self(value)
    }

    /// The whole of it.
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// Recorded calls or streams of one kind, 0 if the kind is absent.
    pub fn events(&self, kind: &str) -> u64 {
        self.0["trace"]["events"][kind].as_u64().unwrap_or_default()
    }

    /// Calls of one kind that failed, 0 if the kind is absent.
    pub fn failed(&self, kind: &str) -> u64 {
        self.0["trace"]["failed"][kind].as_u64().unwrap_or_default()
    }

    /// Everything that was lost, by the name of the way, without what was not.
    pub fn lost(&self) -> BTreeMap<String, u64> {
        let lost = self.0["trace"]["lost"].as_object().expect("a report says what was lost");
        let number = |value: &Value| value.as_u64().expect("a loss is a count");
        let rows = lost.iter().map(|(name, value)| (name.clone(), number(value)));
        rows.filter(|(_, n)| *n > 0).collect()
    }

    /// The same, but for perf's records of mapped code: the maps are read instead, and no event is lost.
    pub fn lost_events(&self) -> BTreeMap<String, u64> {
        let mut lost = self.lost();
        lost.remove("code_maps");
        lost
    }

    /// How many stacks are `complete`, `approximate`, `truncated` or `broken`.
    pub fn stacks_that_are(&self, state: &str) -> u64 {
        let states = &self.0["trace"]["stacks"];
        states[state].as_u64().unwrap_or_else(|| panic!("no count of {state} stacks in {states}"))
    }

    /// A number of `trace.malloc`, which must be there.
    pub fn malloc(&self, key: &str) -> u64 {
        number(&self.0["trace"]["malloc"], key)
    }

    /// What the report says of `trace.malloc` and what was lost, for a message.
    pub fn about_malloc(&self) -> String {
        let trace = &self.0["trace"];
        let Self(value) = self;
        format!(
            "malloc {} events {} failed {} lost {} notes {}",
            trace["malloc"], trace["events"], trace["failed"], trace["lost"], value["notes"]
        )
    }

    /// All threads.
    pub fn threads(&self) -> Vec<Thread> {
        let rows = self.0["threads"].as_array().expect("a report has threads");
        rows.iter().map(thread).collect()
    }

    /// The thread `tid`.
    pub fn thread(&self, tid: u32) -> Thread {
        let found = self.threads().into_iter().find(|thread| thread.tid == tid);
        found.unwrap_or_else(|| panic!("no thread {tid} in {}", self.0["threads"]))
    }

    /// The thread that is called `name`.
    pub fn thread_named(&self, name: &str) -> Thread {
        let found = self.threads().into_iter().find(|thread| thread.name == name);
        found.unwrap_or_else(|| panic!("no thread `{name}` in {}", self.0["threads"]))
    }

    /// All stacks of one metric.
    pub fn stacks(&self, metric: &str) -> Vec<Stack> {
        let rows = self.0["stacks"].as_array().expect("a report has stacks");
        rows.iter().filter(|row| row["metric"] == metric).map(stack).collect()
    }

    /// The one stack that mapped `size` bytes in one call.
    pub fn stack_of_size(&self, size: u64) -> Stack {
        self.stack_of(size, 1)
    }

    /// The one stack that mapped `size` bytes in `n` calls.
    pub fn stack_of(&self, size: u64, n: u64) -> Stack {
        let mut all = self.stacks("mapped");
        all.retain(|stack| stack.value == size && stack.events == n);
        assert_eq!(all.len(), 1, "stacks of {size:#x} bytes: {all:#?} in {}", self.0["stacks"]);
        all.remove(0)
    }
}

fn thread(row: &Value) -> Thread {
    Thread {
        tid: number(row, "tid") as u32,
        name: text(row, "name"),
        name_from: text(row, "name_from"),
        mapped: number(row, "mapped_bytes"),
        live: number(row, "mapped_live_bytes"),
        inflaters: number(row, "inflaters"),
        inflaters_live: number(row, "inflaters_live"),
        malloc: row["mallocs"].as_u64().map(|n| Malloc {
            n,
            bytes: number(row, "malloc_bytes"),
            live_bytes: number(row, "malloc_live_bytes"),
            inflaters_live_bytes: number(row, "inflaters_live_bytes"),
        }),
    }
}

fn stack(row: &Value) -> Stack {
    let frames = row["frames"].as_array().expect("a stack has frames");
    let frame = |frame: &Value| frame.as_str().expect("a frame is text").to_owned();
    Stack {
        tid: number(row, "tid") as u32,
        value: number(row, "value"),
        events: number(row, "events"),
        blocks: row["blocks"].as_u64(),
        quality: row["quality"].as_str().unwrap_or("complete").to_owned(),
        frames: frames.iter().map(frame).collect(),
    }
}

fn number(row: &Value, key: &str) -> u64 {
    row[key].as_u64().unwrap_or_else(|| panic!("`{key}` is no count in {row}"))
}

fn text(row: &Value, key: &str) -> String {
    row[key].as_str().unwrap_or_else(|| panic!("`{key}` is no text in {row}")).to_owned()
}
