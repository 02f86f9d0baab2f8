//! What is the matter, as JSON has it.

use serde::Serialize;

use crate::{
    findings::{self, Confidence, Finding, Verdict},
    footprint::Footprint,
    report::sentence::sentence,
    trace::{Recording, Target},
};

#[derive(Serialize)]
pub(super) struct Found {
    id: &'static str,
    title: String,
    /// `suspicious`, or `by_design`.
    verdict: &'static str,
    /// `high`, `medium` or `low`.
    confidence: &'static str,
    bytes: u64,
    evidence: Vec<String>,
    doubts: Vec<String>,
    /// Outermost first, as in `stacks`.
    call: Vec<String>,
    remedies: Vec<Remedy>,
}

#[derive(Serialize)]
struct Remedy {
    action: String,
    /// The middle of what it may return; absent where one trace can't tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    returns_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    returns_bytes_min: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    returns_bytes_max: Option<u64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    rests_on: String,
    /// What `memtrace compare --with` takes, where that measures it.
    #[serde(skip_serializing_if = "Option::is_none")]
    compare_with: Option<&'static str>,
}

/// The findings of a trace; `None` where it has no footprint.
pub(super) fn of(recording: &Recording) -> Option<Vec<Found>> {
    let found = findings::findings(recording)?;
    Some(found.list.iter().map(|finding| Found::of(recording, finding)).collect())
}

impl Found {
    /// The findings of a footprint alone.
    pub(super) fn of_footprint(target: &Target, footprint: &Footprint) -> Vec<Self> {
        let recording = Recording { target: target.clone(), ..Recording::default() };
        let found = findings::findings_of(&recording, footprint);
        found.iter().map(|finding| Found::of(&recording, finding)).collect()
    }

    fn of(recording: &Recording, finding: &Finding) -> Self {
        let say = |it: &findings::Sentence| sentence(recording, it);
        let name = |id: &crate::stacks::FrameId| {
            recording.frames.get(id.0 as usize).map(|frame| frame.name.clone())
        };
        let remedy = |it: &findings::Remedy| Remedy {
            action: say(&it.action),
            returns_bytes: it.returns.as_ref().map(|it| it.start() + (it.end() - it.start()) / 2),
            returns_bytes_min: it.returns.as_ref().map(|it| *it.start()),
            returns_bytes_max: it.returns.as_ref().map(|it| *it.end()),
            rests_on: say(&it.rests_on),
            compare_with: it.compare,
        };
        Self {
            id: finding.id,
            title: say(&finding.title),
            verdict: match finding.verdict {
                Verdict::Suspicious => "suspicious",
                Verdict::ByDesign => "by_design",
            },
            confidence: match finding.confidence {
                Confidence::High => "high",
                Confidence::Medium => "medium",
                Confidence::Low => "low",
            },
            bytes: finding.bytes,
            evidence: finding.evidence.iter().map(say).collect(),
            doubts: finding.doubts.iter().map(say).collect(),
            call: finding.call.iter().filter_map(name).collect(),
            remedies: finding.remedies.iter().map(remedy).collect(),
        }
    }
}
