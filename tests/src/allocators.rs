//! The allocators that a program may have, and running fixtures with each.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    fixtures::{Linked, built, built_as},
    subject::Subject,
};

/// Where Debian puts libraries.
const LIBRARIES: &str = "/usr/lib/x86_64-linux-gnu";

/// An allocator, and how a program comes to have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocator {
    /// What it is, for messages.
    pub name: &'static str,
    /// Functions that a program can't call with it, with commas: glibc's would answer, whose block this one can't free.
    pub without: &'static str,
    how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// The system's own.
    System,
    /// By the linker.
    Linked(Linked),
    /// A library of the system's, preloaded.
    Preloaded(&'static str),
    /// A fixture, preloaded.
    Own(&'static str),
}

/// jemalloc's library.
pub const JEMALLOC: &str = "libjemalloc.so.2";
const TCMALLOC: &str = "libtcmalloc_minimal.so.4";
const MIMALLOC: &str = "libmimalloc.so.2.0";

const fn allocator(name: &'static str, without: &'static str, how: How) -> Allocator {
    Allocator { name, without, how }
}

/// The system's C library.
pub const GLIBC: Allocator = allocator("glibc", "", How::System);

/// Every allocator, in every way that a program may have it.
pub const ALLOCATORS: [Allocator; 10] = [
    GLIBC,
    allocator("glibc, static", "", How::Linked(Linked::Static)),
    allocator("jemalloc, preloaded", "pvalloc", How::Preloaded(JEMALLOC)),
    allocator("jemalloc, linked", "pvalloc", How::Linked(Linked::Library(JEMALLOC))),
    allocator("tcmalloc, preloaded", "", How::Preloaded(TCMALLOC)),
    allocator("mimalloc, preloaded", "", How::Preloaded(MIMALLOC)),
    allocator("mimalloc, linked", "", How::Linked(Linked::Library(MIMALLOC))),
    allocator("musl", "pvalloc", How::Linked(Linked::Musl)),
    allocator("musl, static", "pvalloc", How::Linked(Linked::MuslStatic)),
    allocator("one that nobody knows, preloaded", "pvalloc", How::Own("own_malloc.so")),
];

/// glibc, in a program without a symbol.
pub const STRIPPED: Allocator =
    allocator("glibc, static and stripped", "", How::Linked(Linked::StaticStripped));

impl Allocator {
    /// The command that runs the C fixture `name` with this allocator.
    pub fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let program = match self.how {
            How::Linked(how) => built_as(name, how),
            How::System | How::Preloaded(_) | How::Own(_) => built(name),
        };
        let mut command = Command::new(program);
        if let Some(library) = self.preloaded() {
            command.env("LD_PRELOAD", library);
        }
        command.args(arguments);
        if !self.without.is_empty() {
            command.arg(self.without);
        }
        command
    }

    /// The C fixture `name` with this allocator, up to the point where it waits to begin.
    pub fn subject(&self, name: &str, arguments: &[&str]) -> Subject {
        Subject::start(self.command(name, arguments).arg("--wait"))
    }

    /// The library that is preloaded.
    pub fn preloaded(&self) -> Option<PathBuf> {
        match self.how {
            How::System | How::Linked(_) => None,
            How::Preloaded(name) => Some(Path::new(LIBRARIES).join(name)),
            How::Own(name) => Some(built(name)),
        }
    }

    /// Whether it has C++'s operators, too. With another one they are libstdc++'s, which call malloc and free.
    pub fn has_operators(&self) -> bool {
        matches!(self.how, How::Preloaded(_))
    }
}

/// Those that a program of C++'s may have without being linked anew.
pub fn of_cpp() -> impl Iterator<Item = Allocator> {
    ALLOCATORS
        .into_iter()
        .filter(|allocator| matches!(allocator.how, How::System | How::Preloaded(_) | How::Own(_)))
}
