//! How a footprint is taken: residency first, then what explains it.
//!
//! In: a pid. Out: a [`Footprint`]. The process goes on meanwhile: what it does between two looks makes a difference, but
//! rows are always of the one moment at which the page tables were read.

use std::{
    fs::File, io, ops::Range, os::unix::fs::FileExt, rc::Rc, sync::mpsc, thread, time::Duration,
};

use super::{
    Kind, PageTables, Resident, ResidentError,
    guarded::Guarded,
    header_rule,
    labels::Labels,
    malloc::{self, Heap},
    mappings::{self, CodeFiles},
    peek,
    rows::{self, Label},
    snapshot::{Contents, Footprint, JavaHeap, RowKind},
    stacks, variables,
};
use crate::{
    jvm::{self, AreaKind, Areas, Collector, Memory, Vm},
    target::{
        self,
        maps::{self, Mapping},
    },
};

/// A process that executes another program meanwhile is looked at again so many times.
const MAX_TRIES: usize = 5;
const NEW_PROGRAM: &str = "it executed another program while it was looked at";
const ENDED: &str =
    "it ended while it was looked at: what had not been read by then is not told apart";
/// Pages of which one should be readable.
const MAX_PROBES: usize = 16;
/// How long a look may take: longer than malloc's heap may be read.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// Threads whose stack pointers are asked for.
const MAX_THREADS: usize = 65_536;
/// How often a thread that runs is asked for its stack pointer.
const MAX_ASKED: usize = 4;
/// User addresses end here (x86-64 with four levels of page tables), but for `[vsyscall]`, which is none of its own.
const END_OF_USER: u64 = 1 << 47;

/// Takes the footprint of process `pid`; `time_ns` is the time that it says.
///
/// # Errors
///
/// Where its map or its page tables can't be read: it has ended, or it is another user's.
pub fn take(pid: u32, time_ns: u64) -> Result<Footprint, ResidentError> {
    take_with(pid, time_ns, Wanted::default())
}

/// What is wanted beside rows and sums.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// What lies in the pages that malloc holds and nobody uses.
    pub contents: bool,
}

/// The same, with what else is wanted.
///
/// # Errors
///
/// As [`take`].
pub fn take_with(pid: u32, time_ns: u64, wanted: Wanted) -> Result<Footprint, ResidentError> {
    // A process may have pages that the kernel fetches for it only when another one lets it (userfaultfd, FUSE): who reads
    // such a page can't be interrupted.
    let (sender, receiver) = mpsc::sync_channel(1);
    let look = move || sender.send(take_now(pid, time_ns, wanted)).ok();
    let spawned = thread::Builder::new().name("footprint".to_owned()).spawn(look);
    let failed = |source| ResidentError::Io { pid, source };
    spawned.map_err(failed)?;
    receiver.recv_timeout(MAX_WAIT).unwrap_or(Err(ResidentError::Late(pid)))
}

fn take_now(pid: u32, time_ns: u64, wanted: Wanted) -> Result<Footprint, ResidentError> {
    let mut n = 1;
    loop {
        let image = target::image(pid);
        let footprint = Look::at(pid).map(|look| look.footprint(wanted));
        let is_new = target::image(pid) != image;
        match footprint {
            Ok(mut footprint) if !is_new || n == MAX_TRIES => {
                footprint.time_ns = time_ns;
                if is_new {
                    footprint.notes.push(NEW_PROGRAM.to_owned());
                }
                if !target::is_alive(pid) {
                    footprint.notes.push(ENDED.to_owned());
                }
                return Ok(footprint);
            }
            // One that is about to execute another program has no memory for a moment.
            Err(error) if n == MAX_TRIES || !target::is_alive(pid) => return Err(error),
            Err(error @ ResidentError::NoPermission(_)) => return Err(error),
            _ => n += 1,
        }
    }
}

/// Everything that is read of a process.
struct Look {
    pid: u32,
    maps: Vec<Mapping>,
    stack_pointers: Vec<u64>,
    tables: PageTables,
    resident: Rc<Resident>,
    kernel_rss_bytes: u64,
    memory: Rc<dyn Memory>,
    notes: Vec<String>,
}

impl Look {
    fn at(pid: u32) -> Result<Self, ResidentError> {
        let mut maps = maps::read(pid).map_err(|source| error_of(pid, source))?;
        maps.retain(|mapping| mapping.end <= END_OF_USER);
        if maps.is_empty() {
            return Err(ResidentError::Gone(pid));
        }
        let stack_pointers = stack_pointers(pid);
        let ranges: Vec<Range<u64>> =
            maps.iter().map(|mapping| mapping.start..mapping.end).collect();
        let tables = PageTables::open(pid)?;
        let resident = Rc::new(tables.read(&ranges)?);
        let kernel_rss_bytes = target::memory(pid).rss_bytes;
        let memory = Rc::new(Guarded::new(pid, &maps, resident.clone()));
        let notes = Vec::new();
        Ok(Self { pid, maps, stack_pointers, tables, resident, kernel_rss_bytes, memory, notes })
    }

    fn footprint(mut self, wanted: Wanted) -> Footprint {
        let areas = self.areas();
        let heap = areas.as_ref().and_then(|areas| areas.heap.clone());
        let malloc = malloc::read(self.pid, &self.maps, &self.resident, &self.tables);
        self.notes.extend(malloc.notes());
        let labels = self.labels(areas.as_ref(), &malloc);
        let z_used = heap.as_ref().filter(|heap| heap.collector == Collector::Z);
        let z_used = z_used.and_then(|heap| heap.used_bytes);
        let rows = rows::sum(&self.resident, &labels, &malloc.parts(), z_used);
        let total = self.resident.total();
        let mut footprint = Footprint {
            rss_bytes: total.resident(),
            swap_bytes: total.swapped,
            hugetlb_bytes: total.hugetlb,
            kernel_rss_bytes: Some(self.kernel_rss_bytes).filter(|&bytes| bytes > 0),
            rows,
            ..Footprint::default()
        };
        footprint.malloc = malloc.summary(&self.resident);
        if wanted.contents {
            footprint.contents = self.contents(&malloc);
        }
        footprint.java_heap = heap.map(|heap| JavaHeap {
            collector: heap.collector.name().to_owned(),
            used_bytes: heap.used_bytes,
            committed_bytes: heap.committed_bytes,
            resident_bytes: footprint.resident(RowKind::JavaHeapUsed)
                + footprint.resident(RowKind::JavaHeapUnused),
        });
        match target::container(self.pid) {
            Ok(container) => footprint.container = container,
            Err(error) => {
                let note = format!("the files of its control group can't be read ({error})");
                self.notes.push(note);
            }
        }
        self.note_unread();
        self.note_unreadable();
        footprint.notes = self.notes;
        footprint
    }

    fn contents(&mut self, malloc: &Heap) -> Option<Contents> {
        let Some(malloc) = malloc.glibc() else {
            self.notes.push("--peek: only glibc's malloc can be looked into".to_owned());
            return None;
        };
        Some(peek::contents(self.pid, &self.maps, &self.resident, &self.tables, malloc))
    }

    /// What is missing where the kernel lets nobody read the process's memory.
    fn note_unreadable(&mut self) {
        let readable = self.maps.iter().filter(|mapping| mapping.access);
        let mut pages = readable
            .flat_map(|mapping| self.resident.runs_in(mapping.start..mapping.end))
            .filter(|run| run.kind == Kind::Anonymous)
            .take(MAX_PROBES)
            .peekable();
        let is_any = pages.peek().is_some();
        if is_any
            && !pages.any(|run| self.memory.u64(run.start).is_ok())
            && target::is_alive(self.pid)
        {
            self.notes.push(
                "its memory can't be read: neither malloc's heap nor the areas of a JVM are told apart"
                    .to_owned(),
            );
        }
    }

    fn note_unread(&mut self) {
        let unread = self.resident.unread_bytes();
        if unread > 0 {
            self.notes.push(format!(
                "{unread} bytes of address space were too large to be looked at page by page: what is resident there is unexplained"
            ));
        }
    }

    /// What the JVM has put where; `None` where there is no JVM, or none that tells.
    fn areas(&mut self) -> Option<Areas> {
        let libjvm = jvm::libjvm(&self.maps)?;
        match Vm::open(self.memory.clone(), libjvm) {
            Ok(mut vm) => {
                let mut areas = vm.areas(&self.maps);
                self.notes.append(&mut areas.notes);
                Some(areas)
            }
            Err(error) => {
                self.notes.push(format!("the JVM's own memory is not told apart: {error}"));
                None
            }
        }
    }

    /// All labels, the surest first.
    fn labels(&self, areas: Option<&Areas>, malloc: &Heap) -> Labels<Label> {
        let mut labels = Labels::new();
        let row = |kind| Label::Row(kind);
        let heap = areas.and_then(|areas| areas.heap.as_ref());
        let is_z = heap.is_some_and(|heap| heap.collector == Collector::Z);
        for mapping in self.maps.iter().filter(|mapping| is_z && is_heap_view(mapping)) {
            let to_offset = mapping.offset.wrapping_sub(mapping.start);
            labels.add(mapping.start..mapping.end, Label::HeapView(to_offset));
        }
        let areas: &[jvm::Area] = areas.map_or(&[], |areas| &areas.areas);
        let (sure, tables): (Vec<_>, Vec<_>) =
            areas.iter().partition(|area| area.kind != AreaKind::Gc);
        sure.into_iter().for_each(|area| labels.add(area.range.clone(), row(row_of(area.kind))));
        let ranges = match malloc {
            Heap::Glibc(malloc, _) => malloc.parts().into_iter().map(|part| part.range).collect(),
            Heap::Other(_) | Heap::Unread => Vec::new(),
            Heap::Unknown => header_rule::heaps(&*self.memory, &self.maps),
        };
        ranges.into_iter().for_each(|range| labels.add(range, Label::Malloc));
        for area in tables {
            labels.add(area.range.clone(), row(row_of(area.kind)));
        }
        let blocks = malloc.glibc().map_or(&[][..], |malloc| &malloc.thread_blocks);
        for stack in stacks::ranges(&self.maps, &self.stack_pointers, blocks) {
            labels.add(stack, row(RowKind::ThreadStacks));
        }
        let code = CodeFiles::of(&self.maps);
        for variables in variables::ranges(&self.maps, &code, |mapping| self.head(mapping)) {
            labels.add(variables, row(RowKind::Library));
        }
        if matches!(malloc, Heap::Unknown | Heap::Unread) {
            self.add_blocks(&mut labels);
        }
        for mapping in &self.maps {
            let range = mapping.start..mapping.end;
            let kind = mappings::row(mapping, &code);
            match (kind, malloc) {
                (Some(kind), _) => labels.add(range, row(kind)),
                // Another allocator's mappings look like anyone's.
                (None, Heap::Other(_) | Heap::Glibc(_, Some(_))) => {
                    labels.add(range, row(RowKind::Allocator));
                }
                (None, Heap::Glibc(..) | Heap::Unknown) if mapping.path == b"[heap]" => {
                    labels.add(range, row(RowKind::Anonymous));
                }
                // It is malloc's, and nobody knows what lies there.
                (None, Heap::Unread) if mapping.path == b"[heap]" => {}
                // What a program maps for itself is its own; a JVM's should be known.
                (None, _) if areas.is_empty() => labels.add(range, row(RowKind::Anonymous)),
                (None, _) => {}
            }
        }
        labels
    }

    /// Blocks that glibc has mapped on their own.
    fn add_blocks(&self, labels: &mut Labels<Label>) {
        for mapping in self.maps.iter().filter(|mapping| mapping.is_anonymous() && mapping.access) {
            for free in labels.free_in(mapping.start..mapping.end) {
                labels.add(header_rule::blocks(&*self.memory, free), Label::Malloc);
            }
        }
    }

    /// The first bytes of a mapped file: from the process's memory where they are resident, else from the file.
    fn head(&self, mapping: &Mapping) -> Option<Vec<u8>> {
        let len = variables::HEAD_BYTES;
        let first = mapping.start..mapping.start + len as u64;
        if self.resident.bytes_in(first.clone()).resident() == len as u64 {
            return self.memory.bytes(mapping.start, len).ok();
        }
        let file: File = target::open_mapped(self.pid, mapping).ok()?;
        let mut bytes = vec![0; len];
        let n = file.read_at(&mut bytes, 0).ok()?;
        bytes.truncate(n);
        Some(bytes)
    }
}

/// The stack pointers of all threads that are off every processor at one of a few moments.
fn stack_pointers(pid: u32) -> Vec<u64> {
    let mut running: Vec<u32> = target::threads(pid).into_iter().take(MAX_THREADS).collect();
    let mut pointers = Vec::new();
    for n in 0..MAX_ASKED {
        if n > 0 && !running.is_empty() {
            thread::sleep(Duration::from_micros(500));
        }
        running.retain(|&tid| {
            let pointer = target::stack_pointer(pid, tid);
            pointers.extend(pointer);
            pointer.is_none()
        });
    }
    pointers
}

fn is_heap_view(mapping: &Mapping) -> bool {
    mapping.path.starts_with(b"/memfd:java_heap")
}

fn row_of(kind: AreaKind) -> RowKind {
    match kind {
        AreaKind::HeapUsed => RowKind::JavaHeapUsed,
        AreaKind::HeapUnused => RowKind::JavaHeapUnused,
        AreaKind::CodeCache => RowKind::CodeCache,
        AreaKind::Cds => RowKind::Cds,
        AreaKind::ClassSpace => RowKind::ClassSpace,
        AreaKind::Metaspace => RowKind::Metaspace,
        AreaKind::ThreadStacks => RowKind::ThreadStacks,
        AreaKind::Gc => RowKind::Gc,
        AreaKind::Other => RowKind::Anonymous,
    }
}

fn error_of(pid: u32, source: io::Error) -> ResidentError {
    match source.raw_os_error() {
        Some(libc::ENOENT | libc::ESRCH) => ResidentError::Gone(pid),
        Some(libc::EPERM | libc::EACCES) => ResidentError::NoPermission(pid),
        _ => ResidentError::Io { pid, source },
    }
}
