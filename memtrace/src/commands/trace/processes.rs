//! The traced processes: which of them live, and what code they have at the time of an event.
//!
//! In: events, and what perf tells of mapped code. Out: the code that stacks are resolved against, and the processes that
//! are to be looked at because theirs is new.

use std::collections::BTreeSet;

use memtrace_common::{EventHeader, Kind};

use super::looking;
use crate::{
    events::{CodeChanges, Event},
    probes::Probes,
    stacks::Stacks,
    target,
};

/// The traced processes.
pub(super) struct Processes {
    /// The process that was asked for, or started.
    pub(super) root: u32,
    pub(super) probes: Probes,
    pub(super) stacks: Stacks,
    /// Those that have not ended.
    live: BTreeSet<u32>,
    /// Code that is mapped later than the events that were read so far.
    code: CodeChanges,
    /// Those whose code is new: what they are, and whether they are to be probed, is looked at after the events.
    code_is_new: BTreeSet<u32>,
    /// How the process that was asked for ended, as wait(2) has it.
    pub(super) status: Option<i32>,
    /// Records of perf's about mapped code that were lost.
    pub(super) n_code_maps_lost: u64,
    /// Processes that ran before their allocators were probed.
    pub(super) n_probed_late: u64,
}

impl Processes {
    /// Only `root` so far.
    pub(super) fn new(root: u32, probes: Probes) -> Self {
        Self {
            root,
            probes,
            stacks: Stacks::new(),
            live: BTreeSet::from([root]),
            code: CodeChanges::default(),
            code_is_new: BTreeSet::new(),
            status: None,
            n_code_maps_lost: 0,
            n_probed_late: 0,
        }
    }

    /// Those that have not ended.
    pub(super) fn live(&self) -> impl Iterator<Item = u32> {
        self.live.iter().copied()
    }

    /// Whether `tgid` is one that has not ended.
    pub(super) fn is_live(&self, tgid: u32) -> bool {
        self.live.contains(&tgid)
    }

    /// Whether none is left.
    pub(super) fn are_over(&self) -> bool {
        self.live.is_empty()
    }

    /// Process `tgid` has ended, and all its events were resolved.
    pub(super) fn ended(&mut self, tgid: u32) {
        self.live.remove(&tgid);
        self.stacks.exit(tgid);
        self.probes.forget_allocators(tgid);
        self.code_is_new.remove(&tgid);
    }

    /// Looks at the Java code of all of them.
    pub(super) fn observe_java(&mut self, now_ns: u64) {
        let Self { stacks, live, .. } = self;
        live.iter().for_each(|&tgid| stacks.observe(tgid, now_ns));
    }

    /// Brings processes and code to the time of `event`, with what it does to them.
    pub(super) fn follow(&mut self, event: &Event<'_>) {
        if looking::maps_code(event) {
            self.code_changed(event.header.tgid);
        }
        self.change_code(event.header.exit_ns);
        self.follow_life(event);
    }

    fn follow_life(&mut self, event: &Event<'_>) {
        let header = &event.header;
        match event.kind {
            Kind::FORK if header.args[1] != 0 => {
                let child = header.args[0] as u32;
                self.live.insert(child);
                self.code.begin(child, header.enter_ns);
                self.stacks.fork(header.tgid, child);
                self.code_changed(child);
                self.probe_allocators_of_child(header.tgid, child);
            }
            Kind::EXEC => {
                if header.args[0] as u32 != header.tgid {
                    self.renew_allocators(header.tgid);
                }
                // What perf tells of a new image comes before the image itself.
                if !self.probes.tells_code_maps() {
                    self.stacks.exec(header.tgid);
                }
                self.code_changed(header.tgid);
            }
            Kind::EXIT if leaves_its_process(header) && !self.probes.outlive_first_thread() => {
                self.renew_allocators(header.tgid);
            }
            Kind::EXIT if header.args[0] != 0 => {
                self.ended(header.tgid);
                if header.tgid == self.root {
                    self.status = Some(header.args[1] as i32);
                }
            }
            _ => {}
        }
    }

    /// What a child asks of an allocator before it is probed is not seen: a process can't be probed that is not there yet.
    fn probe_allocators_of_child(&mut self, parent: u32, child: u32) {
        if !self.probes.wants_allocators() {
            return;
        }
        match self.probes.attach_allocators_of(parent, child) {
            Ok(_) => {}
            // It has ended meanwhile.
            Err(_) if !target::is_alive(child) => {}
            Err(error) => log::warn!("{error:#}"),
        }
        self.n_probed_late += 1;
        self.code_is_new.insert(child);
    }

    /// The kernel has let go of the probes of process `tgid`: the thread that they were opened for is gone.
    fn renew_allocators(&mut self, tgid: u32) {
        if !self.probes.wants_allocators() {
            return;
        }
        match self.probes.renew_allocators(tgid) {
            Ok(n) => self.n_probed_late += u64::from(n > 0),
            Err(error) => log::warn!("{error:#}"),
        }
        self.code_is_new.insert(tgid);
    }

    /// Process `tgid` has code that is new: how to unwind it is noted now, while the events behind wait.
    fn code_changed(&mut self, tgid: u32) {
        if !self.read_code_maps() {
            self.read_map_of_code(tgid);
        }
    }

    /// Takes what perf tells of mapped code; `false` where it doesn't tell. Where it lost some of it, nobody knows whose
    /// that was: all maps are read instead.
    pub(super) fn read_code_maps(&mut self) -> bool {
        let Self { probes, code, live, .. } = self;
        let tells = probes.read_code_maps(|record| code.take(record));
        let n_lost = code.claim(|tgid| live.contains(&tgid));
        if n_lost > 0 {
            self.n_code_maps_lost += n_lost;
            self.live.clone().into_iter().for_each(|tgid| self.read_map_of_code(tgid));
        }
        tells
    }

    fn read_map_of_code(&mut self, tgid: u32) {
        self.stacks.refresh(tgid);
        self.code_is_new.insert(tgid);
    }

    /// Lets happen to the code what happened to it up to `time_ns`: events are resolved against the code of their time.
    fn change_code(&mut self, time_ns: u64) {
        while let Some(change) = self.code.pop(time_ns) {
            let Some(mapping) = &change.mapping else {
                self.stacks.exec(change.tgid);
                continue;
            };
            self.stacks.map_code(change.tgid, mapping);
            let may_have_allocator = self.probes.wants_allocators() && mapping.inode != 0;
            if may_have_allocator || target::tells_what_it_is(&mapping.file_name()) {
                self.code_is_new.insert(change.tgid);
            }
        }
    }

    /// One whose code is new and was not looked at yet.
    pub(super) fn take_new_code(&mut self) -> Option<u32> {
        self.code_is_new.pop_first()
    }
}

/// Whether it is the end of a process's first thread, without which the process goes on.
fn leaves_its_process(header: &EventHeader) -> bool {
    let [ended, _, is_group, ..] = header.args;
    header.tid == header.tgid && ended == 0 && is_group == 0
}
