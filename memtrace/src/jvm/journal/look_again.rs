//! Another look at single blocks of code between two observations.
//!
//! In: a block that is known and an event later than its last sight, or an instruction where nothing is known. Out:
//! whether the block is still there, or what has come. Who looks and finds nothing has learnt nothing of the time of the
//! event: other code may have come and gone.

use std::ops::Range;

use super::{
    super::{
        code::{CodeId, is_same},
        code_blob::BlobKind,
        memory::Memory,
    },
    CodeChanges, Journal, MAX_LAG_NS,
};

impl Journal {
    /// Until when the block with number `id` is known to be there, if that is no earlier than `time_ns`: looks at it if it
    /// was not seen since.
    pub(in crate::jvm) fn seen_until(
        &mut self,
        memory: &dyn Memory,
        id: CodeId,
        time_ns: u64,
    ) -> Option<u64> {
        let code = self.codes.get_mut(&id.0).filter(|code| code.gone.is_none())?;
        if code.round != self.round {
            code.round = self.round;
            self.asked.push(id);
        }
        if time_ns > code.seen_ns {
            self.look_again(memory, id, time_ns);
        }
        let seen_ns = self.codes.get(&id.0)?.seen_ns;
        (time_ns <= seen_ns).then_some(seen_ns)
    }

    /// Looks whether the block with number `id` is still there; when time has gone on, whether all are that were asked for
    /// since the last time, for these will be asked for again.
    fn look_again(&mut self, memory: &dyn Memory, id: CodeId, time_ns: u64) {
        let mut ids = vec![id];
        if self.now_ns > self.looked_ns {
            self.looked_ns = self.now_ns;
            self.round = self.round.wrapping_add(1);
            ids = std::mem::take(&mut self.asked);
        }
        let len = (self.cache.header + self.layout.header as u64) as usize;
        let block = |id: &CodeId| Some(self.codes.get(&id.0)?.blob.address - self.cache.header);
        let blocks: Vec<u64> = ids.iter().map(|id| block(id).unwrap_or(0)).collect();
        let mut bytes = Vec::new();
        let was_read = memory.read_each(&blocks, len, &mut bytes);
        for (((id, block), is_read), bytes) in
            ids.iter().zip(blocks).zip(was_read).zip(bytes.chunks(len))
        {
            let now = is_read.then(|| self.parse(block, bytes)).flatten();
            if let Some(code) = self.codes.get_mut(&id.0)
                && now.is_some_and(|now| is_same(&code.blob, &now))
            {
                // The event's own time is over, too.
                code.seen_ns = self.now_ns.max(time_ns);
            }
        }
    }

    /// Whether the block with number `id` is there now.
    pub(in crate::jvm) fn is_there(&self, memory: &dyn Memory, id: CodeId) -> bool {
        let Some(code) = self.codes.get(&id.0) else { return false };
        let block = code.blob.address - self.cache.header;
        let len = (self.cache.header + self.layout.header as u64) as usize;
        let mut bytes = Vec::new();
        let was_read = memory.read_each(&[block], len, &mut bytes);
        was_read == [true] && self.parse(block, &bytes).is_some_and(|now| is_same(&code.blob, &now))
    }

    /// Where code was found to be gone between two observations, since the last call.
    pub(in crate::jvm) fn take_replaced(&mut self) -> Vec<Range<u64>> {
        std::mem::take(&mut self.replaced)
    }

    /// One past the last address of a block.
    fn end(&self, id: CodeId) -> u64 {
        self.codes.get(&id.0).map_or(0, |code| code.blob.address + code.blob.size)
    }

    /// Looks for code at `pc` that has come since the last observation.
    pub(super) fn look(&mut self, memory: &dyn Memory, pc: u64, time_ns: u64) -> Option<CodeId> {
        memory.forget();
        let heap = *self.heaps.iter().find(|heap| (heap.low..heap.end).contains(&pc))?;
        // The heap may have grown since.
        let heaps = self.cache.heaps(memory).ok()?;
        let heap = heaps.into_iter().find(|new| new.low == heap.low)?;
        let block = heap.block(memory, pc).ok()??;
        let blob = self.read_blob(memory, &heap, block)?;
        if !(blob.code..blob.code_end).contains(&pc) {
            return None;
        }
        let first = self.current.partition_point(|&(_, id)| self.end(id) <= blob.address);
        let n_covered =
            self.current[first..].partition_point(|&(start, _)| start < blob.address + blob.size);
        let covered = first..first + n_covered;
        let now_ns = self.now_ns.max(time_ns);
        if let [(address, id)] = self.current[covered.clone()]
            && address == blob.address
            && let Some(code) = self.codes.get_mut(&id.0).filter(|code| is_same(&code.blob, &blob))
        {
            code.seen_ns = code.seen_ns.max(now_ns);
            return Some(id);
        }
        let gone: Vec<(u64, CodeId)> = self.current.drain(covered).collect();
        let mut changes = CodeChanges::default();
        // What it took the place of was there before the event: which of the two was there then is not known.
        let is_first = gone.is_empty();
        let since_ns = if is_first { time_ns } else { now_ns.max(time_ns.saturating_add(1)) };
        gone.into_iter().for_each(|(_, id)| self.retire(id, since_ns, &mut changes));
        self.n_replaced += changes.gone.len() as u32;
        self.replaced.append(&mut changes.gone);
        self.absent.clear();
        // Else it was there when the event happened, for the event's stack leads through it: unless that is long ago.
        let is_late = self.now_ns > time_ns.saturating_add(MAX_LAG_NS);
        let id = self.add(memory, blob, if is_late { now_ns } else { since_ns })?;
        // Or unless no call in it returns there.
        let code = self.codes.get_mut(&id.0)?;
        if code.kind == BlobKind::NativeWrapper && !code.may_return_to(pc) {
            code.since_ns = now_ns.max(time_ns.saturating_add(1));
        }
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, rc::Rc};

    use super::*;
    use crate::jvm::{
        Vm,
        recorded::{Recorded, recorded},
    };

    const OBSERVED: u64 = 1_000;
    const LATER: u64 = 2_000;

    /// The journal of a JVM as it was observed, and where a method's header and its first call's return address are.
    fn observed(memory: &Rc<Recorded>, libjvm: u64) -> (Journal, u64, u64) {
        let vm = Vm::open(memory.clone(), libjvm).unwrap();
        let mut journal = Journal::new(&vm.structs).unwrap();
        journal.observe(&**memory, OBSERVED).unwrap();
        let methods = journal.codes.values().filter(|code| code.kind == BlobKind::Method);
        let (block, pc) = methods
            .filter_map(|code| {
                let mut pcs = code.blob.code..code.blob.code_end;
                Some((
                    code.blob.address - journal.cache.header,
                    pcs.find(|&pc| code.may_return_to(pc))?,
                ))
            })
            .min()
            .unwrap();
        (journal, block, pc)
    }

    /// Code that was seen after an event is sure. What is freed, or was never looked at again, may have been gone
    /// already: it is a guess, and no rule is made of it that holds for later events.
    #[test]
    fn not_seen_again() {
        for (memory, libjvm) in recorded() {
            let (mut journal, block, pc) = observed(&memory, libjvm);
            let used = block + journal.cache.used;
            let sure = journal.find(&*memory, pc, LATER).unwrap();
            assert!(!sure.is_doubtful && sure.since_ns == Some(OBSERVED), "{sure:?}");
            // The event that was sure stays so.
            memory.is_over.set(true);
            assert_eq!(journal.find(&*memory, pc, LATER), Some(sure));
            let ended = journal.find(&*memory, pc, LATER + 1).unwrap();
            assert_eq!((ended.id, ended.since_ns, ended.is_doubtful), (sure.id, None, true));

            let mut capture = memory.capture.clone();
            capture.insert(used, &[0]);
            let memory = Recorded { capture, is_over: Cell::new(false) };
            let freed = journal.find(&memory, pc, LATER + 2).unwrap();
            assert_eq!((freed.id, freed.since_ns, freed.is_doubtful), (sure.id, None, true));
        }
    }

    /// Where a look finds other code in the place of code that was there before the event, the event may have met either.
    #[test]
    fn replaced() {
        for (memory, libjvm) in recorded() {
            let (mut journal, _, pc) = observed(&memory, libjvm);
            let old = journal.current_at(pc).unwrap();
            // What stands in the memory is other code then.
            journal.codes.get_mut(&old.0).unwrap().blob.compile_id ^= 1;
            journal.set_time(LATER);
            let either = journal.find(&*memory, pc, LATER - 1).unwrap();
            assert_eq!(
                (either.other, either.since_ns, either.is_doubtful),
                (Some(old), None, true)
            );
            assert_ne!(either.id, old, "what came so soon after the event is likelier");
            let sure = journal.find(&*memory, pc, LATER).unwrap();
            assert!(
                sure.id != old && !sure.is_doubtful && sure.since_ns == Some(LATER),
                "{sure:?}"
            );
        }
    }
}
