//! The last stack of each thread, from which and from what has changed since the next one is made.
//!
//! The kernel side keeps the same shadows, and changes one only when the change is on its way. The records of a thread come
//! in order, so both sides agree; a version with every change makes sure.

use memtrace_common::{N_SHADOWS, SHADOW_BYTES};

use crate::events::Event;

/// What the kernel side knows that is known here.
#[derive(Debug, Default)]
pub(super) struct Shadows {
    /// By number.
    shadows: Vec<Option<Shadow>>,
    /// Stacks of which a part never came.
    pub(super) n_unfounded: u64,
}

#[derive(Debug)]
struct Shadow {
    version: u32,
    used: usize,
    /// The stack is at the end: what stays stays where it is.
    bytes: Box<[u8; SHADOW_BYTES]>,
}

impl Shadows {
    /// Nothing is known.
    pub(super) fn new() -> Self {
        Self { shadows: (0..N_SHADOWS).map(|_| None).collect(), n_unfounded: 0 }
    }

    /// The stack of `event`, from its stack pointer on; less than there was where a part of it is not known.
    pub(super) fn whole<'a>(&'a mut self, event: &Event<'a>) -> &'a [u8] {
        let header = &event.header;
        let Some(number) = (header.shadow as usize).checked_sub(1) else { return event.stack };
        let used = usize::try_from(header.stack_used).unwrap_or(usize::MAX);
        let (Some(place), Some(same)) =
            (self.shadows.get_mut(number), used.checked_sub(event.stack.len()))
        else {
            self.n_unfounded += 1;
            return event.stack;
        };
        let known = place.as_ref().map_or(0, |shadow| shadow.known_for(header.version));
        if same > known || used > SHADOW_BYTES {
            self.n_unfounded += 1;
            *place = None;
            return event.stack;
        }
        place.get_or_insert_with(Shadow::new).change(header.version, used, event.stack)
    }
}

impl Shadow {
    fn new() -> Self {
        Self { version: 0, used: 0, bytes: Box::new([0; SHADOW_BYTES]) }
    }

    /// How many bytes a stack of `version` can have in common with this one.
    fn known_for(&self, version: u32) -> usize {
        if version == self.version.wrapping_add(1) { self.used } else { 0 }
    }

    fn change(&mut self, version: u32, used: usize, changed: &[u8]) -> &[u8] {
        let stack = &mut self.bytes[SHADOW_BYTES - used..];
        stack[..changed.len()].copy_from_slice(changed);
        (self.version, self.used) = (version, used);
        stack
    }
}

#[cfg(test)]
mod tests {
    use memtrace_common::{EventHeader, Kind};

    use super::*;

    fn whole(shadows: &mut Shadows, shadow: u32, version: u32, used: u64, sent: &[u8]) -> Vec<u8> {
        let stack_bytes = sent.len() as u32;
        let header =
            EventHeader { shadow, version, stack_used: used, stack_bytes, ..Default::default() };
        shadows.whole(&Event { header, kind: Kind::MMAP, stack: sent, is_short: false }).to_vec()
    }

    /// What was not sent is as it was, from the end of the stack on.
    #[test]
    fn changes() {
        let mut shadows = Shadows::new();
        type Bytes = &'static [u8];
        // (shadow, version, bytes there were, what was sent, the stack)
        let cases: [(u32, u32, u64, Bytes, Bytes); 8] = [
            (0, 0, 3, &[9, 9], &[9, 9]),
            (1, 7, 4, &[1, 2, 3, 4], &[1, 2, 3, 4]),
            (1, 8, 4, &[5], &[5, 2, 3, 4]),
            (2, 1, 2, &[8, 8], &[8, 8]),
            (1, 9, 2, &[], &[3, 4]),
            (1, 10, 6, &[7, 7, 7, 7], &[7, 7, 7, 7, 3, 4]),
            // Another thread has it now.
            (1, 11, 1, &[6], &[6]),
            (0, 0, 1, &[9], &[9]),
        ];
        for (shadow, version, used, sent, want) in cases {
            assert_eq!(whole(&mut shadows, shadow, version, used, sent), want, "{version}");
        }
        assert_eq!(shadows.n_unfounded, 0);
    }

    /// A change of what never came is no stack, and nothing can be built on it.
    #[test]
    fn unfounded() {
        // (shadow, version, bytes there were)
        let cases = [
            (1, 4, 4),
            (1, 2, 4),
            (1, 3, 6),
            (2, 3, 4),
            (N_SHADOWS as u32 + 1, 3, 4),
            (u32::MAX, 3, 4),
            (1, 3, u64::MAX),
            (1, 3, 0),
            (1, 3, SHADOW_BYTES as u64 + 1),
        ];
        for (shadow, version, used) in cases {
            let mut shadows = Shadows::new();
            assert_eq!(whole(&mut shadows, 1, 2, 4, &[1, 2, 3, 4]), [1, 2, 3, 4]);
            assert_eq!(whole(&mut shadows, shadow, version, used, &[5]), [5], "{version} {used}");
            assert_eq!(shadows.n_unfounded, 1, "{shadow} {version} {used}");
        }
    }
}
