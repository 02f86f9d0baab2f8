//! The process as it is found: what it is, what it has loaded, what its threads are called.
//!
//! In: a pid or a command line. Out: facts. It attaches nothing; what it does is to start a command, and to hold a thread
//! where that was asked for.

mod allocator;
mod cgroup;
mod code_files;
pub mod elf_parts;
mod freezer;
pub mod group;
mod held;
mod java;
pub mod launch;
pub mod maps;
pub mod pidfd;
pub mod proc;
mod process;
mod root;
mod schedule;
mod segment;
mod situation;

pub use allocator::allocator;
pub use cgroup::{Container, container};
pub use code_files::{code_files, code_files_ahead};
pub use freezer::is_frozen;
pub use held::Held;
pub use java::{JavaHome, feature_release, launcher_zlib_libraries, zlib_libraries};
pub use proc::{is_alive, living_thread, threads};
pub use process::{
    FindError, Memory, check, check_program, comm, command_line, image, memory, namespace_tid,
    peak_rss_bytes, resolve_command, start_brk, start_stack,
};
pub use root::{FileVersion, Library, Root, open_mapped};
pub use schedule::{Standstill, stack_pointer};
pub use segment::segment_bytes;
pub use situation::{Activity, Jvm, Situation};

/// Whether a library of this name tells what its process is, or is one to be probed.
pub fn tells_what_it_is(file_name: &str) -> bool {
    [
        "libjvm",
        "libzip",
        "libz.",
        "libz-ng",
        "libc.",
        "libc-",
        "ld-musl",
        "libjemalloc",
        "libtcmalloc",
        "libmimalloc",
    ]
    .iter()
    .any(|start| file_name.starts_with(start))
}
