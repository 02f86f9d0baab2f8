//! The files whose code a process runs, and those that a command is going to.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use super::{Library, maps};

/// Files of a command that are looked at before it begins.
const MAX_AHEAD: usize = 256;
/// What the kernel reads of a script's first line (Linux, include/uapi/linux/binfmts.h, `BINPRM_BUF_SIZE`).
const MAX_SCRIPT_LINE_BYTES: u64 = 256;

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

/// The files that the program at `path` will have mapped code of when its first function runs, as far as can be told: its
/// own, those that it needs, and what `LD_PRELOAD` and `/etc/ld.so.preload` name.
pub fn code_files_ahead(path: &Path) -> Vec<Library> {
    let interpreter = interpreter_of_script(path);
    let path = interpreter.as_deref().unwrap_or(path);
    let analyzer = lddtree::DependencyAnalyzer::default();
    let needed_by = |path: &Path| -> Vec<PathBuf> {
        let Ok(tree) = analyzer.clone().analyze(path) else { return vec![path.to_owned()] };
        let found = tree.libraries.into_values().filter(|library| library.found());
        let interpreter = tree.interpreter.map(PathBuf::from);
        let libraries = found.map(|library| library.realpath.unwrap_or(library.path));
        [path.to_owned()].into_iter().chain(interpreter).chain(libraries).collect()
    };
    let mut paths = needed_by(path);
    for preloaded in preloaded() {
        paths.extend(needed_by(&preloaded));
    }
    let mut seen = HashSet::new();
    let files = paths.iter().take(MAX_AHEAD).filter_map(|path| Library::open(path).ok());
    files.filter(|file| seen.insert(file.key())).collect()
}

/// The program that runs the script at `path`; `None` where it is none (execve(2), "Interpreter scripts").
fn interpreter_of_script(path: &Path) -> Option<PathBuf> {
    let mut begin = Vec::new();
    File::open(path).ok()?.take(MAX_SCRIPT_LINE_BYTES).read_to_end(&mut begin).ok()?;
    let line = begin.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?.trim_ascii();
    let name = line.split(|byte| b" \t".contains(byte)).next()?;
    Some(PathBuf::from(OsStr::from_bytes(name)))
}

/// What the dynamic linker loads before all others (ld.so(8)); names without a slash are not looked for.
fn preloaded() -> Vec<PathBuf> {
    let variable = std::env::var("LD_PRELOAD").unwrap_or_default();
    let file = std::fs::read_to_string("/etc/ld.so.preload").unwrap_or_default();
    let names = variable.split([':', ' ']).chain(file.split_whitespace());
    names.filter(|name| name.contains('/')).map(PathBuf::from).collect()
}
