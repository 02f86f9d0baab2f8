//! Where one output goes: to stdout, to a device or pipe, or to a file that takes its name when it is whole.
//!
//! In: a path as it was typed. Out: a [`Place`] that can be written to as far as can be told before there is anything to
//! write. Until then nothing is changed: a file of the same name stays what it is if the trace comes to nothing.

use std::{
    ffi::OsString,
    fs,
    fs::{File, OpenOptions, Permissions},
    io,
    io::{Seek, SeekFrom, Write},
    os::{
        fd::AsFd,
        unix::fs::{FileExt, MetadataExt, OpenOptionsExt, fchown},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::target::launch::User;

/// Stdout by the names that the kernel gives it, and by the one that people type.
const STDOUT: [&str; 4] = ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"];
/// Files here stand for what is open already.
const SPECIAL: [&str; 2] = ["/dev", "/proc"];
/// Symbolic links that are followed, as many as the kernel follows.
const MAX_LINKS: usize = 40;
/// Names that are tried for a file that is not whole yet.
const MAX_NAMES: u32 = 100;

/// Where one output goes.
#[derive(Debug)]
pub(super) enum Place {
    /// Stdout.
    Stdout,
    /// What is there already and can't be replaced: a device, a pipe, a file in a folder that may not be changed.
    Direct(PathBuf, File),
    /// A file that is there when it is whole, and the one that has its name until then.
    Whole(PathBuf, Option<File>),
}

/// Whether `path` means stdout.
pub(crate) fn is_stdout(path: &Path) -> bool {
    STDOUT.iter().any(|name| path == Path::new(name))
}

impl Place {
    /// Checks that `path` can be written to.
    pub(super) fn find(path: &Path) -> Result<Self> {
        if is_stdout(path) {
            return Ok(Self::Stdout);
        }
        Self::of_file(path).with_context(|| format!("failed to create {}", path.display()))
    }

    fn of_file(path: &Path) -> io::Result<Self> {
        let there = match fs::metadata(path) {
            Ok(metadata) => {
                let file = OpenOptions::new().write(true).open(path)?;
                let is_special = SPECIAL.iter().any(|folder| path.starts_with(folder));
                if is_special || !metadata.is_file() {
                    return Ok(Self::Direct(path.to_path_buf(), file));
                }
                Some(file)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let real = followed(path);
        match (Unfinished::beside(&real), there) {
            (Ok(_), there) => Ok(Self::Whole(real, there)),
            (Err(_), Some(file)) => Ok(Self::Direct(path.to_path_buf(), file)),
            (Err(error), None) => Err(error),
        }
    }

    /// Lets `write` write to it. A file is replaced only if all of it was written.
    pub(super) fn write(self, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
        match self {
            Self::Stdout => enough_is_no_error(write(&mut io::stdout().lock()))
                .context("failed to write to stdout"),
            Self::Direct(path, mut file) => emptied(&file)
                .and_then(|()| enough_is_no_error(write(&mut file)))
                .with_context(|| format!("failed to write {}", path.display())),
            Self::Whole(path, old) => replaced(&path, old, write)
                .with_context(|| format!("failed to write {}", path.display())),
        }
    }
}

/// Opens a file that is written as the trace goes on; what is in it stays until the trace begins. For `-` it is stdout.
pub(crate) fn create(path: &Path) -> Result<File> {
    let failed = || format!("failed to create {}", path.display());
    if is_stdout(path) {
        return Ok(File::from(io::stdout().as_fd().try_clone_to_owned().with_context(failed)?));
    }
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.with_context(failed)?;
    if file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        give_to_user(&file, path)?;
    }
    Ok(file)
}

/// The first bytes of a file that had others: they are written when the trace begins.
#[derive(Debug)]
pub(crate) struct Beginning {
    file: File,
    bytes: Vec<u8>,
}

impl Beginning {
    /// Passes over the place of `bytes` in `file`, which `path` has led to; where nothing can be lost, they are written
    /// at once.
    pub(crate) fn of(file: &mut File, path: &Path, bytes: &[u8]) -> io::Result<Option<Self>> {
        let metadata = file.metadata()?;
        if is_stdout(path) || !metadata.is_file() || metadata.len() == 0 {
            return file.write_all(bytes).map(|()| None);
        }
        file.seek(SeekFrom::Start(bytes.len() as u64))?;
        Ok(Some(Self { file: file.try_clone()?, bytes: bytes.to_vec() }))
    }

    /// The trace begins: what was in the file is gone.
    pub(crate) fn write(mut self) -> io::Result<()> {
        // What was known when the trace began may have been written already.
        let reached = self.file.stream_position()?;
        self.file.set_len(reached)?;
        self.file.write_all_at(&self.bytes, 0)
    }
}

/// A file with a name of its own, which is gone unless it is finished.
struct Unfinished {
    path: PathBuf,
    file: File,
}

impl Unfinished {
    /// In the same folder as `path`, so that it can take its name.
    fn beside(path: &Path) -> io::Result<Self> {
        if path.file_name().is_none() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let mut error = io::Error::from(io::ErrorKind::AlreadyExists);
        for number in 0..MAX_NAMES {
            let name = format!(".memtrace-{}-{number}", std::process::id());
            let path = path.with_file_name(name);
            match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)
            {
                Ok(file) => return Ok(Self { path, file }),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => error = e,
                Err(e) => return Err(e),
            }
        }
        Err(error)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Once it has its name there is nothing here any more.
        fs::remove_file(&self.path).ok();
    }
}

fn replaced(
    path: &Path,
    old_file: Option<File>,
    write: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    let mut new = Unfinished::beside(path)?;
    give_to_user(&new.file, path)?;
    if let Ok(old) = fs::metadata(path) {
        let mode =
            <Permissions as std::os::unix::fs::PermissionsExt>::from_mode(old.mode() & 0o777);
        new.file.set_permissions(mode)?;
    }
    write(&mut new.file)?;
    named(&mut new, path, old_file)
}

/// Gives `new` its name. Where the old file can't be replaced (it is mounted there, or belongs to someone else in a folder
/// like /tmp), it gets what is in the new one.
fn named(new: &mut Unfinished, path: &Path, old_file: Option<File>) -> Result<()> {
    let Err(error) = fs::rename(&new.path, path) else { return Ok(()) };
    let Some(mut old_file) = old_file else { return Err(error.into()) };
    new.file.rewind()?;
    emptied(&old_file)?;
    io::copy(&mut new.file, &mut old_file)?;
    Ok(())
}

/// A file that only its owner can read belongs to the user who called sudo, if memtrace was called so.
fn give_to_user(file: &File, path: &Path) -> Result<()> {
    let Some(user) = User::behind_sudo().ok().flatten() else { return Ok(()) };
    let (uid, gid) = user.ids();
    fchown(file, Some(uid), Some(gid))
        .with_context(|| format!("failed to give {} to {}", path.display(), user.name))
}

fn emptied(file: &File) -> Result<()> {
    if file.metadata()?.is_file() {
        file.set_len(0)?;
    }
    Ok(())
}

/// A reader that has gone has had enough.
fn enough_is_no_error(result: Result<()>) -> Result<()> {
    while_read(result).map(drop)
}

/// Of something that was written: whether somebody still reads there.
pub(super) fn while_read(result: Result<()>) -> Result<bool> {
    let is_broken_pipe = |error: &anyhow::Error| {
        error.chain().any(|cause| {
            cause
                .downcast_ref::<io::Error>()
                .is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe)
        })
    };
    match result {
        Err(error) if is_broken_pipe(&error) => Ok(false),
        result => result.map(|()| true),
    }
}

/// The path behind symbolic links, also where nothing is there yet.
fn followed(path: &Path) -> PathBuf {
    let mut path = path.to_path_buf();
    for _ in 0..MAX_LINKS {
        let Ok(to) = fs::read_link(&path) else { break };
        path = folder(&path).join(to);
    }
    path
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What makes two paths the same file, however they are spelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    /// A file: its device and number.
    File(u64, u64),
    /// One that is not there yet: its folder's device and number, and its name.
    New(u64, u64, OsString),
}

impl Identity {
    /// `None` for what is no file (many outputs may go to `/dev/null`) and for what can't be told.
    pub(super) fn of(path: &Path) -> Option<Self> {
        if let Ok(metadata) = fs::metadata(path) {
            return metadata.is_file().then(|| Self::File(metadata.dev(), metadata.ino()));
        }
        let real = followed(path);
        let metadata = fs::metadata(folder(&real)).ok()?;
        Some(Self::New(metadata.dev(), metadata.ino(), real.file_name()?.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// One file by any spelling, also before it is there.
    #[test]
    fn identities() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "").unwrap();
        fs::write(at("other"), "").unwrap();
        fs::hard_link(at("file"), at("hard")).unwrap();
        symlink("file", at("soft")).unwrap();
        symlink("new", at("dangling")).unwrap();
        fs::create_dir(at("folder")).unwrap();
        // (one, another, whether they are the same)
        let cases = [
            ("file", "./file", true),
            ("file", "folder/../file", true),
            ("file", "hard", true),
            ("file", "soft", true),
            ("file", "other", false),
            ("new", "folder/../new", true),
            ("new", "dangling", true),
            ("new", "newer", false),
            ("file", "new", false),
        ];
        for (one, another, same) in cases {
            let [one, another] = [one, another].map(|name| Identity::of(&at(name)).unwrap());
            assert_eq!(one == another, same, "{one:?} {another:?}");
        }
        assert_eq!(Identity::of(Path::new("/dev/null")), None);
    }

    /// A file stays what it was until all is written, and a link stays a link.
    #[test]
    fn whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "old").unwrap();
        symlink("file", &link).unwrap();
        let failing = Place::find(&link).unwrap().write(|out| {
            out.write_all(b"half")?;
            anyhow::bail!("no more")
        });
        assert!(failing.is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "old");
        Place::find(&link).unwrap().write(|out| Ok(out.write_all(b"new")?)).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "something was left behind");
    }

    /// Where a file can't take the other's name, the other gets what is in it, and nothing is left behind.
    #[test]
    fn can_not_be_renamed() {
        let folder = tempfile::tempdir().unwrap();
        let (taken, old) = (folder.path().join("taken"), folder.path().join("old"));
        fs::create_dir(&taken).unwrap();
        fs::write(&old, "something longer").unwrap();
        let old_file = OpenOptions::new().write(true).open(&old).unwrap();
        replaced(&taken, Some(old_file), |out| Ok(out.write_all(b"new")?)).unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "new");
        assert!(replaced(&taken, None, |out| Ok(out.write_all(b"new")?)).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "something was left behind");
    }

    /// An old trace stays until a new one begins; then nothing of it is left.
    #[test]
    fn old_until_the_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.mt");
        fs::write(&path, "an old trace").unwrap();
        let mut file = create(&path).unwrap();
        let beginning = Beginning::of(&mut file, &path, b"head").unwrap().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "an old trace");
        file.write_all(b"+1").unwrap();
        beginning.write().unwrap();
        file.write_all(b"+2").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "head+1+2");
    }

    #[test]
    fn refused() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path(), &folder.path().join("none/file"), Path::new("")] {
            assert!(Place::find(path).is_err(), "{}", path.display());
        }
    }
}
