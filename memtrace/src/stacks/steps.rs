//! A cache from instruction to what to do there: one access in place of two searches, for every frame of every stack.

use super::{
    modules::{Code, Modules},
    rules::Rule,
};

/// What to do at an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Follow the rule.
    Rule(Rule),
    /// Code of a file that has no rule for it.
    NoRule,
    /// Code that the process made itself.
    Anonymous,
    /// The kernel's return probe trampoline.
    ReturnProbe,
    /// No code that is known.
    Nowhere,
}

/// A state of one process' code; a new one is never equal to an older one. 0 is nobody's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Generation(u32);

/// As many as a JVM that starts has distinct callers, several times over; a slot is overwritten by the next taker.
const N_SLOTS: usize = 1 << 14;

/// Steps of all processes that were looked up lately.
#[derive(Debug)]
pub(super) struct Steps {
    slots: Box<[Slot]>,
    newest: Generation,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    pc: u64,
    generation: Generation,
    step: Step,
}

impl Steps {
    /// An empty cache.
    pub(super) fn new() -> Self {
        let empty = Slot { pc: 0, generation: Generation::default(), step: Step::Nowhere };
        Self { slots: vec![empty; N_SLOTS].into(), newest: Generation::default() }
    }

    /// A state of code that nothing is known of yet.
    pub(super) fn new_generation(&mut self) -> Generation {
        self.newest.0 = self.newest.0.checked_add(1).unwrap_or_else(|| {
            self.slots.iter_mut().for_each(|slot| slot.generation = Generation::default());
            1
        });
        self.newest
    }

    /// What to do at `pc` of the process whose code is `modules`, in the state `generation`.
    pub(super) fn at(&mut self, modules: &Modules, generation: Generation, pc: u64) -> Step {
        // Fibonacci hashing: calls lie close together, and their distances are anything.
        let hash = pc.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(generation.0);
        let slot = &mut self.slots[hash.rotate_left(14) as usize % N_SLOTS];
        if slot.pc == pc && slot.generation == generation {
            return slot.step;
        }
        let step = find(modules, pc);
        // What lies nowhere may be mapped at the next moment, and no state changes by that.
        if step != Step::Nowhere {
            *slot = Slot { pc, generation, step };
        }
        step
    }
}

fn find(modules: &Modules, pc: u64) -> Step {
    match modules.at(pc) {
        Code::Module(module, address) => module.rule(address).map_or(Step::NoRule, Step::Rule),
        Code::Anonymous => Step::Anonymous,
        Code::ReturnProbe => Step::ReturnProbe,
        Code::Nowhere => Step::Nowhere,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is known of one state of the code says nothing of another.
    #[test]
    fn generations() {
        let mut steps = Steps::new();
        let modules = Modules::default();
        let [first, second] = [steps.new_generation(), steps.new_generation()];
        assert_ne!(first, second);
        let pc = 0x1000;
        let index = steps.slots.len();
        (0..index).for_each(|index| {
            steps.slots[index] = Slot { pc, generation: first, step: Step::Anonymous };
        });
        assert_eq!(steps.at(&modules, first, pc), Step::Anonymous);
        assert_eq!(steps.at(&modules, second, pc), Step::Nowhere);
        steps.newest = Generation(u32::MAX);
        assert_eq!(steps.new_generation(), Generation(1));
        assert_eq!(steps.at(&modules, first, pc), Step::Nowhere);
    }
}
