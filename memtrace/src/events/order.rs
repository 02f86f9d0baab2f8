//! The order in which events took effect.
//!
//! The kernel side tells of a call when it returns. But what a call gives back is free from its entry on, and another
//! thread can obtain it, and return with it, before the call that gave it back has returned. So what gives back counts
//! at entry, what obtains at exit, and a short window puts events in that order.

use std::{cmp::Reverse, collections::BinaryHeap};

/// Holds items until nothing earlier can come any more.
#[derive(Debug)]
pub struct Window<T> {
    heap: BinaryHeap<Reverse<Held<T>>>,
    n_pushed: u64,
    released_ns: u64,
    /// Items that came after something later had left; they leave at once, out of order.
    pub n_late: u64,
}

#[derive(Debug)]
struct Held<T> {
    time_ns: u64,
    number: u64,
    item: T,
}

impl<T> Window<T> {
    /// An empty window.
    pub fn new() -> Self {
        Self { heap: BinaryHeap::new(), n_pushed: 0, released_ns: 0, n_late: 0 }
    }

    /// Holds `item`, which took effect at `time_ns`.
    pub fn push(&mut self, time_ns: u64, item: T) {
        if time_ns < self.released_ns {
            self.n_late += 1;
        }
        self.heap.push(Reverse(Held { time_ns, number: self.n_pushed, item }));
        self.n_pushed += 1;
    }

    /// The next item that took effect before `before_ns`; of equal times, what was pushed first.
    pub fn pop(&mut self, before_ns: u64) -> Option<T> {
        let Reverse(first) = self.heap.peek()?;
        if first.time_ns >= before_ns {
            return None;
        }
        let Reverse(held) = self.heap.pop()?;
        self.released_ns = self.released_ns.max(held.time_ns);
        Some(held.item)
    }

    /// How many items are held.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

impl<T> Default for Window<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> PartialEq for Held<T> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<T> Eq for Held<T> {}

impl<T> PartialOrd for Held<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Held<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.time_ns, self.number).cmp(&(other.time_ns, other.number))
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
