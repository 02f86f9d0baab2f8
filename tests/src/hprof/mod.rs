//! Heap dumps that no JVM wrote, of which everything is known.
//!
//! In: a seed, a size and a [`Format`]. Out: an HPROF file, and as [`Truth`] what is in it: the objects and bytes of each
//! class, and what some objects retain. The same input gives the same bytes. The heap is laid out as HotSpot lays one out:
//! ascending addresses, objects side by side, here and there the hole that a region ends with.

mod classes;
mod heap;
mod population;
mod records;

pub use classes::{Class, ClassId, Kind};
pub use heap::Heap;
pub use population::{Retained, Truth, populate};
pub use records::{Format, Order};
