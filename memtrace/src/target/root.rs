//! Opening the files that a process names: none that is not its own, and none whose opening does something.
//!
//! In: a path as a process has it. Out: an open regular file. In a container everything of a path is the container's
//! choice: a link that is absolute would lead into memtrace's own files, and opening a device may start it (a watchdog,
//! a tape) and a pipe would make memtrace wait. So the path is followed as the process would follow it, to a handle that
//! can do nothing (`O_PATH`); only what turns out to be a regular file is opened, by way of that handle.

use std::{
    ffi::{CString, OsStr},
    fs::File,
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{MetadataExt, OpenOptionsExt},
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{maps::Mapping, proc};

/// A root folder: where a path begins, and what none of its links lead out of.
#[derive(Debug)]
pub struct Root(File);

impl Root {
    /// The root of process `pid`.
    pub fn of_process(pid: u32) -> io::Result<Self> {
        Self::at(&proc::folder(pid).join("root"))
    }

    /// Memtrace's own root.
    pub(super) fn own() -> io::Result<Self> {
        Self::at(Path::new("/"))
    }

    fn at(path: &Path) -> io::Result<Self> {
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        File::options().read(true).custom_flags(flags).open(path).map(Self)
    }

    /// Opens the regular file at `path` for reading.
    pub fn open(&self, path: &Path) -> io::Result<File> {
        reopened(&self.handle(path, 0)?)
    }

    /// Opens the folder at `path` as a place, without the right to read it.
    pub fn folder(&self, path: &Path) -> io::Result<File> {
        self.handle(path, libc::O_DIRECTORY)
    }

    /// Follows `path` as the process sees it whose root this is: absolute links and `..` stay inside. Linux 5.6.
    fn handle(&self, path: &Path, flags: libc::c_int) -> io::Result<File> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: all of its fields are numbers, for which 0 is a value; it cannot be built otherwise.
        let mut how: libc::open_how = unsafe { std::mem::zeroed() };
        how.flags = (libc::O_PATH | libc::O_CLOEXEC | flags) as u64;
        how.resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
        let (fd, how, size) = (self.0.as_raw_fd(), &raw const how, size_of::<libc::open_how>());
        // SAFETY: `path` ends in a zero byte and `how` is `size` bytes; both outlive the call.
        let fd = unsafe { libc::syscall(libc::SYS_openat2, fd, path.as_ptr(), how, size) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call has just made this descriptor; nobody else has it.
        Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }
}

/// Opens the file behind a mapping: by the mapping itself, which is right in every namespace and for deleted files, or
/// by its path under the process's root. A process that is gone has neither; then its path may be memtrace's, too.
pub fn open_mapped(pid: u32, mapping: &Mapping) -> io::Result<File> {
    let Mapping { start, end, path, inode, .. } = mapping;
    let path = Path::new(OsStr::from_bytes(path));
    let is_the_one = |file: &File| file.metadata().is_ok_and(|metadata| metadata.ino() == *inode);
    let link = proc::folder(pid).join(format!("map_files/{start:x}-{end:x}"));
    open_regular(&link)
        .or_else(|_| Root::of_process(pid)?.open(path))
        .or_else(|error| open_regular(path).ok().filter(is_the_one).ok_or(error))
}

/// Opens the regular file at `path` for reading: a path of memtrace's own, or a link of `/proc` to an open file.
fn open_regular(path: &Path) -> io::Result<File> {
    reopened(&File::options().read(true).custom_flags(libc::O_PATH).open(path)?)
}

/// Opens what `handle` stands for, if that is a regular file.
fn reopened(handle: &File) -> io::Result<File> {
    if !handle.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    // A file may be leased to another process, too.
    File::options().read(true).custom_flags(libc::O_NONBLOCK).open(held(handle))
}

/// A path that leads to `file` as long as it is open, whatever becomes of its name.
fn held(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// A library, held open: its name may lead to another file at any time.
#[derive(Clone, Debug)]
pub struct Library {
    file: Arc<File>,
    name: PathBuf,
    key: (u64, u64),
}

/// A file as it is at a moment: device, inode, time of the last change, and size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileVersion(u64, u64, (i64, i64), u64);

impl Library {
    /// What is at a path of memtrace's own, or behind a link of `/proc` to an open file.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::of(open_regular(path)?, path.to_path_buf())
    }

    /// The library behind `mapping` of process `pid`.
    pub(super) fn mapped(pid: u32, mapping: &Mapping) -> io::Result<Self> {
        Self::of(open_mapped(pid, mapping)?, PathBuf::from(OsStr::from_bytes(&mapping.path)))
    }

    /// The library at `path` below `root`.
    pub(super) fn below(root: &Root, path: &Path) -> io::Result<Self> {
        Self::of(root.open(path)?, path.to_path_buf())
    }

    fn of(file: File, name: PathBuf) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self { file: Arc::new(file), name, key: (metadata.dev(), metadata.ino()) })
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// What it is called, for people: a path of the process.
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// Device and inode.
    pub fn key(&self) -> (u64, u64) {
        self.key
    }

    /// What tells whether it was changed.
    pub fn version(&self) -> io::Result<FileVersion> {
        let metadata = self.file.metadata()?;
        let changed = (metadata.mtime(), metadata.mtime_nsec());
        Ok(FileVersion(metadata.dev(), metadata.ino(), changed, metadata.len()))
    }

    /// A path of memtrace's that leads to it as long as this lives.
    pub fn path(&self) -> PathBuf {
        held(&self.file)
    }
}

impl PartialEq for Library {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Library {}

#[cfg(test)]
mod tests {
    use std::{fs, io::Read, os::unix::fs::symlink, process::Command};

    use super::*;

    /// Links of a container end inside it, whatever they say.
    #[test]
    fn stays_inside() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("etc")).unwrap();
        fs::write(at("etc/hostname"), "inside").unwrap();
        symlink("/etc/hostname", at("absolute")).unwrap();
        symlink("../../../../../../../etc/hostname", at("upward")).unwrap();
        symlink("/etc/passwd", at("outside")).unwrap();
        let root = Root::at(folder.path()).unwrap();
        for name in ["absolute", "/absolute", "upward", "etc/../../etc/hostname"] {
            let mut text = String::new();
            root.open(Path::new(name)).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "inside", "{name}");
        }
        let error = root.open(Path::new("outside")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(
            root.folder(Path::new("etc")).is_ok() && root.folder(Path::new("absolute")).is_err()
        );
    }

    /// What is no regular file is not even opened: opening this pipe for reading would let its writer go on.
    #[test]
    fn opens_regular_files_only() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let root = Root::at(folder.path()).unwrap();
        let device = Path::new("/dev/null");
        symlink(device, folder.path().join("device")).unwrap();
        let writer = std::thread::spawn({
            let pipe = pipe.clone();
            move || File::options().write(true).open(pipe).map(drop)
        });
        std::thread::sleep(std::time::Duration::from_millis(50));
        for result in [root.open(Path::new("pipe")), open_regular(&pipe), open_regular(device)] {
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
        assert!(root.open(Path::new("device")).is_err());
        assert!(!writer.is_finished());
        drop(File::open(&pipe).unwrap());
        writer.join().unwrap().unwrap();
    }

    /// A library stays the one that was found.
    #[test]
    fn held_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libzip.so");
        fs::write(&path, "one").unwrap();
        let library = Library::open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "two").unwrap();
        assert_eq!(fs::read_to_string(library.path()).unwrap(), "one");
        assert_ne!(library, Library::open(&path).unwrap());
    }
}
