//! The end of a trace: what is still on its way is read, and what is known only then is told.

use std::io;

use memtrace_common::Tally;

use super::{Session, Timed};
use crate::{
    commands::{
        self_use::SelfUse,
        trace::{clock, naming, tally},
    },
    jvm::Look,
    ledger::{self, What},
    probes::Ring,
    stacks::StackId,
    trace::{End, Record, Recording, Why},
};

impl Session {
    /// Detaches, and reads what is still on its way.
    pub(in crate::commands::trace) fn detach(&mut self, ring: &mut Ring) {
        // From here on what is mapped is no part of the trace.
        self.reading = None;
        self.processes.probes.stop();
        // Before the rest: to detach takes long enough that code would be gone that these events' stacks lead through.
        while !self.drain(ring) {}
        // Before a command may learn that it is to end; to detach takes longer.
        self.look_at_footprint();
        self.processes.probes.detach();
        while !self.drain(ring) {}
        self.tell_tallies();
    }

    /// What threads' blocks add up to that was not told with their last sample.
    fn tell_tallies(&mut self) {
        let time_ns = clock::now_ns();
        for (tid, Tally { blocks, bytes, given_back, tgid }) in self.processes.probes.tallies() {
            let what = What::Tally { blocks, bytes, given_back };
            let (tgid, stack) = (tgid as u32, StackId::NOT_KEPT);
            let event = ledger::Event { time_ns, tgid, tid, stack, what };
            self.window.push(time_ns, Timed::Event(event));
        }
    }

    /// Ends the trace.
    pub(in crate::commands::trace) fn finish(
        mut self,
        why: Why,
        status: Option<i32>,
    ) -> (Recording, Option<io::Error>) {
        self.read_vm_names(Look::Last);
        self.release(u64::MAX);
        self.name_seen_threads();
        self.records.begin_closing();
        self.sample();
        self.tell_losses();
        self.tell_notes();
        let SelfUse { cpu_ns: self_cpu_ns, max_rss_bytes: self_max_rss_bytes } = SelfUse::now();
        let status = status.or(self.processes.status);
        let end = End { time_ns: clock::now_ns(), why, status, self_cpu_ns, self_max_rss_bytes };
        self.put(Record::End(end));
        self.records.flush();
        let error = self.records.take_error();
        (self.records.recording, error)
    }

    fn name_seen_threads(&mut self) {
        let saved = std::mem::take(&mut self.names_for_the_end);
        let (names, note) = naming::of_seen(saved, &self.records.recording.ledger);
        note.into_iter().for_each(|note| self.note(note));
        names.into_iter().for_each(|name| self.put(Record::ThreadName(name)));
    }

    fn tell_notes(&mut self) {
        let target = &self.records.recording.target;
        let mut notes = tally::notes_on_trace(target, self.records.is_full());
        let ledger = &self.records.recording.ledger;
        notes.extend(self.behind.notes(ledger.start_ns()));
        notes.extend(self.warning().map(str::to_owned));
        // What has no tables has neither names nor code.
        let mut unreadable = self.processes.stacks.unreadable_jvms();
        let naming::Unreadable { jvms, lists } = self.vm_names.unreadable();
        unreadable.extend(jvms);
        notes.extend(tally::notes_on_jvms(unreadable));
        notes.extend(tally::notes_on_lists(lists));
        notes.extend(tally::notes_on_stacks(
            self.processes.probes.counters(),
            &self.processes.stacks,
        ));
        notes.into_iter().for_each(|note| self.note(note));
    }
}
