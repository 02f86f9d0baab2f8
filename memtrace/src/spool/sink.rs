//! The temporary file: without a name, and no larger than there is room for.

use std::{env, fs::File, io, os::unix::fs::FileExt, path::PathBuf};

use super::{Packing, SpoolError, Spooled, map};

/// The part of the room that is free which is left to others.
const LEFT_FREE: u64 = 10;

/// What is written so far.
#[derive(Debug)]
pub(super) struct Sink {
    name: String,
    folder: PathBuf,
    file: File,
    n_bytes: u64,
    limit_bytes: u64,
}

impl Sink {
    /// For what comes out of `name`.
    pub(super) fn new(name: &str) -> Result<Self, SpoolError> {
        let folder = env::temp_dir();
        let failed = |source| SpoolError::Write { folder: folder.clone(), source };
        let file = tempfile::tempfile_in(&folder).map_err(failed)?;
        let free_bytes = free_bytes(&file).map_err(failed)?;
        let limit_bytes = free_bytes - free_bytes / LEFT_FREE;
        Ok(Self { name: name.to_owned(), folder, file, n_bytes: 0, limit_bytes })
    }

    /// Adds `bytes`.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        if bytes.len() as u64 > self.limit_bytes - self.n_bytes {
            return Err(self.no_room());
        }
        match self.file.write_all_at(bytes, self.n_bytes) {
            Ok(()) => {
                self.n_bytes += bytes.len() as u64;
                Ok(())
            }
            // Others write meanwhile, too.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => Err(self.no_room()),
            Err(source) => Err(SpoolError::Write { folder: self.folder.clone(), source }),
        }
    }

    fn no_room(&self) -> SpoolError {
        SpoolError::NoRoom {
            name: self.name.clone(),
            limit_bytes: self.n_bytes.max(self.limit_bytes),
            folder: self.folder.clone(),
        }
    }

    /// All that was written; `cut` says why there is no more.
    pub(super) fn finish(
        self,
        packing: Option<Packing>,
        cut: Option<String>,
    ) -> Result<Spooled, SpoolError> {
        if self.n_bytes == 0 {
            return Err(match cut {
                Some(error) => SpoolError::Read(self.name, error),
                None => SpoolError::Empty(self.name),
            });
        }
        let failed = |source| SpoolError::Write { folder: self.folder.clone(), source };
        let bytes = map(&self.file).map_err(failed)?;
        Ok(Spooled { bytes, packing, folder: Some(self.folder), cut })
    }
}

/// The room that is free where `file` is.
fn free_bytes(file: &File) -> io::Result<u64> {
    let found = rustix::fs::fstatvfs(file)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}
