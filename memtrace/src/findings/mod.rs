//! What is the matter, what proves it, and what gives how much back.
//!
//! In: a recording, with the footprint at its end; or a footprint alone. Out: findings, each with this process's own
//! numbers, ranked by bytes. A rule is a function from [`Evidence`] to an optional [`Finding`]: what the evidence does not
//! carry is not found. Nothing is printed here, nothing is read.
//!
//! Two kinds are told apart, because the largest part of a process is seldom what is wrong with it: what is *suspicious*
//! comes first; what is large *by design* (a heap of a fixed size, mapped files) is told so that nobody searches there.

mod evidence;
mod files;
mod jvm;
mod makers;
mod retention;
mod scans;
mod sentence;
mod story;
mod streams;
mod threads;
mod trunk;

use std::{cmp::Reverse, ops::RangeInclusive};

use crate::{footprint::Footprint, stacks::FrameId, trace::Recording};
use evidence::Evidence;
pub use sentence::{Part, Sentence};

/// Whether something should be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Memory that the program does not need.
    Suspicious,
    /// Much memory, but as it was asked for.
    ByDesign,
}

/// How well the evidence carries a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Confidence {
    /// There may be another reason.
    Low,
    /// A part of the evidence is an estimate, or missing.
    Medium,
    /// It was seen.
    High,
}

/// Something that is the matter.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Its name, for programs and for searching.
    pub id: &'static str,
    /// What it is, in a line.
    pub title: Sentence,
    /// Whether something should be done about it.
    pub verdict: Verdict,
    /// How well the evidence carries it.
    pub confidence: Confidence,
    /// Resident bytes that it stands for.
    pub bytes: u64,
    /// What proves it: this process's numbers.
    pub evidence: Vec<Sentence>,
    /// The call that it comes from, the outermost frame first; empty where none is known.
    pub call: Vec<FrameId>,
    /// Why the confidence is not higher.
    pub doubts: Vec<Sentence>,
    /// What gives memory back, the surest first.
    pub remedies: Vec<Remedy>,
}

/// Something that gives memory back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Remedy {
    /// What to do, as it is typed where it can be typed.
    pub action: Sentence,
    /// Resident bytes that it returns, from the least to the most; `None` where one trace can't tell.
    pub returns: Option<RangeInclusive<u64>>,
    /// What the number rests on, or what to know.
    pub rests_on: Sentence,
    /// What `memtrace compare --with` takes, where that measures it.
    pub compare: Option<&'static str>,
}

/// What the rules say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Findings {
    /// What was found: what is suspicious first, the largest of each kind first.
    pub list: Vec<Finding>,
    /// Why findings may be missing.
    pub doubts: Vec<Sentence>,
}

type Rule = fn(&Evidence<'_>) -> Option<Finding>;

/// All rules.
const RULES: [Rule; 18] = [
    story::inflaters_left_to_the_collector,
    retention::arena_retention,
    retention::fragments,
    streams::inflaters,
    streams::deflaters,
    makers::temporary_buffers,
    makers::netty_chunks,
    makers::zip_directories,
    makers::direct_buffers,
    threads::stacks,
    threads::compilers,
    jvm::heap_not_used,
    jvm::heap_views,
    jvm::code_cache,
    jvm::class_metadata,
    files::mapped,
    files::page_cache,
    files::shared_memory,
];

/// What `recording` tells is the matter; `None` where it has no footprint.
#[must_use]
pub fn findings(recording: &Recording) -> Option<Findings> {
    let evidence = Evidence::of(recording, recording.footprint.as_ref()?);
    Some(Findings { list: ranked(&evidence), doubts: evidence.doubts() })
}

/// What a footprint tells alone; `recording` has nothing but the process's name.
#[must_use]
pub fn findings_of(recording: &Recording, footprint: &Footprint) -> Vec<Finding> {
    ranked(&Evidence::of(recording, footprint))
}

fn ranked(evidence: &Evidence<'_>) -> Vec<Finding> {
    let mut found: Vec<Finding> = RULES.iter().filter_map(|rule| rule(evidence)).collect();
    found.sort_by_key(|it| (it.verdict, Reverse(it.bytes), it.id));
    found
}

#[cfg(test)]
mod sample;
#[cfg(test)]
mod tests;
