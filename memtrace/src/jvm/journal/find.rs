//! What lay at an instruction at the time of an event.
//!
//! In: what is known of the code, and what a look at the code cache shows now. Out: the block, and how sure that is.
//! Between two looks one block goes and the next comes: then each of them is told, the likelier one first.

use super::{
    super::{
        code::{Code, CodeId},
        memory::Memory,
    },
    Journal, MAX_LAG_NS,
};

/// What lies at an instruction at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::jvm) struct Found {
    pub(in crate::jvm) id: CodeId,
    /// Other code that may have been there at that time.
    pub(in crate::jvm) other: Option<CodeId>,
    /// Since when this answer holds, for as long as the block is there; `None` for a block that is gone or
    /// not known whole, or if it is not sure that it was there already.
    pub(in crate::jvm) since_ns: Option<u64>,
    /// Up to when it is known to hold.
    pub(in crate::jvm) until_ns: u64,
    /// Whether other code may have been there at that time, be it known or not.
    pub(in crate::jvm) is_doubtful: bool,
}

impl Journal {
    /// What was at `pc` at `time_ns`. Reads the code cache where nothing is known.
    pub(in crate::jvm) fn find(
        &mut self,
        memory: &dyn Memory,
        pc: u64,
        time_ns: u64,
    ) -> Option<Found> {
        if self.absent.holds(pc, time_ns) {
            return None;
        }
        let found = self.search(memory, pc, time_ns);
        if found.is_none() {
            self.absent.add(pc, time_ns, self.now_ns);
        }
        found
    }

    fn search(&mut self, memory: &dyn Memory, pc: u64, time_ns: u64) -> Option<Found> {
        let known = self.current_at(pc);
        if let Some(id) = known {
            self.complete(memory, id);
        }
        let seen = match known {
            Some(id) if self.seen_until(memory, id, time_ns).is_some() => Some(id),
            _ => self.look(memory, pc, time_ns),
        };
        // What is not there any more, or can't be looked at any more, was perhaps gone before the event.
        let current = seen.or(known);
        if let Some(id) = current
            && let Some(code) = self.codes.get(&id.0)
            && code.since_ns <= time_ns
        {
            let is_doubtful = seen.is_none();
            let since_ns = (!is_doubtful && !code.is_incomplete()).then_some(code.since_ns);
            return Some(Found { id, other: None, since_ns, until_ns: code.seen_ns, is_doubtful });
        }
        self.search_gone(current, pc, time_ns)
    }

    /// The event is older than what is there now: what was there then, or might have been?
    fn search_gone(&self, current: Option<CodeId>, pc: u64, time_ns: u64) -> Option<Found> {
        let found = |id| Found { id, other: None, since_ns: None, until_ns: 0, is_doubtful: false };
        // Code is freed long after the last stack that leads through it: what came soon after the event is likelier.
        let since_ns = current.and_then(|id| self.codes.get(&id.0)).map(|code| code.since_ns);
        let is_late =
            since_ns.is_some_and(|since_ns| since_ns > time_ns.saturating_add(MAX_LAG_NS));
        let mut candidates: Vec<CodeId> = current.filter(|_| !is_late).into_iter().collect();
        for &id in self.gone.iter().rev() {
            let Some(code) = self.codes.get(&id.0).filter(|code| code.contains(pc)) else {
                continue;
            };
            let Some((last_ns, gone_ns)) = code.gone else { continue };
            if (code.since_ns..=last_ns).contains(&time_ns) {
                return Some(found(id));
            }
            // Between two looks one goes and the next comes.
            if time_ns <= gone_ns {
                candidates.push(id);
            }
        }
        candidates.extend(current.filter(|_| is_late));
        let may_return =
            |id: &CodeId| self.codes.get(&id.0).is_some_and(|code| code.may_return_to(pc));
        let mut possible = candidates.iter().copied().filter(|id| may_return(id));
        let (first, other) = (possible.next(), possible.next());
        let id = first.or(candidates.first().copied())?;
        let is_doubtful = first.is_none() || other.is_some() || is_late && current == Some(id);
        Some(Found { other, is_doubtful, ..found(id) })
    }

    pub(super) fn current_at(&self, pc: u64) -> Option<CodeId> {
        let next = self.current.partition_point(|&(address, _)| address <= pc);
        let (_, id) = *self.current.get(next.checked_sub(1)?)?;
        self.codes.get(&id.0).filter(|code: &&Code| code.contains(pc)).map(|_| id)
    }
}
