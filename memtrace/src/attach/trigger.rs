//! The file that turns a SIGQUIT into "open your attach socket".
//!
//! A JVM looks for `.attach_pid<pid>` in its working directory, then in `/tmp`, and accepts its own
//! user's file only (newer ones also root's). One that it does not accept makes it print its
//! threads into the application's output instead.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use super::target::Target;

/// A trigger file that the JVM will accept; removed on drop if it was created here.
#[derive(Debug)]
pub(super) struct Trigger<'a> {
    /// Where it is; borrowed, because the path to remove it by names the open descriptor.
    dir: &'a File,
    name: String,
    is_ours: bool,
}

impl<'a> Trigger<'a> {
    /// Creates the file, as the calling thread's user, which is the target's.
    pub(super) fn create(target: &'a Target) -> io::Result<Self> {
        let name = format!(".attach_pid{}", target.ns_pid);
        let create = |dir: &'a File| Self::create_in(dir, &name, target.owner.uid);
        match target.cwd.as_ref().map(create) {
            Some(Ok(trigger)) => Ok(trigger),
            // The JVM stops at this one, and a second one in /tmp would not be looked at.
            Some(Err(error)) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
            Some(Err(_)) | None => create(&target.tmp),
        }
    }

    fn create_in(dir: &'a File, name: &str, uid: u32) -> io::Result<Self> {
        let mut trigger = Self { dir, name: name.to_owned(), is_ours: false };
        let path = trigger.path();
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => {
                trigger.is_ours = true;
                // A network file system may have given it to somebody else.
                if file.metadata()?.uid() != uid {
                    return Err(io::ErrorKind::PermissionDenied.into());
                }
                Ok(trigger)
            }
            // Left behind by, or at this moment of, another tool: as good as ours, but not ours.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let is_accepted = fs::symlink_metadata(&path)?.uid() == uid;
                if is_accepted { Ok(trigger) } else { Err(error) }
            }
            Err(error) => Err(error),
        }
    }

    /// Whether it was there already, made by another who sends the signal, too.
    pub(super) fn is_of_another(&self) -> bool {
        !self.is_ours
    }

    fn path(&self) -> String {
        format!("/proc/self/fd/{}/{}", self.dir.as_raw_fd(), self.name)
    }
}

impl Drop for Trigger<'_> {
    fn drop(&mut self) {
        if self.is_ours {
            // Gone already is as good as removed, and there is nobody to tell of anything else.
            let _ = fs::remove_file(self.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attach::sys;

    /// What was created goes, what was there stays, and another user's file is no trigger.
    #[test]
    fn only_our_own_file_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let opened = File::open(dir.path()).unwrap();
        let file = dir.path().join("trigger");
        let uid = sys::effective_owner().uid;

        let trigger = Trigger::create_in(&opened, "trigger", uid).unwrap();
        assert!(file.exists() && !trigger.is_of_another());
        assert!(Trigger::create_in(&opened, "trigger", uid).unwrap().is_of_another());
        drop(trigger);
        assert!(!file.exists());

        fs::write(&file, "").unwrap();
        drop(Trigger::create_in(&opened, "trigger", uid).unwrap());
        assert!(file.exists());
        let error = Trigger::create_in(&opened, "trigger", uid + 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);

        let error = Trigger::create_in(&opened, "other", uid + 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(!dir.path().join("other").exists());
    }
}
