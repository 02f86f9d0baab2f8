//! Memory that is files: mapped ones, which RSS counts, and the page cache, which only the container counts.

use crate::footprint::RowKind;

use super::{Confidence, Finding, Part, Remedy, Verdict, evidence::Evidence, sentence::say};

/// Of what is resident, or charged, the percentage that files must be.
const MIN_PERCENT: u128 = 25;

fn is_large_part(part: u64, whole: u64) -> bool {
    u128::from(part) * 100 >= u128::from(whole) * MIN_PERCENT
}

/// Mapped files.
pub(super) fn mapped(evidence: &Evidence<'_>) -> Option<Finding> {
    let bytes = evidence.resident(RowKind::File);
    if !evidence.is_much(bytes) || !is_large_part(bytes, evidence.footprint.rss_bytes) {
        return None;
    }
    Some(Finding {
        id: "mapped-files",
        title: say!["mapped files: jars, indexes, data"],
        verdict: Verdict::ByDesign,
        confidence: Confidence::High,
        bytes,
        evidence: vec![say![
            Part::Share(bytes, evidence.footprint.rss_bytes),
            " of the resident bytes are pages of files; the kernel takes back those that were not written to when \
             memory is short"
        ]],
        call: Vec::new(),
        doubts: Vec::new(),
        remedies: vec![Remedy {
            action: say!["nothing to do; to judge the process, subtract them"],
            returns: Some(0..=0),
            ..Remedy::default()
        }],
    })
}

/// Of the container's charge, what is page cache.
pub(super) fn page_cache(evidence: &Evidence<'_>) -> Option<Finding> {
    let container = evidence.footprint.container.as_ref()?;
    let limit = container.limit_bytes?;
    let part = |names: &[&str]| {
        let found = container.parts.iter().find(|(name, _)| names.contains(&name.as_str()));
        found.map_or(0, |it| it.1)
    };
    let shared = part(&["shmem", "total_shmem"]);
    let cache = part(&["file", "total_cache"]).saturating_sub(shared);
    let is_near = container.usage_bytes >= limit / 2;
    if !is_near || !evidence.is_much(cache) || !is_large_part(cache, container.usage_bytes) {
        return None;
    }
    Some(Finding {
        id: "page-cache",
        title: say!["page cache of the container, which is no part of the process"],
        verdict: Verdict::ByDesign,
        confidence: Confidence::High,
        bytes: cache,
        evidence: vec![say![
            "the container is charged ",
            Part::Bytes(container.usage_bytes),
            " of ",
            Part::Bytes(limit),
            ", of which ",
            Part::Bytes(cache),
            " are cached files; the process has ",
            Part::Bytes(evidence.footprint.rss_bytes)
        ]],
        call: Vec::new(),
        doubts: Vec::new(),
        remedies: vec![Remedy {
            action: say!["nothing to do: the kernel drops it before the limit kills anybody"],
            returns: Some(0..=0),
            ..Remedy::default()
        }],
    })
}

/// Shared memory and tmpfs in the container's charge, which nothing gives back as long as it is there.
pub(super) fn shared_memory(evidence: &Evidence<'_>) -> Option<Finding> {
    let container = evidence.footprint.container.as_ref()?;
    let limit = container.limit_bytes?;
    let shared = container.parts.iter().find(|it| it.0 == "shmem" || it.0 == "total_shmem")?.1;
    let beside = shared.saturating_sub(evidence.resident(RowKind::Shared));
    if !evidence.is_much(beside) || !is_large_part(beside, limit) {
        return None;
    }
    Some(Finding {
        id: "tmpfs-in-container",
        title: say!["files in tmpfs are charged to the container"],
        verdict: Verdict::Suspicious,
        confidence: Confidence::High,
        bytes: beside,
        evidence: vec![say![
            Part::Bytes(shared),
            " of shared memory in a container with a limit of ",
            Part::Bytes(limit),
            "; the process has mapped ",
            Part::Bytes(evidence.resident(RowKind::Shared)),
            " of it"
        ]],
        call: Vec::new(),
        doubts: Vec::new(),
        remedies: vec![Remedy {
            action: say![
                "remove files from /dev/shm and from emptyDir volumes with medium: Memory, or move them to a disk"
            ],
            returns: Some(0..=beside),
            rests_on: say!["of the container's charge, not of RSS"],
            compare: None,
        }],
    })
}
