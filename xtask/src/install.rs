//! `cargo xtask install`: puts memtrace on the PATH.
//!
//! In: the built binary. Out: a copy in `/usr/local/bin`, where sudo looks too.

use std::{fs, path::PathBuf};

use crate::{build, repository::Repository, run, setup::Policy};

/// Where to install.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Install into DIR/bin
    #[arg(long, value_name = "DIR", default_value = "/usr/local")]
    root: PathBuf,
}

/// Builds memtrace and copies it to `bin` of the chosen root.
pub(crate) fn run(
    repository: &Repository,
    policy: Policy,
    options: &Options,
) -> anyhow::Result<()> {
    let built = build::run(repository, policy)?;
    let destination = options.root.join("bin/memtrace");
    // A folder of the user's own needs no sudo, and should not get a file of root's.
    let own = fs::create_dir_all(options.root.join("bin")).is_ok()
        && is_writable(&options.root.join("bin"));
    let mut install =
        if own { std::process::Command::new("install") } else { run::as_root("install") };
    // `install` replaces the file rather than writing into it: a running memtrace goes on.
    run::run(install.args(["-D", "-m", "755"]).arg(built).arg(&destination))?;
    eprintln!("Installed {}.", destination.display());
    Ok(())
}

fn is_writable(folder: &std::path::Path) -> bool {
    let Ok(path) = std::ffi::CString::new(folder.as_os_str().as_encoded_bytes()) else {
        return false;
    };
    // SAFETY: `path` is a terminated string that lives through the call; access only reads it.
    unsafe { libc::access(path.as_ptr(), libc::W_OK) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that is there can be written by its owner; one that is not there cannot.
    #[test]
    fn writable_folders() {
        let folder = std::env::temp_dir().join(format!("memtrace-install-{}", std::process::id()));
        assert!(!is_writable(&folder));
        fs::create_dir_all(&folder).unwrap();
        assert!(is_writable(&folder));
        fs::remove_dir_all(&folder).unwrap();
    }
}
