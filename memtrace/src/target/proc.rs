//! The files of `/proc` about a process.
//!
//! In: a pid and a file's name. Out: bytes, never more than a limit: how long most of these files are is the process's
//! own choice. A process whose first thread has ended lives on as long as another thread does, but the kernel then
//! tells of its memory in the other thread's folder only.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

/// What is read of a file that is small in every process that means no harm.
const MAX_BYTES: u64 = 1 << 20;

/// The folder that speaks for process `pid`: that of its first thread, or of another where the first has ended.
pub fn folder(pid: u32) -> PathBuf {
    let first = folder_of(pid);
    if !has_ended(&first) {
        return first;
    }
    let others = threads(pid).into_iter().map(folder_of);
    others.into_iter().find(|folder| !has_ended(folder)).unwrap_or(first)
}

/// What is in file `name` of process `pid`, its first MiB.
pub fn read(pid: u32, name: &str) -> io::Result<Vec<u8>> {
    read_up_to(pid, name, MAX_BYTES)
}

/// The same, up to `max_bytes`.
pub fn read_up_to(pid: u32, name: &str, max_bytes: u64) -> io::Result<Vec<u8>> {
    read_file(&folder(pid).join(name), max_bytes)
}

/// The same as text, bytes that are not UTF-8 replaced; nothing where it can't be read.
pub(super) fn text(pid: u32, name: &str) -> String {
    text_of(&folder(pid).join(name))
}

/// The text of one file of `/proc`.
pub(super) fn text_of(path: &Path) -> String {
    try_text_of(path).unwrap_or_default()
}

/// The text of one file of `/proc`, or why there is none.
pub(super) fn try_text_of(path: &Path) -> io::Result<String> {
    bytes_of(path).map(|bytes| lossy(&bytes))
}

/// The bytes of one file of `/proc`.
pub(super) fn bytes_of(path: &Path) -> io::Result<Vec<u8>> {
    read_file(path, MAX_BYTES)
}

/// The threads of `pid`.
pub fn threads(pid: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// A thread of process `pid` that has not ended, the first if possible.
pub fn living_thread(pid: u32) -> Option<u32> {
    let lives = |tid: &u32| !has_ended(&PathBuf::from(format!("/proc/{pid}/task/{tid}")));
    [pid].into_iter().chain(threads(pid)).find(lives)
}

/// Whether process `pid` exists and has not ended.
pub fn is_alive(pid: u32) -> bool {
    // A thread that ends leaves the list at once; only the first stays, until the last one has ended.
    !has_ended(&folder_of(pid)) || threads(pid).len() > 1
}

pub(super) fn status_field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

pub(super) fn status_number(status: &str, name: &str) -> Option<u64> {
    status_field(status, name)?.split_whitespace().next()?.parse().ok()
}

fn folder_of(tid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{tid}"))
}

/// Whether the thread of this folder has ended, or never was.
fn has_ended(folder: &Path) -> bool {
    tells_end(&try_text_of(&folder.join("status")))
}

/// Whether this status, or why there is none, means that its thread has ended. That it could not be read for another
/// reason (memtrace has too many files open) means nothing.
fn tells_end(status: &io::Result<String>) -> bool {
    match status {
        Ok(status) => {
            status_field(status, "State:").is_some_and(|state| state.starts_with(['Z', 'X']))
        }
        Err(error) => matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)),
    }
}

fn read_file(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max_bytes).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A process's name is in its status, and may be any bytes.
fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use std::{
        ffi::OsStr,
        os::unix::{ffi::OsStrExt, fs::symlink},
        process::Command,
        thread,
        time::{Duration, Instant},
    };

    use super::*;

    /// A process that runs speaks for itself; one that does not exist has no files.
    #[test]
    fn folders() {
        let pid = std::process::id();
        assert_eq!(folder(pid), folder_of(pid));
        assert!(is_alive(pid) && threads(pid).contains(&pid));
        let none = u32::MAX - 1;
        assert!(
            !is_alive(none) && read(none, "status").is_err() && text(none, "status").is_empty()
        );
    }

    /// Only what is gone or a zombie has ended; memtrace's own troubles are no end of the target.
    #[test]
    fn ends() {
        let failed = |errno| Err(io::Error::from_raw_os_error(errno));
        let said = |status: &str| Ok(status.to_owned());
        for (status, want) in [
            (failed(libc::ENOENT), true),
            (failed(libc::ESRCH), true),
            (failed(libc::EMFILE), false),
            (failed(libc::ENFILE), false),
            (failed(libc::ENOMEM), false),
            (failed(libc::EACCES), false),
            (said("Name:\tx\nState:\tZ (zombie)\n"), true),
            (said("Name:\tx\nState:\tX (dead)\n"), true),
            (said("Name:\tx\nState:\tS (sleeping)\n"), false),
            (said(""), false),
        ] {
            assert_eq!(tells_end(&status), want, "{status:?}");
        }
    }

    /// A process may have any name.
    #[test]
    fn name_that_is_no_text() {
        let folder = std::env::temp_dir().join(format!("memtrace-name-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join(OsStr::from_bytes(b"bad\xff\xfe"));
        symlink("/bin/sleep", &path).unwrap();
        let mut child = Command::new(&path).arg("100").spawn().unwrap();
        // It has its name from its exec on.
        let deadline = Instant::now() + Duration::from_secs(10);
        while !text(child.id(), "status").contains("bad") && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        let (is_alive, status) = (is_alive(child.id()), text(child.id(), "status"));
        child.kill().unwrap();
        child.wait().unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert!(is_alive && status.contains("bad\u{fffd}\u{fffd}"), "{status}");
    }

    /// Never more is read than allowed, of whatever size the file is.
    #[test]
    fn bounded() {
        assert_eq!(read_up_to(std::process::id(), "maps", 100).unwrap().len(), 100);
        assert_eq!(read_file(Path::new("/dev/zero"), MAX_BYTES).unwrap().len() as u64, MAX_BYTES);
    }
}
