//! The files whose code a process runs, and those that a command is going to.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use object::{
    LittleEndian, elf,
    elf::FileHeader64,
    read::elf::{Dyn, FileHeader},
};

use super::{
    Library,
    elf_parts::{self, Parts},
    maps,
};

/// Files of a command that are looked at before it begins.
const MAX_AHEAD: usize = 256;
/// What the kernel reads of a script's first line (Linux, include/uapi/linux/binfmts.h, `BINPRM_BUF_SIZE`).
const MAX_SCRIPT_LINE_BYTES: u64 = 256;
/// `/etc/ld.so.preload` is a line or none.
const MAX_PRELOAD_BYTES: u64 = 64 << 10;
/// Entries of a dynamic section; a library has some tens.
const MAX_ENTRIES: usize = 10_000;
/// Of a file's name.
const MAX_NAME_BYTES: usize = 4096;
/// Where libraries are on most systems, Debian's places first.
const USUAL_FOLDERS: [&str; 6] = [
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
];

/// The files that process `pid` has mapped code of, each once, but those that `is_known` by device and inode. One that
/// can't be opened is an error in the list.
pub fn code_files(pid: u32, is_known: impl Fn((u64, u64)) -> bool) -> Vec<io::Result<Library>> {
    let mappings = maps::read(pid).unwrap_or_default();
    let mut seen = HashSet::new();
    let code = mappings.iter().filter(|mapping| mapping.exec && mapping.inode != 0);
    let new = code.filter(|mapping| seen.insert((mapping.device, mapping.inode)));
    let files = new.map(|mapping| Library::mapped(pid, mapping));
    files.filter(|file| !file.as_ref().is_ok_and(|file| is_known(file.key()))).collect()
}

/// The files that the program at `path` is likely to have mapped code of when its first function runs: its own, its dynamic
/// linker, what it names as needed, and what `LD_PRELOAD` and `/etc/ld.so.preload` name, with what these need. What they
/// need in turn is not looked for, nor is anything in places that are not usual.
pub fn code_files_ahead(path: &Path) -> Vec<Library> {
    let interpreter = interpreter_of_script(path);
    let first = interpreter.unwrap_or_else(|| path.to_owned());
    let preloaded = preloaded().into_iter().filter_map(|name| find(&name));
    let named: Vec<PathBuf> = [first].into_iter().chain(preloaded).take(MAX_AHEAD).collect();
    let needed = named.iter().flat_map(|path| needed_by(path).unwrap_or_default());
    let needed: Vec<PathBuf> = needed.filter_map(|name| find(&name)).take(MAX_AHEAD).collect();
    let mut seen = HashSet::new();
    let files = named.iter().chain(&needed).filter_map(|path| Library::open(path).ok());
    files.filter(|file| seen.insert(file.key())).collect()
}

/// The dynamic linker and the libraries that the file at `path` names; some are paths, most are not.
fn needed_by(path: &Path) -> Option<Vec<Vec<u8>>> {
    let library = Library::open(path).ok()?;
    let bytes = elf_parts::read(library.file(), Parts::Linkage).ok()?;
    let header = FileHeader64::<LittleEndian>::parse(&bytes[..]).ok()?;
    let sections = header.sections(LittleEndian, &bytes[..]).ok()?;
    let (entries, link) = sections.dynamic(LittleEndian, &bytes[..]).ok()??;
    let strings = sections.strings(LittleEndian, &bytes[..], link).ok()?;
    let needed = entries.iter().take(MAX_ENTRIES);
    let needed = needed.filter(|entry| entry.tag32(LittleEndian) == Some(elf::DT_NEEDED));
    let name = |entry: &elf::Dyn64<LittleEndian>| {
        let at = u32::try_from(entry.d_val.get(LittleEndian)).ok()?;
        let name = strings.get(at).ok()?;
        (name.len() <= MAX_NAME_BYTES).then(|| name.to_vec())
    };
    Some(needed.take(MAX_AHEAD).filter_map(name).collect())
}

/// Where the dynamic linker finds `name`, if that is a usual place.
fn find(name: &[u8]) -> Option<PathBuf> {
    let name = OsStr::from_bytes(name);
    if name.as_bytes().contains(&b'/') {
        return Some(PathBuf::from(name));
    }
    let variable = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let folders = std::env::split_paths(&variable).filter(|folder| folder.is_absolute());
    let usual = USUAL_FOLDERS.iter().map(PathBuf::from);
    folders.chain(usual).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// The program that runs the script at `path`; `None` where it is none (execve(2), "Interpreter scripts").
fn interpreter_of_script(path: &Path) -> Option<PathBuf> {
    let mut begin = Vec::new();
    File::open(path).ok()?.take(MAX_SCRIPT_LINE_BYTES).read_to_end(&mut begin).ok()?;
    let line = begin.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?.trim_ascii();
    let name = line.split(|byte| b" \t".contains(byte)).next()?;
    Some(PathBuf::from(OsStr::from_bytes(name)))
}

/// What the dynamic linker loads before all others (ld.so(8)).
fn preloaded() -> Vec<Vec<u8>> {
    let variable = std::env::var_os("LD_PRELOAD").unwrap_or_default().into_encoded_bytes();
    let mut file = Vec::new();
    if let Ok(opened) = File::open("/etc/ld.so.preload") {
        opened.take(MAX_PRELOAD_BYTES).read_to_end(&mut file).ok();
    }
    let separates = |byte: &u8| b": \t\n".contains(byte);
    let names = variable.split(separates).chain(file.split(separates));
    names.filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect()
}
