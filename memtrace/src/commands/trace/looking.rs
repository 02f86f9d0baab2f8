//! Looking at a process that has new code: what it is, and what of it is to be probed.
//!
//! In: a pid, and what is known of it. Out: what is known now, and what the user should know.

use std::io;

use anyhow::Context;
use memtrace_common::Kind;

use crate::{
    events::Event,
    probes::Probes,
    target::{self, JavaHome, Library},
    trace::{Jvm, Target},
};

const PROT_EXEC: u64 = 4;
const MAP_ANONYMOUS: u64 = 0x20;

/// Whether the process has mapped a file with code: its names and rules are read while it is alive.
pub(super) fn maps_code(event: &Event<'_>) -> bool {
    let [_, _, prot, flags, _] = event.header.args;
    event.kind == Kind::MMAP && prot & PROT_EXEC != 0 && flags & MAP_ANONYMOUS == 0
}

/// What `known`, the target, turns out to be, if that is more than was known.
pub(super) fn learn(known: &Target) -> Option<Target> {
    if known.jvm.is_some() && known.allocator.is_some() {
        return None;
    }
    let jvm = known.jvm.clone().or_else(|| {
        let version = JavaHome::of_process(known.pid)?.version().unwrap_or_default();
        Some(Jvm { major: target::feature_release(&version), version })
    });
    let allocator = known.allocator.clone().or_else(|| target::allocator(known.pid));
    let target = Target { jvm, allocator, ..known.clone() };
    (target != *known).then_some(target)
}

/// Probes the allocators of process `tgid`, if they are to be probed. Returns notes on what can't be.
pub(super) fn probe_allocators(probes: &mut Probes, tgid: u32) -> Vec<String> {
    if !probes.wants_allocators() {
        return Vec::new();
    }
    let files = target::code_files(tgid, |key| probes.knows_allocator(tgid, key));
    let attach = |file: io::Result<Library>| {
        let file = file.context("failed to open a file with code")?;
        probes.attach_allocator(tgid, &file)
    };
    let errors: Vec<_> = files.into_iter().map(attach).filter_map(Result::err).collect();
    // A process that has ended meanwhile asks for nothing any more.
    if errors.is_empty() || !target::is_alive(tgid) {
        return Vec::new();
    }
    errors.iter().map(|error| format!("an allocator may be unseen: {error:#}")).collect()
}

/// Probes the zlib of process `tgid`, with `own` its own functions, too. Returns notes on what can't be probed.
pub(super) fn probe_zlib(probes: &mut Probes, tgid: u32, own: bool) -> Vec<String> {
    let mut notes = Vec::new();
    for library in target::zlib_libraries(tgid, own) {
        let library = library.context("failed to open the library");
        match library.and_then(|library| probes.attach_zlib(&library)) {
            Ok(_) => {}
            // A process that has ended meanwhile opens no Inflater.
            Err(_) if !target::is_alive(tgid) => {}
            Err(error) => {
                notes.push(format!("the Inflaters of a zlib library are not seen: {error:#}"));
            }
        }
    }
    notes
}
