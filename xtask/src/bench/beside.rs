//! What runs beside the target rather than around it or in it.
//!
//! In: a tool. Out: its process, ready before the target starts and ended after it.

use std::{
    ffi::CString,
    fs,
    io::{self, BufRead, BufReader},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

use anyhow::{Context, bail};

use super::{Bed, clean_command, process, tool::Tool};
use crate::{
    bpf_toolchain::Places,
    needs::{HEAPTRACK_INTERPRETER, library},
};

/// A process beside the target.
pub(super) struct Beside {
    child: Child,
    /// What it reads from, to be removed at the end.
    pipe: Option<PathBuf>,
}

impl Beside {
    /// Starts what `tool` needs, if anything.
    pub(super) fn start(tool: Tool, bed: &Bed) -> anyhow::Result<Option<Self>> {
        match tool {
            Tool::Bpftrace => Self::start_bpftrace(&bed.folder).map(Some),
            Tool::Heaptrack => Self::start_heaptrack(bed).map(Some),
            Tool::JemallocSampled => remove_dumps(&bed.folder).map(|()| None),
            _ => Ok(None),
        }
    }

    /// Starts the script and waits until its probes are attached.
    fn start_bpftrace(folder: &Path) -> anyhow::Result<Self> {
        let script = folder.join("memleak.bt");
        fs::write(&script, include_str!("memleak.bt"))
            .with_context(|| format!("failed to write {}", script.display()))?;
        let mut child = clean_command("bpftrace")
            .arg(&script)
            .arg(std::process::id().to_string())
            .env("BPFTRACE_MAP_KEYS_MAX", "1000000")
            .stdout(Stdio::piped())
            // It grumbles on detaching where tracefs is not mounted; its figures are not used.
            .stderr(Stdio::null())
            .spawn()
            .context("failed to start bpftrace")?;
        let output = child.stdout.take().context("failed to read from bpftrace")?;
        let mut lines = BufReader::new(output).lines();
        if !lines.any(|line| line.is_ok_and(|line| line == "attached")) {
            process::wait(&child)?;
            bail!("failed to attach bpftrace: it ended before its probes were in place");
        }
        // Keeps the pipe drained, so that its closing lines do not stop it.
        std::thread::spawn(move || lines.count());
        Ok(Self { child, pipe: None })
    }

    /// Starts what resolves heaptrack's frames, as the script `heaptrack` does, behind a named pipe; but the script would
    /// be between the target and what measures it. What is resolved is not compressed.
    fn start_heaptrack(bed: &Bed) -> anyhow::Result<Self> {
        let interpreter = library(&Places::of_this_machine(), HEAPTRACK_INTERPRETER)
            .context("failed to find heaptrack's interpreter")?;
        let pipe = bed.heaptrack_pipe();
        // Left by a run that was killed, or not there.
        let _ = fs::remove_file(&pipe);
        make_pipe(&pipe).with_context(|| format!("failed to create {}", pipe.display()))?;
        // The shell waits in the opening of the pipe until the target opens it, too.
        let child = clean_command("sh")
            .args(["-c", "exec \"$1\" < \"$2\" > \"$3\"", "sh"])
            .args([&interpreter, &pipe, &bed.folder.join("heaptrack.txt")])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("failed to start heaptrack's interpreter")?;
        Ok(Self { child, pipe: Some(pipe) })
    }

    /// Ends it and waits until it has ended.
    pub(super) fn stop(self) -> anyhow::Result<()> {
        process::ask_to_end(&self.child);
        process::wait(&self.child).context("failed to wait for what ran beside the target")?;
        self.pipe.map_or(Ok(()), fs::remove_file).context("failed to remove a pipe")
    }
}

impl Bed {
    /// Through which heaptrack's library tells what it sees.
    pub(super) fn heaptrack_pipe(&self) -> PathBuf {
        self.folder.join("heaptrack.pipe")
    }
}

fn make_pipe(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `path` is a terminated string that lives through the call; mkfifo only reads it.
    match unsafe { libc::mkfifo(path.as_ptr(), 0o600) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Removes the dumps of earlier runs: each has a name of its own.
fn remove_dumps(folder: &Path) -> anyhow::Result<()> {
    let listed = fs::read_dir(folder).context("failed to list the folder of the benchmark")?;
    for file in listed.flatten() {
        let name = file.file_name();
        if name.to_string_lossy().starts_with(&format!("{}.", super::JEMALLOC_DUMPS)) {
            let _ = fs::remove_file(file.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Dumps go, whatever else is in the folder stays; a pipe is made once.
    #[test]
    fn only_dumps_go() {
        let folder = std::env::temp_dir().join(format!("memtrace-dumps-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let files = ["jemalloc.12.0.f.heap", "jemalloc.13.0.f.heap", "strace.txt"];
        files.iter().for_each(|file| fs::write(folder.join(file), "").unwrap());
        remove_dumps(&folder).unwrap();
        let there: Vec<_> = files.iter().filter(|file| folder.join(file).exists()).collect();
        assert_eq!(there, [&"strace.txt"]);
        let pipe = folder.join("pipe");
        make_pipe(&pipe).unwrap();
        assert_eq!(make_pipe(&pipe).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        fs::remove_dir_all(&folder).unwrap();
    }
}
