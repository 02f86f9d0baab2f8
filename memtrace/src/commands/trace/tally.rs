//! What was lost, what failed and what else the user should know, gathered from the rooms that count it.

use std::collections::BTreeMap;

use memtrace_common::{Counter, Kind};

use crate::{
    probes::{Counters, Probes},
    stacks::Stacks,
    trace::Target,
};

/// What the session itself counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Own {
    /// Records that could not be decoded.
    pub(super) undecoded: u64,
    /// System V segments whose size could not be found out.
    pub(super) segment_size: u64,
    /// Records of perf's about mapped code that were lost.
    pub(super) code_maps: u64,
    /// Events that took effect before something that had left the window.
    pub(super) out_of_order: u64,
    /// Stacks of blocks that were not taken because memtrace was behind.
    pub(super) stacks_left_out: u64,
    /// Processes that ran before their allocators were probed.
    pub(super) probed_late: u64,
}

/// Everything that was lost, by name; what did not happen is there with 0.
pub(super) fn losses(probes: &Probes, stacks: &Stacks, own: Own) -> Vec<(String, u64)> {
    let counters = probes.counters();
    let kernel = Counter::LOSSES.iter().map(|&(counter, name)| (name, counters.get(counter)));
    let here = [
        ("undecoded", own.undecoded),
        ("segment_size", own.segment_size),
        ("code_maps", own.code_maps),
        ("out_of_order", own.out_of_order),
        ("stacks_left_out", own.stacks_left_out),
        ("probed_late", own.probed_late),
        ("unprobed", probes.n_unprobed()),
        ("stacks_not_kept", stacks.losses.not_kept),
        ("stacks_unfounded", stacks.losses.unfounded),
    ];
    let all = kernel.chain(probes.missed_by_kernel()).chain(here);
    all.map(|(name, n)| (name.to_owned(), n)).collect()
}

/// Calls that failed, by name.
pub(super) fn failed(counters: &Counters) -> Vec<(String, u64)> {
    let all =
        Kind::ALL.iter().filter_map(|&kind| Some((kind.name()?.to_owned(), counters.failed(kind))));
    all.filter(|(_, n)| *n > 0).collect()
}

/// Where no allocator was found.
pub(super) const NO_ALLOCATOR: &str = "malloc's blocks are not seen: none of the files whose code the process runs has \
    an allocator's functions among its symbols (a stripped program that has its allocator built in has none)";

/// What limits the whole trace, a line each.
pub(super) fn notes_on_trace(target: &Target, is_file_full: bool) -> Vec<String> {
    let pid = target.pid;
    let no_jvm = target
        .jvm
        .is_none()
        .then(|| format!("process {pid} is no Java virtual machine: its stacks are native only"));
    let full = is_file_full.then(|| {
        "the trace file reached its largest size; what came after that is not in it".to_owned()
    });
    no_jvm.into_iter().chain(full).collect()
}

/// The processes whose JVM can't be read, and why: a line each.
pub(super) fn notes_on_jvms(unreadable: BTreeMap<u32, String>) -> impl Iterator<Item = String> {
    unreadable.into_iter().map(|(tgid, error)| {
        format!(
            "the JVM of process {tgid} can't be read from outside: {error}; its threads have the kernel's names, and its \
             stacks end at Java"
        )
    })
}

/// The processes whose JVM's threads can't be listed, and why: a line each.
pub(super) fn notes_on_lists(unlisted: BTreeMap<u32, String>) -> impl Iterator<Item = String> {
    unlisted.into_iter().map(|(tgid, error)| {
        format!(
            "the threads of the JVM of process {tgid} can't be listed: {error}; they have the kernel's names"
        )
    })
}

/// What limits the stacks, a line each.
pub(super) fn notes_on_stacks(counters: &Counters, stacks: &Stacks) -> Vec<String> {
    let unreadable = stacks.unreadable().into_iter().map(|(name, reason)| {
        format!("failed to read {name}, stacks through it may be incomplete: {reason}")
    });
    let broken = stacks.losses.reasons().into_iter().filter(|(n, _)| *n > 0);
    let broken = broken.map(|(n, why)| format!("{n} stacks end {why}"));
    let n_holes = counters.get(Counter::STACK_FAULT);
    let holes = (n_holes > 0).then(|| {
        format!("{n_holes} stacks have pages that were never touched or could not be read")
    });
    log::debug!("forgot remembered frames {} times, to save memory", stacks.losses.anew);
    unreadable.chain(broken).chain(holes).collect()
}
