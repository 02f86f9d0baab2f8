//! The allocators that a program may have, and running fixtures with each.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    fixtures::{Linked, built, built_as},
    skip::{runs_all, skip},
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

const JEMALLOC: &str = "libjemalloc.so.2";
const TCMALLOC: &str = "libtcmalloc_minimal.so.4";
const MIMALLOC: &str = "libmimalloc.so.2.0";

const fn allocator(name: &'static str, without: &'static str, how: How) -> Allocator {
    Allocator { name, without, how }
}

/// The system's C library.
pub const GLIBC: Allocator = allocator("glibc", "", How::System);

/// Each allocator, in the way that programs mostly have it.
const USUAL: [Allocator; 6] = [
    GLIBC,
    allocator("jemalloc, preloaded", "pvalloc", How::Preloaded(JEMALLOC)),
    allocator("tcmalloc, preloaded", "", How::Preloaded(TCMALLOC)),
    allocator("mimalloc, preloaded", "", How::Preloaded(MIMALLOC)),
    allocator("musl, static", "pvalloc", How::Linked(Linked::MuslStatic)),
    allocator("one that nobody knows, preloaded", "pvalloc", How::Own("own_malloc.so")),
];

/// The other ways.
const OTHER: [Allocator; 4] = [
    allocator("glibc, static", "", How::Linked(Linked::Static)),
    allocator("jemalloc, linked", "pvalloc", How::Linked(Linked::Library(JEMALLOC))),
    allocator("mimalloc, linked", "", How::Linked(Linked::Library(MIMALLOC))),
    allocator("musl", "pvalloc", How::Linked(Linked::Musl)),
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

    /// Whether it throws where there is no room, as C++ wants it: mimalloc's C build ends the program.
    pub fn throws(&self) -> bool {
        self.how != How::Preloaded(MIMALLOC)
    }

    /// Whether it has C++'s operators, too. With another one they are libstdc++'s, which call malloc and free.
    pub fn has_operators(&self) -> bool {
        matches!(self.how, How::Preloaded(_))
    }
}

/// Every allocator in every way, as far as this machine has them; `test` is told to be skipped for the rest.
pub fn all(test: &str) -> Vec<Allocator> {
    USUAL.into_iter().chain(OTHER).filter(|allocator| is_there(allocator, test)).collect()
}

/// Each allocator in its usual way; with `--all` in every way.
pub fn usual(test: &str) -> Vec<Allocator> {
    let mut found = all(test);
    found.retain(|allocator| runs_all() || USUAL.contains(allocator));
    found
}

/// The system's own, and the first that is preloaded; with `--all` each in every way.
pub fn two(test: &str) -> Vec<Allocator> {
    let found = all(test);
    if runs_all() {
        return found;
    }
    let preloaded = found.into_iter().find(|allocator| allocator.preloaded().is_some());
    [GLIBC].into_iter().chain(preloaded).collect()
}

/// The system's own; with `--all` each in every way.
pub fn one(test: &str) -> Vec<Allocator> {
    if runs_all() { all(test) } else { vec![GLIBC] }
}

/// Those that a program of C++'s may have without being linked anew, of these.
pub fn of_cpp(mut allocators: Vec<Allocator>) -> Vec<Allocator> {
    allocators.retain(|allocator| !matches!(allocator.how, How::Linked(_)));
    allocators
}

fn is_there(allocator: &Allocator, test: &str) -> bool {
    let name = match allocator.how {
        How::Preloaded(name) | How::Linked(Linked::Library(name)) => name,
        How::System | How::Own(_) | How::Linked(_) => return true,
    };
    let is_there = Path::new(LIBRARIES).join(name).exists();
    if !is_there {
        skip(test, &format!("no {name}"));
    }
    is_there
}
