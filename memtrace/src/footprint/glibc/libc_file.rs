//! What the file of a libc says: its version, and where it keeps its threads.
//!
//! In: the process's map. Out: numbers. The file is read, not its mapping: pages of it that nobody uses would become
//! resident. The symbols are those that libthread_db uses; a stripped libc has them, too.

use std::{fs::File, os::unix::fs::FileExt};

use object::{Object, ObjectSegment, ObjectSymbol};

use crate::target::{elf_parts, maps::Mapping, open_mapped};

/// The symbols that are wanted, in the order of [`Wanted`].
const NAMES: [&str; 6] = [
    "__nptl_version",
    "__nptl_rtld_global",
    "_thread_db_pthread_list",
    "_thread_db_pthread_tid",
    "_thread_db_rtld_global__dl_stack_used",
    "_thread_db_rtld_global__dl_stack_user",
];

/// Where glibc keeps its threads, as it tells debuggers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadDb {
    /// Where the address of `_rtld_global` stands.
    pub(super) rtld_global_pointer: u64,
    /// Both lists of threads in that.
    pub(super) lists: [u64; 2],
    /// The links in `struct pthread`.
    pub(super) link: u64,
    /// The thread's id in it.
    pub(super) tid: u64,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LibcFile {
    /// As `2.36`.
    pub version: Option<String>,
    /// `None` before 2.34, and in other libraries.
    pub thread_db: Option<ThreadDb>,
}

/// Reads what the libc of process `pid` says, if it has one as a file of its own.
#[must_use]
pub fn libc_file(pid: u32, maps: &[Mapping]) -> LibcFile {
    let is_libc = |mapping: &&Mapping| {
        let name = mapping.file_name();
        mapping.offset == 0 && (name.starts_with("libc.so.6") || name.starts_with("libc-2."))
    };
    let mapping = maps.iter().find(is_libc);
    mapping.and_then(|mapping| read(pid, mapping)).unwrap_or_default()
}

fn read(pid: u32, mapping: &Mapping) -> Option<LibcFile> {
    let file = open_mapped(pid, mapping).ok()?;
    let bytes = elf_parts::read(&file, elf_parts::Parts::Linkage).ok()?;
    let elf = object::File::parse(&bytes[..]).ok()?;
    let mut found = [None; NAMES.len()];
    for symbol in elf.dynamic_symbols().filter(|symbol| symbol.is_definition()) {
        let name =
            symbol.name().ok().and_then(|name| NAMES.iter().position(|&known| known == name));
        if let Some(place) = name {
            found[place] = Some(symbol.address());
        }
    }
    let [version, rtld_global, list, tid, used, user] = found;
    let version = version.and_then(|address| text(&file, &elf, address));
    // Each is {bits, number of elements, offset}.
    let offset = |address: Option<u64>| {
        let mut words = [0; 12];
        read_at(&file, &elf, address?, &mut words)?;
        let offset = u32::from_le_bytes([words[8], words[9], words[10], words[11]]);
        Some(u64::from(offset)).filter(|&offset| offset < 1 << 20)
    };
    let thread_db = || {
        Some(ThreadDb {
            rtld_global_pointer: mapping.start.checked_add(rtld_global?)?,
            lists: [offset(used)?, offset(user)?],
            link: offset(list)?,
            tid: offset(tid)?,
        })
    };
    Some(LibcFile { version, thread_db: thread_db() })
}

fn text(file: &File, elf: &object::File<'_>, address: u64) -> Option<String> {
    let mut bytes = [0; 16];
    read_at(file, elf, address, &mut bytes)?;
    let end = bytes.iter().position(|&byte| byte == 0)?;
    let is_version = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
    bytes[..end].iter().all(is_version).then(|| String::from_utf8_lossy(&bytes[..end]).into_owned())
}

/// What the file holds for `address`.
fn read_at(file: &File, elf: &object::File<'_>, address: u64, bytes: &mut [u8]) -> Option<()> {
    let place = elf.segments().find_map(|segment| {
        let (offset, len) = segment.file_range();
        let behind = address.checked_sub(segment.address()).filter(|&behind| behind < len)?;
        offset.checked_add(behind)
    })?;
    file.read_exact_at(bytes, place).ok()
}
