//! What a user reads.
//!
//! In: a [`Recording`](crate::trace::Recording), at its end or under way, and what to count. Out: the same numbers as
//!
//! - [`text`]: one screen for someone who has a minute,
//! - [`progress`]: one line each second,
//! - [`folded`] and [`flamegraph`]: stacks for those who want to see all of them,
//! - [`json`]: everything, for programs.
//!
//! And instead of a recording, from facts about kernel and process, [`doctor`]: what stands in the way of tracing; and,
//! from a process's threads, [`threads_now`]: their stacks at one moment; [`footprint`]: where its resident bytes are; [`heap`]: what a
//! heap dump holds; and [`compare`]: what several starts under several settings came to.
//!
//! Nothing is computed here but the layout: sums and orders are the ledger's. Every name that the target chose goes
//! through [`escape`] (by way of [`names`]), and no number goes out without the loss that goes with it, except in
//! folded stacks, whose format has no place for it.

pub mod compare;
pub mod doctor;
pub mod ending;
pub mod escape;
pub mod flamegraph;
pub mod folded;
pub mod footprint;
pub mod heap;
pub mod json;
pub mod loss;
pub mod names;
pub mod progress;
mod room;
mod rows;
mod sentence;
pub mod text;
pub mod threads_now;
pub mod trial;
pub mod units;

pub use progress::progress;
pub use text::text_by;

#[cfg(test)]
mod sample;
