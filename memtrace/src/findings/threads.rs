//! What threads cost by being there: their stacks, and the arenas of those that compile.

use crate::{footprint::RowKind, stacks::StackId};

use super::{
    Confidence, Finding, Part, Remedy, Verdict, evidence::Evidence, retention, sentence::say,
    trunk::trunk,
};

/// Stacks together must have so much: a JVM with two hundred threads has some 20 MiB.
const MIN_STACK_BYTES: u64 = 64 << 20;

/// Stacks of threads.
pub(super) fn stacks(evidence: &Evidence<'_>) -> Option<Finding> {
    let bytes = evidence.resident(RowKind::ThreadStacks);
    if bytes < MIN_STACK_BYTES || !evidence.is_much(bytes) {
        return None;
    }
    let pid = evidence.recording.target.pid;
    let alive = evidence.recording.ledger.threads().iter();
    let n = alive.filter(|thread| thread.tgid == pid && thread.tid != 0 && !thread.ended).count();
    let mut proofs = vec![say![
        "stacks are ",
        Part::Share(bytes, evidence.footprint.rss_bytes),
        " of the resident bytes"
    ]];
    if n > 0 {
        proofs.push(say![Part::Things(n as u64, "thread"), " were seen that have not ended"]);
    }
    Some(Finding {
        id: "thread-stacks",
        title: say!["stacks of threads"],
        verdict: Verdict::Suspicious,
        confidence: Confidence::High,
        bytes,
        evidence: proofs,
        call: Vec::new(),
        doubts: Vec::new(),
        remedies: vec![
            Remedy {
                action: say!["fewer threads: bound the pools, or virtual threads (21 and later)"],
                returns: None,
                rests_on: say![
                    "each that ends returns its stack; `memtrace stacks PID` shows what they do"
                ],
                compare: None,
            },
            Remedy {
                action: say!["smaller stacks: -Xss512k"],
                returns: None,
                rests_on: say![
                    "bounds what deep recursion leaves behind, returns nothing of what is used"
                ],
                compare: Some("-Xss512k"),
            },
        ],
    })
}

/// Any JVM that has started keeps some tens of MiB of what its compilers needed for their largest methods.
const MUCH_FOR_COMPILERS: u64 = 64 << 20;

/// What the compilers' threads have made resident of the free pages.
pub(super) fn compilers(evidence: &Evidence<'_>) -> Option<Finding> {
    let retained = evidence.retained.as_ref()?;
    let threads = evidence.recording.ledger.threads();
    let is_compiler = |index: u32| {
        let name = threads.get(index as usize).map_or(&b""[..], |thread| &thread.name);
        [&b"C2 CompilerThre"[..], b"C1 CompilerThre"].iter().any(|start| name.starts_with(start))
    };
    let of: Vec<_> = retained.threads.iter().filter(|it| is_compiler(it.thread)).collect();
    let bytes = of.iter().map(|it| it.bytes).fold(0, u64::saturating_add);
    let first = of.first()?;
    if !evidence.is_much(bytes) {
        return None;
    }
    let (confidence, doubts) = evidence.trust_in_owners();
    let stacks: Vec<(StackId, u64)> =
        of.iter().flat_map(|it| evidence.retained_by(it.thread)).collect();
    let mut remedies = retention::trim(evidence);
    remedies.insert(
        remedies.len().min(2),
        Remedy {
            action: say!["bound a compilation: -XX:CompileCommand=MemLimit,*.*,64M (22 and later)"],
            returns: None,
            rests_on: say!["a method that needs more stays interpreted"],
            compare: Some("-XX:CompileCommand=MemLimit,*.*,64M"),
        },
    );
    Some(Finding {
        id: "compiler-arenas",
        title: say!["malloc keeps what the JVM's compilers once needed"],
        verdict: if bytes < MUCH_FOR_COMPILERS { Verdict::ByDesign } else { Verdict::Suspicious },
        confidence,
        bytes,
        evidence: vec![say![
            Part::Things(of.len() as u64, "compiler thread"),
            " made ",
            Part::Bytes(bytes),
            " resident that are free now, most of them ",
            Part::Thread(first.thread)
        ]],
        call: trunk(evidence.recording, &stacks),
        doubts,
        remedies,
    })
}

/// What [`compilers`] accounts for.
pub(super) fn bytes_of_compilers(evidence: &Evidence<'_>) -> u64 {
    compilers(evidence).map_or(0, |finding| finding.bytes)
}
