//! A capture as it would be if nobody remembered stacks.

use std::hash::Hasher;

use memtrace_common::EventHeader;
use rustc_hash::{FxHashSet, FxHasher};
use zerocopy::IntoBytes;

use super::{super::shadows::Shadows, Capture, Step};
use crate::events::Event;

impl Capture {
    /// The same steps, but each event with its whole stack, so that nothing of the one before helps to resolve it; and no
    /// stack twice: one that equals an earlier one in registers and bytes is left out.
    #[must_use]
    pub fn with_distinct_whole_stacks(&self) -> Self {
        let (mut shadows, mut seen) = (Shadows::new(), FxHashSet::default());
        let steps = self.steps.iter().filter_map(|step| {
            let Step::Event(bytes) = step else { return Some(step.clone()) };
            let event = Event::decode(bytes).ok()?;
            let stack = shadows.whole(&event);
            let mut hash = FxHasher::default();
            hash.write(event.header.regs.as_bytes());
            hash.write(stack);
            seen.insert(hash.finish()).then(|| Step::Event(with_stack(event.header, stack)))
        });
        Self { steps: steps.collect() }
    }

    /// The first `n` events, with the steps between them.
    #[must_use]
    pub fn first_events(&self, n: usize) -> Self {
        let mut n_left = n;
        let steps = self.steps.iter().filter(|step| match step {
            Step::Excerpt(_) => true,
            Step::Event(_) if n_left > 0 => {
                n_left -= 1;
                true
            }
            _ => n_left > 0,
        });
        Self { steps: steps.cloned().collect() }
    }

    /// How many events have a stack, and bytes of stack that came with them.
    #[must_use]
    pub fn size(&self) -> (u64, u64) {
        let events = self.steps.iter().filter_map(|step| match step {
            Step::Event(bytes) => {
                Some((bytes.len() - size_of::<EventHeader>().min(bytes.len())) as u64)
            }
            _ => None,
        });
        events.fold((0, 0), |(n, bytes), more| (n + 1, bytes + more))
    }
}

fn with_stack(header: EventHeader, stack: &[u8]) -> Vec<u8> {
    let header = EventHeader { shadow: 0, version: 0, stack_bytes: stack.len() as u32, ..header };
    [header.as_bytes(), stack].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(shadow: u32, version: u32, used: u64, sent: &[u8]) -> Step {
        let (stack_bytes, stack_used) = (sent.len() as u32, used);
        let kind = memtrace_common::Kind::MMAP.0;
        let header =
            EventHeader { shadow, version, stack_used, stack_bytes, kind, ..Default::default() };
        Step::Event([header.as_bytes(), sent].concat())
    }

    /// Each stack comes whole, and once.
    #[test]
    fn whole_and_once() {
        let steps = vec![
            event(1, 7, 4, &[1, 2, 3, 4]),
            Step::Time(5),
            event(1, 8, 4, &[9]),
            event(1, 9, 4, &[]),
            event(0, 0, 4, &[1, 2, 3, 4]),
            event(0, 0, 2, &[1, 2]),
        ];
        let capture = Capture { steps };
        assert_eq!(capture.size(), (5, 11));
        assert_eq!(capture.first_events(2).steps, capture.steps[..3]);
        let whole = capture.with_distinct_whole_stacks();
        let want = [event(0, 0, 4, &[1, 2, 3, 4]), Step::Time(5), event(0, 0, 4, &[9, 2, 3, 4])];
        assert_eq!(whole.steps, [&want[..], &[event(0, 0, 2, &[1, 2])]].concat());
        assert_eq!(whole.size(), (3, 10));
    }
}
