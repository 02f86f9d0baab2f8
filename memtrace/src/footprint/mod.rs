//! What is resident of a process, and what of it an allocator holds.
//!
//! In: the kernel's page tables, the process's map and its memory. Out: which pages are resident, and the heap of the
//! allocator read from outside. The process is neither stopped nor written to, and no page of it becomes resident by
//! being looked at: residency is read first, then only what is resident.

pub mod glibc;
mod resident;

pub use resident::{Bytes, Kind, Method, PageTables, Resident, ResidentError, Run};
