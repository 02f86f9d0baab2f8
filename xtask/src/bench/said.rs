//! What memtrace says of a trace: its JSON report, as far as benchmarks ask.
//!
//! In: the report. Out: figures, whole or not at all.

use std::{
    collections::BTreeMap,
    io::{BufReader, Read},
};

use serde::Deserialize;
use serde_json::{Value, json};

/// The loss that is a stack and no event, and has a column of its own.
const LEFT_OUT: &str = "stacks_left_out";
/// A loss of neither event nor stack: perf's records of code that anybody on the host maps; a process's maps are read then.
const NO_EVENT: &str = "code_maps";
/// How a note on an interval begins in which memtrace was behind.
const BEHIND: &str = "memtrace was behind from ";

/// Functions that give blocks back; of the others each that is named here hands some out.
const FREES: [&str; 1] = ["free"];
const ALLOCATIONS: [&str; 9] = [
    "malloc",
    "calloc",
    "realloc",
    "reallocarray",
    "posix_memalign",
    "aligned_alloc",
    "memalign",
    "valloc",
    "pvalloc",
];

/// A report's figures.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Said {
    /// memtrace's own CPU time.
    pub(crate) cpu_seconds: f64,
    /// memtrace's own largest RSS.
    pub(crate) max_rss_bytes: u64,
    /// Calls by function.
    events: BTreeMap<String, u64>,
    /// What was lost of events and stacks, by name, but for stacks that were left out; only what is not 0.
    pub(crate) lost: BTreeMap<String, u64>,
    /// Stacks that were left out because memtrace was behind.
    pub(crate) n_left_out: u64,
    /// Intervals in which that happened, as far as they are told one by one.
    pub(crate) n_intervals: u64,
    /// Blocks that were live at the end, if the report says.
    pub(crate) live_blocks: Option<u64>,
}

/// A report, as far as it is read: its stacks may be a hundred megabytes.
#[derive(Deserialize)]
struct Report {
    trace: Trace,
    #[serde(rename = "self")]
    own: Own,
    notes: Vec<String>,
}

#[derive(Deserialize)]
struct Trace {
    events: BTreeMap<String, u64>,
    lost: BTreeMap<String, u64>,
    malloc: Option<Malloc>,
}

#[derive(Deserialize)]
struct Malloc {
    live_blocks: Option<u64>,
}

#[derive(Deserialize)]
struct Own {
    cpu_seconds: f64,
    max_rss_bytes: u64,
}

impl Said {
    /// The figures of a report; an error if it is none.
    pub(crate) fn read(report: impl Read) -> serde_json::Result<Self> {
        let Report { trace, own, notes } = serde_json::from_reader(BufReader::new(report))?;
        let mut lost = trace.lost;
        lost.retain(|name, n| *n > 0 && name != NO_EVENT);
        let n_left_out = lost.remove(LEFT_OUT).unwrap_or_default();
        Ok(Self {
            cpu_seconds: own.cpu_seconds,
            max_rss_bytes: own.max_rss_bytes,
            events: trace.events,
            lost,
            n_left_out,
            n_intervals: notes.iter().filter(|note| note.starts_with(BEHIND)).count() as u64,
            live_blocks: trace.malloc.and_then(|malloc| malloc.live_blocks),
        })
    }

    /// For the raw figures.
    pub(crate) fn to_json(&self) -> Value {
        let Self { cpu_seconds, max_rss_bytes, events, lost, n_left_out, n_intervals, live_blocks } =
            self;
        json!({
            "cpu_seconds": cpu_seconds, "max_rss_bytes": max_rss_bytes, "events": events, "lost": lost,
            "stacks_left_out": n_left_out, "intervals": n_intervals, "live_blocks": live_blocks,
        })
    }

    /// How often the function was called; 0 if it was not traced.
    pub(crate) fn n_calls(&self, function: &str) -> u64 {
        self.events.get(function).copied().unwrap_or_default()
    }

    /// Calls that handed out a block.
    pub(crate) fn n_allocations(&self) -> u64 {
        ALLOCATIONS.iter().map(|name| self.n_calls(name)).sum()
    }

    /// Calls that gave a block back.
    pub(crate) fn n_frees(&self) -> u64 {
        FREES.iter().map(|name| self.n_calls(name)).sum()
    }

    /// Everything that was lost but stacks that were left out.
    pub(crate) fn n_lost(&self) -> u64 {
        self.lost.values().sum()
    }

    /// What was lost, by name; nothing if nothing was.
    pub(crate) fn losses(&self) -> Option<String> {
        let losses: Vec<_> = self.lost.iter().map(|(name, n)| format!("{name} {n}")).collect();
        (!losses.is_empty()).then(|| losses.join(", "))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A report of 10 mallocs and 4 frees.
    pub(in crate::bench) fn report(lost: &Value, notes: &[&str]) -> Value {
        json!({
            "trace": {
                "events": {"mmap": 7, "malloc": 10, "calloc": 2, "free": 4},
                "lost": lost,
            },
            "self": {"cpu_seconds": 0.5, "max_rss_bytes": 70_000_000},
            "notes": notes,
        })
    }

    fn of(report: &Value) -> Said {
        Said::read(report.to_string().as_bytes()).unwrap()
    }

    /// Figures as a report says them.
    pub(in crate::bench) fn said(lost: &Value, notes: &[&str]) -> Said {
        of(&report(lost, notes))
    }

    /// Stacks that were left out are no event, nor is what is told of mapped code, and a loss of 0 is none.
    #[test]
    fn losses_by_name() {
        let quiet =
            said(&json!({"ring_full": 0, "stacks_left_out": 0, "code_maps": 7}), &["some note"]);
        assert_eq!((quiet.n_lost(), quiet.n_left_out, quiet.n_intervals), (0, 0, 0));
        assert_eq!(quiet.losses(), None);
        let note = "memtrace was behind from 1.0 s to 3.0 s: 3 calls …";
        let loud =
            json!({"ring_full": 5, "return_missed": 1, "recursion": 0, "stacks_left_out": 3});
        let loud = said(&loud, &[note, "other", note]);
        assert_eq!((loud.n_lost(), loud.n_left_out, loud.n_intervals), (6, 3, 2));
        assert_eq!(loud.losses().as_deref(), Some("return_missed 1, ring_full 5"));
    }

    /// Blocks are those of the allocator's functions; live ones are told or not, never 0 for that.
    #[test]
    fn blocks() {
        let mut report = report(&json!({}), &[]);
        let said = of(&report);
        assert_eq!((said.n_allocations(), said.n_frees(), said.n_calls("free")), (12, 4, 4));
        assert_eq!(said.live_blocks, None);
        report["trace"]["malloc"] = json!({"live_blocks": 7});
        assert_eq!(of(&report).live_blocks, Some(7));
    }

    /// The figures are taken whole or not at all.
    #[test]
    fn not_a_report() {
        let mut torn = report(&json!({}), &[]);
        torn["self"] = json!({"cpu_seconds": 0.5});
        for json in [torn.to_string().as_str(), r#"{"schema": 1}"#, "{", ""] {
            assert!(Said::read(json.as_bytes()).is_err(), "{json}");
        }
    }
}
