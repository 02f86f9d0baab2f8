//! `memtrace report`: the report of a recorded trace.

use std::{
    cell::Cell,
    fs::File,
    io,
    io::{BufReader, Read},
    ops::ControlFlow,
    os::fd::AsFd,
    path::Path,
    process::ExitCode,
};

use anyhow::{Context, anyhow};

use super::{
    args::ReportArgs,
    failure::Failure,
    jstack,
    outputs::{Outputs, Trace, to_stderr},
    self_use::SelfUse,
};
use crate::{
    ledger::What,
    trace::{Outcome, ReadError, Record, Recording, read},
};

/// The exit status when a trace was read only in part.
const IN_PART: u8 = 3;
/// Memory that reading a trace may take; one of a week takes less than a tenth.
const MAX_MEMORY_BYTES: u64 = 2 << 30;
/// Processor time that reading a trace may take, and what is added for each MiB that was read: a hundred times what a trace
/// of memtrace's needs.
const MAX_SECONDS: u64 = 60;
const MAX_SECONDS_PER_MIB: u64 = 10;
/// Records between two looks at what the reading takes.
const LOOK_EVERY: u64 = 4096;

pub(super) fn run(args: &ReportArgs) -> Result<ExitCode, Failure> {
    let name = args.file.display();
    let file = open(&args.file).with_context(|| format!("failed to open {name}"))?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(Failure::new(anyhow!("failed to read {name}: it is a folder"), None));
    }
    let outputs = Outputs::open(&args.outputs, Trace::Read(&args.file))?;
    let (mut recording, outcome) = recorded(file, Taken::limit)
        .map_err(|error| Failure::new(anyhow!("failed to read {name}: {error}"), None))?;
    if let Some(path) = &args.outputs.jstack {
        jstack::name_from_file(&mut recording, path)?;
    }
    if outcome.n_unknown > 0 && !args.outputs.quiet {
        let n = outcome.n_unknown;
        to_stderr(&format!(
            "memtrace: {n} records are of kinds that a newer memtrace writes; they were passed over\n"
        ));
    }
    outputs.write(&recording, &args.outputs)?;
    if let Some(excess) = outcome.excess {
        to_stderr(&format!("memtrace: {name} has {excess}; the report is of what came before\n"));
        return Ok(ExitCode::from(IN_PART));
    }
    if outcome.is_cut || recording.end.is_none() {
        to_stderr(&format!("memtrace: {name} was cut; the report is of what came before\n"));
        return Ok(ExitCode::from(IN_PART));
    }
    Ok(ExitCode::SUCCESS)
}

/// `-` is stdin.
fn open(path: &Path) -> io::Result<File> {
    if path == Path::new("-") {
        return Ok(File::from(io::stdin().as_fd().try_clone_to_owned()?));
    }
    File::open(path)
}

/// Reads the trace as far as it can be read with what `limit` says for so many bytes as were read: a pipe has no size.
///
/// A live trace holds what its target does. A file may claim address spaces and streams without end, and small records
/// that each copy or look through all of them: what they come to is limited by what they take.
fn recorded(
    input: impl Read,
    limit: impl Fn(u64) -> Taken,
) -> Result<(Recording, Outcome), ReadError> {
    let n_bytes = Cell::new(0);
    let look = || {
        let excess = Taken::now().excess(limit(n_bytes.get()));
        excess.map_or(ControlFlow::Continue(()), ControlFlow::Break)
    };
    let mut recording = Recording::default();
    let mut n_records = 0_u64;
    let counted = Counted { input, n_bytes: &n_bytes };
    let outcome = read(BufReader::new(counted), look, |record| {
        n_records += 1;
        let looks = n_records.is_multiple_of(LOOK_EVERY) || is_of_a_whole_process(&record);
        recording.apply(record);
        if looks { look() } else { ControlFlow::Continue(()) }
    });
    Ok((recording, outcome?))
}

/// Counts what is read.
struct Counted<'n, R> {
    input: R,
    n_bytes: &'n Cell<u64>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buffer)?;
        self.n_bytes.set(self.n_bytes.get() + n as u64);
        Ok(n)
    }
}

fn is_of_a_whole_process(record: &Record) -> bool {
    let Record::Event(event) = record else { return false };
    matches!(event.what, What::Fork { .. } | What::Exec | What::Exit { .. })
}

/// What this process has taken.
#[derive(Clone, Copy, Debug)]
struct Taken {
    cpu_seconds: u64,
    memory_bytes: u64,
}

impl Taken {
    /// What reading `n_bytes` of a trace may take.
    fn limit(n_bytes: u64) -> Self {
        let for_size = (n_bytes >> 20).saturating_mul(MAX_SECONDS_PER_MIB);
        Self { cpu_seconds: MAX_SECONDS.saturating_add(for_size), memory_bytes: MAX_MEMORY_BYTES }
    }

    fn now() -> Self {
        let SelfUse { cpu_ns, max_rss_bytes } = SelfUse::now();
        Self { cpu_seconds: cpu_ns / 1_000_000_000, memory_bytes: max_rss_bytes }
    }

    fn excess(self, limit: Self) -> Option<String> {
        if self.memory_bytes > limit.memory_bytes {
            let mib = limit.memory_bytes >> 20;
            return Some(format!("more in it than {mib} MiB of memory hold"));
        }
        let seconds = limit.cpu_seconds;
        let is_slow = self.cpu_seconds > seconds;
        is_slow.then(|| format!("more in it than can be added up in {seconds} s"))
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Seek, time::Instant};

    use super::*;
    use crate::{
        ledger::{Event, StreamKind},
        stacks::StackId,
        trace::Writer,
    };

    /// A trace of what process `tgid` does, each at another time.
    fn trace(events: impl Iterator<Item = (u32, What)>) -> File {
        let mut file = tempfile::tempfile().unwrap();
        let mut writer = Writer::new(&file, u64::MAX).unwrap();
        for (time_ns, (tgid, what)) in (0..).zip(events) {
            let event = Event { time_ns, tgid, tid: tgid, stack: StackId(0), what };
            writer.write(&Record::Event(event)).unwrap();
        }
        writer.flush().unwrap();
        file.rewind().unwrap();
        file
    }

    fn map(n: u64) -> (u32, What) {
        (1, What::Mmap { addr: n << 13, len: 4096, access: true })
    }

    /// Mappings that never join, and children who each inherit them all: 96 GB.
    #[test]
    fn too_much_memory() {
        let forks = (2..10_000).map(|child| (1, What::Fork { child, followed: true }));
        let max = Taken::now().memory_bytes + (100 << 20);
        let limit = |_| Taken { cpu_seconds: u64::MAX, memory_bytes: max };
        let (_, outcome) = recorded(trace((0..200_000).map(map).chain(forks)), limit).unwrap();
        assert!(outcome.excess.is_some_and(|excess| excess.ends_with("MiB of memory hold")));
        assert!(Taken::now().memory_bytes < max + (500 << 20), "{:?}", Taken::now());
    }

    /// Each new image of one process makes the open streams of all be looked at: half an hour.
    #[test]
    fn too_much_time() {
        let kind = StreamKind::Inflater;
        let opened = (0..500_000).map(|address| (1, What::StreamInit { kind, address }));
        let execs = std::iter::repeat_n((2, What::Exec), 1_000_000);
        let before = Taken::now().cpu_seconds;
        let limit = |_| Taken { cpu_seconds: before + 2, memory_bytes: u64::MAX };
        let began = Instant::now();
        let (_, outcome) = recorded(trace(opened.chain(execs)), limit).unwrap();
        assert!(outcome.excess.is_some_and(|excess| excess.contains("can be added up")));
        assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
    }

    /// A pipe has no size before it is read: its time grows with what came out of it, also of kinds that are not known.
    #[test]
    fn time_for_what_was_read() {
        let mut file = trace((0..200_000).map(map));
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        let asked = Cell::new(0);
        let limit = |n_bytes| {
            asked.set(n_bytes);
            Taken { cpu_seconds: u64::MAX, memory_bytes: u64::MAX }
        };
        let (_, outcome) = recorded(&bytes[..], limit).unwrap();
        assert_eq!((outcome, asked.get()), (Outcome::default(), bytes.len() as u64));
        // A block of one record that no memtrace knows.
        let unknown = zstd::bulk::compress(&[255, 0, 0, 0, 0], 1).unwrap();
        bytes.truncate(12);
        bytes.extend((unknown.len() as u32).to_le_bytes());
        bytes.extend(crc32fast::hash(&unknown).to_le_bytes());
        bytes.extend(&unknown);
        let nothing = |_| Taken { cpu_seconds: u64::MAX, memory_bytes: 0 };
        let (_, outcome) = recorded(&bytes[..], nothing).unwrap();
        assert_eq!((outcome.n_unknown, outcome.excess.is_some()), (1, true));
    }

    /// What is sound stays far below.
    #[test]
    fn enough_for_a_large_trace() {
        let maps = (0..1_000_000).map(|n| map(n % 1000));
        let (recording, outcome) = recorded(trace(maps), Taken::limit).unwrap();
        assert_eq!(outcome, Outcome::default());
        assert_eq!(recording.ledger.n(memtrace_common::Kind::MMAP), 1_000_000);
    }
}
