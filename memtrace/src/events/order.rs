//! The order in which events took effect.
//!
//! The kernel side tells of a call when it returns. But what a call gives back is free from its entry on, and another
//! thread can obtain it, and return with it, before the call that gave it back has returned. So what gives back counts
//! at entry, what obtains at exit, and a short window puts events in that order.

use std::collections::VecDeque;

/// Holds items until nothing earlier can come any more.
#[derive(Debug)]
pub struct Window<T> {
    /// By time; of equal times, as they were pushed.
    held: VecDeque<(u64, T)>,
    released_ns: u64,
    /// Items that came after something later had left; they leave at once, out of order.
    pub n_late: u64,
}

impl<T> Window<T> {
    /// An empty window.
    pub fn new() -> Self {
        Self { held: VecDeque::new(), released_ns: 0, n_late: 0 }
    }

    /// Holds `item`, which took effect at `time_ns`.
    pub fn push(&mut self, time_ns: u64, item: T) {
        if time_ns < self.released_ns {
            self.n_late += 1;
        }
        // Calls are short: the place is nearly always among the last few.
        let n_later =
            self.held.iter().rev().take_while(|(other_ns, _)| *other_ns > time_ns).count();
        self.held.insert(self.held.len() - n_later, (time_ns, item));
    }

    /// The next item that took effect before `before_ns`; of equal times, what was pushed first.
    pub fn pop(&mut self, before_ns: u64) -> Option<T> {
        let (time_ns, item) = self.held.pop_front_if(|(time_ns, _)| *time_ns < before_ns)?;
        self.released_ns = self.released_ns.max(time_ns);
        Some(item)
    }

    /// How many items are held.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

impl<T> Default for Window<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_time_then_as_pushed() {
        let mut window = Window::new();
        for (time_ns, item) in [(5, 'e'), (1, 'a'), (3, 'c'), (3, 'd'), (9, 'z')] {
            window.push(time_ns, item);
        }
        let out: String = std::iter::from_fn(|| window.pop(9)).collect();
        assert_eq!(out, "acde");
        assert_eq!((window.len(), window.n_late), (1, 0));
        window.push(4, 'x');
        assert_eq!((window.pop(10), window.n_late), (Some('x'), 1));
    }
}
