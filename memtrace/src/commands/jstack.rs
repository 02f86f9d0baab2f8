//! Java thread names from the JVM's own thread dump.

use std::{collections::HashMap, fs, path::Path, time::Duration};

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
    // The JVM tells the ids that its threads have in its own pid namespace.
    let ids: HashMap<u32, u32> = target::threads(pid)
        .into_iter()
        .filter_map(|tid| Some((target::namespace_tid(pid, tid)?, tid)))
        .collect();
    let name = |thread: DumpedThread| Some((*ids.get(&thread.nid)?, thread.name));
    Ok(thread_dump::parse(&dump)
        .into_iter()
        .filter_map(name)
        .map(|(tid, text)| named(pid, tid, text))
        .collect())
}

/// Reads what `jstack` printed; the ids are taken as they are.
pub(super) fn read_file(tgid: u32, path: &Path) -> Result<Vec<ThreadName>> {
    let len =
        fs::metadata(path).with_context(|| format!("failed to open {}", path.display()))?.len();
    if len > MAX_FILE_BYTES {
        bail!("failed to read {}: {len} bytes are more than any thread dump has", path.display());
    }
    let bytes = fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
    let threads = thread_dump::parse(&String::from_utf8_lossy(&bytes));
    if threads.is_empty() {
        bail!("failed to find a thread in {}: it is not what jstack prints", path.display());
    }
    Ok(threads.into_iter().map(|thread| named(tgid, thread.nid, thread.name)).collect())
}

/// Names the threads of `recording` by what `jstack` printed.
pub(super) fn name_from_file(recording: &mut Recording, path: &Path) -> Result<()> {
    let known: Vec<u32> = recording.ledger.threads().iter().map(|thread| thread.tid).collect();
    let names = read_file(recording.target.pid, path)?;
    for name in names.into_iter().filter(|name| known.contains(&name.tid)) {
        recording.apply(Record::ThreadName(name));
    }
    Ok(())
}

fn named(tgid: u32, tid: u32, name: String) -> ThreadName {
    ThreadName { tgid, tid, name: name.into_bytes(), from: NameFrom::Jstack }
}
