//! What resolving the stacks of a capture takes.

use super::{
    super::{New, Stack, StackId, Stacks, java::Java, kept::Kept, last_walks, steps::Steps},
    Capture, Replay, Step,
};

/// What a run took, by the clock that it was given. Putting up what is read is not counted.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Nanoseconds for the events.
    pub events_ns: u64,
    /// Nanoseconds for looks at Java code, and for code that was mapped.
    pub looks_ns: u64,
    /// The stack of each event.
    pub ids: Vec<StackId>,
    /// The stacks that were found, by number.
    pub stacks: Vec<Stack>,
}

/// What a step is counted as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Counted {
    Event,
    Look,
    Not,
}

impl Counted {
    fn of(step: &Step) -> Self {
        match step {
            Step::Event(_) | Step::Time(_) => Self::Event,
            Step::Memory { .. } | Step::Maps { .. } | Step::Excerpt(_) | Step::End => Self::Not,
            _ => Self::Look,
        }
    }
}

impl Replay {
    /// Takes all steps of `capture`; `now_ns` is the clock.
    pub fn measure(&mut self, capture: &Capture, now_ns: fn() -> u64) -> Measured {
        let mut measured =
            Measured { ids: Vec::with_capacity(capture.steps.len()), ..Measured::default() };
        let mut new = Vec::new();
        for steps in capture.steps.chunk_by(|one, next| Counted::of(one) == Counted::of(next)) {
            let began_ns = now_ns();
            for step in steps {
                if let Some(id) = self.take(step) {
                    measured.ids.push(id);
                    new.append(&mut self.stacks_mut().take_new());
                }
            }
            let took_ns = now_ns().saturating_sub(began_ns);
            match steps.first().map_or(Counted::Not, Counted::of) {
                Counted::Event => measured.events_ns += took_ns,
                Counted::Look => measured.looks_ns += took_ns,
                Counted::Not => {}
            }
        }
        measured.stacks = new
            .into_iter()
            .filter_map(|new| match new {
                New::Stack(stack) => Some(stack),
                New::Frame(_) => None,
            })
            .collect();
        measured
    }

    /// What each of the last `n` stacks of `capture` takes when it is the first one: everything that was read of files is
    /// known, and nothing else but where Java code is. A capture whose stacks are whole is needed.
    pub fn measure_cold(
        capture: &Capture,
        n: usize,
        are_living: bool,
        now_ns: fn() -> u64,
    ) -> Vec<u64> {
        let is_event = |step: &&Step| matches!(step, Step::Event(_));
        let events: Vec<&Step> = capture.steps.iter().filter(is_event).rev().take(n).collect();
        let mut replay = Self::of(capture, are_living);
        // As the processes are at the end, and all code is read.
        for step in
            capture.steps.iter().filter(|step| !is_event(step)).chain(events.iter().copied())
        {
            replay.take(step);
        }
        let cold = events.into_iter().map(|step| {
            replay.stacks_mut().forget();
            let began_ns = now_ns();
            replay.take(step);
            now_ns().saturating_sub(began_ns)
        });
        cold.collect()
    }
}

impl Stacks {
    /// Forgets everything but files, processes' maps, and which JVMs there are: what is known of their code is what a look
    /// at it tells.
    fn forget(&mut self) {
        let Self { kept, processes, steps, last_walks, files, .. } = self;
        (*kept, *steps, *last_walks) = (Kept::new(), Steps::new(), last_walks::none());
        for (&tgid, process) in processes.iter_mut().filter(|(_, it)| it.modules.has_jvm) {
            process.forget_if(true);
            process.java = Java::default();
            // Long ago: whatever happened later happened to the code that is seen.
            process.java.observe(tgid, 1, &*files.origin);
        }
    }
}
