//! What holds the programs attached, and letting go of it all at once.
//!
//! The kernel lets go of one link after the other only when nobody can be in its program any more, which takes tens of
//! milliseconds each; many at the same time take no longer than one.

use std::{os::fd::OwnedFd, thread};

use aya::{
    Ebpf,
    programs::{
        BtfTracePoint, PerfEvent, TracePoint, UProbe, perf_event::PerfEventLinkId,
        tp_btf::BtfTracePointLinkId, trace_point::TracePointLinkId, uprobe::UProbeLinkId,
    },
};

use super::program_mut;

/// The links of all programs, with the programs' names.
#[derive(Debug, Default)]
pub(super) struct Links {
    pub(super) life: Vec<(&'static str, BtfTracePointLinkId)>,
    pub(super) syscalls: Vec<(&'static str, TracePointLinkId)>,
    pub(super) faults: Vec<PerfEventLinkId>,
    pub(super) functions: Vec<(&'static str, UProbeLinkId)>,
    pub(super) sessions: Vec<OwnedFd>,
}

impl Links {
    /// Takes over those of `others`.
    pub(super) fn add(&mut self, others: Links) {
        let Links { life, syscalls, faults, functions, sessions } = others;
        self.life.extend(life);
        self.syscalls.extend(syscalls);
        self.faults.extend(faults);
        self.functions.extend(functions);
        self.sessions.extend(sessions);
    }
}

/// Lets go of `links`, and waits for that.
pub(super) fn drop_all(ebpf: &mut Ebpf, links: Links) {
    let owned = owned(ebpf, links);
    thread::scope(|scope| {
        for link in owned {
            // Where no thread can be made, the link is dropped with the closure: here, one after the other.
            thread::Builder::new().spawn_scoped(scope, move || drop(link)).ok();
        }
    });
}

/// Lets go of `links` while other things go on.
pub(super) fn drop_later(ebpf: &mut Ebpf, links: Links) {
    let owned = owned(ebpf, links);
    if !owned.is_empty() {
        thread::Builder::new().spawn(move || drop(owned)).ok();
    }
}

fn owned(ebpf: &mut Ebpf, links: Links) -> Vec<Box<dyn Send>> {
    let mut owned: Vec<Box<dyn Send>> = Vec::new();
    for (name, id) in links.life {
        let program = program_mut::<BtfTracePoint>(ebpf, name).ok();
        owned.extend(program.and_then(|program| program.take_link(id).ok()).map(boxed));
    }
    for (name, id) in links.syscalls {
        let program = program_mut::<TracePoint>(ebpf, name).ok();
        owned.extend(program.and_then(|program| program.take_link(id).ok()).map(boxed));
    }
    for id in links.faults {
        let program = program_mut::<PerfEvent>(ebpf, "page_fault").ok();
        owned.extend(program.and_then(|program| program.take_link(id).ok()).map(boxed));
    }
    for (name, id) in links.functions {
        let program = program_mut::<UProbe>(ebpf, name).ok();
        owned.extend(program.and_then(|program| program.take_link(id).ok()).map(boxed));
    }
    owned.extend(links.sessions.into_iter().map(boxed));
    owned
}

fn boxed(link: impl Send + 'static) -> Box<dyn Send> {
    Box::new(link)
}
