//! What the integration tests share.
//!
//! A test starts a [`subject`] (a fixture program, which says what it did), has [`memtrace`] watch it,
//! and compares the [`report`] with what was said, with [`gdb`]'s stacks or with [`bpftrace`]'s counts.
//!
//! Tests run in parallel, except where the machine is the thing that is looked at: see [`turn`].

pub mod allocators;
pub mod bpftrace;
pub mod calls;
pub mod demo;
pub mod exactness;
pub mod fixtures;
pub mod footprint;
pub mod gdb;
pub mod heap_app;
pub mod heap_dump;
pub mod host;
pub mod hprof;
pub mod java;
pub mod kernel;
pub mod maps;
pub mod memtrace;
pub mod nmt;
pub mod own_mounts;
pub mod report;
pub mod said;
pub mod skip;
pub mod strace;
pub mod subject;
pub mod symbols;
pub mod turn;
pub mod watch;
