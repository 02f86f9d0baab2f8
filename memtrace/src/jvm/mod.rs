//! What is known about HotSpot, read from outside.
//!
//! Text and memory of a JVM go in, threads and names come out. Nothing here acts on the target.

pub mod thread_dump;
