//! Where what is known of a process comes from: the living process, or a capture of it.

use std::{fmt::Debug, io, rc::Rc};

use super::module::Source;
use crate::{
    jvm::{LiveMemory, Memory},
    target::{
        maps::{self, Mapping},
        open_mapped,
    },
};

/// All that is read of processes, but for the events.
pub(super) trait Origin: Debug {
    /// The map of process `tgid`.
    fn maps(&self, tgid: u32) -> io::Result<Vec<Mapping>>;

    /// The file that process `tgid` has mapped there.
    fn module(&self, tgid: u32, mapping: &Mapping) -> Source;

    /// The memory of process `tgid`.
    fn memory(&self, tgid: u32) -> Rc<dyn Memory>;
}

/// The processes of this machine.
#[derive(Debug)]
pub(super) struct Living;

impl Origin for Living {
    fn maps(&self, tgid: u32) -> io::Result<Vec<Mapping>> {
        maps::read(tgid)
    }

    fn module(&self, tgid: u32, mapping: &Mapping) -> Source {
        if mapping.path == b"[vdso]" {
            return own_vdso();
        }
        open_mapped(tgid, mapping)
            .map_or_else(|error| Source::Unreadable(error.to_string()), Source::File)
    }

    fn memory(&self, tgid: u32) -> Rc<dyn Memory> {
        Rc::new(LiveMemory::new(tgid))
    }
}

/// Every 64-bit process has the same one.
fn own_vdso() -> Source {
    let own = maps::read(std::process::id()).unwrap_or_default();
    match own.iter().find(|mapping| mapping.path == b"[vdso]") {
        Some(mapping) => Source::Vdso { start: mapping.start, len: mapping.size_bytes() },
        None => Source::Unreadable("memtrace has none itself".into()),
    }
}
