//! Java thread names from the JVM's own thread dump.

use std::{
    collections::HashMap,
    fs::File,
    io::Read,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};

use super::failure::Failure;
use crate::{
    attach,
    jvm::thread_dump::{self, DumpedThread},
    ledger::NameFrom,
    target,
    trace::{Record, Recording, ThreadName},
};

/// How long a JVM may take to answer.
const PATIENCE: Duration = Duration::from_secs(6);
const MAX_FILE_BYTES: u64 = 256 << 20;

/// Names from a saved thread dump.
#[derive(Debug, Default)]
pub(super) struct SavedNames {
    /// Those of the threads that could be told.
    pub(super) names: Vec<ThreadName>,
    /// How many threads the dump has.
    pub(super) n_in_dump: usize,
}

/// The value of `--jstack` that is not a file.
pub(super) fn is_attach(path: &Path) -> bool {
    path == Path::new("attach")
}

/// Asks the JVM `pid` for its threads' names.
pub(super) fn ask(pid: u32) -> Result<Vec<ThreadName>, Failure> {
    let dump = attach::command(pid, "threaddump", &[], PATIENCE).map_err(|error| {
        let hint = error.hint().map(str::to_owned);
        Failure::new(anyhow!("failed to get a thread dump of process {pid}: {error}"), hint)
    })?;
    let ids = ids_in_namespace(pid);
    let name = |thread: DumpedThread| Some(named(pid, *ids.get(&thread.nid)?, thread.name));
    Ok(thread_dump::parse(&dump).into_iter().filter_map(name).collect())
}

/// Names from what `jstack` printed, for the threads that process `pid` has now.
pub(super) fn of_process(pid: u32, path: &Path) -> Result<SavedNames> {
    let threads = read_file(path)?;
    let n_in_dump = threads.len();
    let is_elsewhere = target::namespace_tid(pid, pid).is_some_and(|tid| tid != pid);
    let ids = if is_elsewhere { ids_in_namespace(pid) } else { HashMap::new() };
    let name = |thread: DumpedThread| {
        let tid = if is_elsewhere { *ids.get(&thread.nid)? } else { thread.nid };
        Some(named(pid, tid, thread.name))
    };
    Ok(SavedNames { names: threads.into_iter().filter_map(name).collect(), n_in_dump })
}

/// Names the threads of `recording` by what `jstack` printed; the ids are taken as they are.
pub(super) fn name_from_file(recording: &mut Recording, path: &Path) -> Result<()> {
    let known: Vec<u32> = recording.ledger.threads().iter().map(|thread| thread.tid).collect();
    let threads = read_file(path)?;
    let n_in_dump = threads.len();
    let ours: Vec<_> = threads.into_iter().filter(|thread| known.contains(&thread.nid)).collect();
    if let Some(note) = note_on(ours.len(), n_in_dump) {
        recording.apply(Record::Note(note));
    }
    for DumpedThread { nid, name, .. } in ours {
        recording.apply(Record::ThreadName(named(recording.target.pid, nid, name)));
    }
    Ok(())
}

/// What the user should know if no thread of a dump is one of the trace.
pub(super) fn note_on(n_matched: usize, n_in_dump: usize) -> Option<String> {
    (n_matched == 0 && n_in_dump > 0).then(|| {
        format!(
            "0 of {n_in_dump} threads of the thread dump matched: it is of another process, or of a JVM in a pid \
             namespace of its own, whose ids can be told only while it runs"
        )
    })
}

/// The threads in what `jstack` printed.
fn read_file(path: &Path) -> Result<Vec<DumpedThread>> {
    let failed = || format!("failed to read {}", path.display());
    // A pipe without a writer must not make memtrace wait.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = file.with_context(|| format!("failed to open {}", path.display()))?;
    // A pipe that has a writer is waited for: `--jstack <(jstack PID)`.
    // SAFETY: takes three numbers.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, 0) };
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).with_context(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        bail!("{}: more than {MAX_FILE_BYTES} bytes are no thread dump", failed());
    }
    let threads = thread_dump::parse(&String::from_utf8_lossy(&bytes));
    if threads.is_empty() {
        bail!("failed to find a thread in {}: it is not what jstack prints", path.display());
    }
    Ok(threads)
}

/// A dump has the ids that threads have in the JVM's own pid namespace; these are the ids here, by those.
fn ids_in_namespace(pid: u32) -> HashMap<u32, u32> {
    let ids = |tid| Some((target::namespace_tid(pid, tid)?, tid));
    target::threads(pid).into_iter().filter_map(ids).collect()
}

fn named(tgid: u32, tid: u32, name: String) -> ThreadName {
    ThreadName { tgid, tid, name: name.into_bytes(), from: NameFrom::Jstack }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What has no end, or no beginning, is told in time.
    #[test]
    fn hostile_files() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        for (path, said) in [
            (Path::new("/dev/zero"), "more than 268435456 bytes are no thread dump"),
            (&pipe, "it is not what jstack prints"),
            (Path::new("/dev/null"), "it is not what jstack prints"),
            (&folder.path().join("none"), "failed to open"),
        ] {
            let error = read_file(path).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
