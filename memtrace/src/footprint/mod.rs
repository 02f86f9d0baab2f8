//! Where the resident bytes of a process are.
//!
//! In: the kernel's page tables, the process's map and its memory. Out: a [`Footprint`], rows that add up to what is
//! resident; and what they are made of: which pages are resident, and the heap of the allocator read from outside. What
//! can't be placed is a row, too, never spread over others. The process is neither stopped nor written to, and no page of it becomes resident by
//! being looked at: residency is read first, then only what is resident.

pub mod glibc;
mod guarded;
mod header_rule;
mod labels;
mod malloc;
mod mappings;
mod peek;
mod resident;
mod rows;
mod snapshot;
mod stacks;
mod take;
mod variables;

pub(crate) use peek::classify;
pub use resident::{Bytes, Kind, Method, PageTables, Resident, ResidentError, Run};
pub use snapshot::{
    Arena, Container, Content, ContentKind, Contents, Footprint, FreePages, JavaHeap, Malloc, Pin,
    Row, RowKind,
};
pub use take::{Wanted, take, take_with};
