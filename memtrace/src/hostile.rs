//! What reads bytes of the target's or of anyone's, given any bytes: one entry for each kind.
//!
//! In: bytes from a fuzzer, or damaged ones from a test. Out: nothing. What must hold is asserted here, so that fuzzing
//! (`fuzz/`) and the bounded run of CI (`tests/hostile.rs`) prove the same: no panic, and an end after a number of steps
//! that does not depend on what the bytes claim. What is allocated the caller sees.

use std::{
    cell::{Cell, RefCell},
    fs::File,
    ops::ControlFlow,
    os::fd::AsRawFd,
    path::PathBuf,
    rc::Rc,
    time::Duration,
};

use rustc_hash::FxHashMap;

use crate::{
    footprint::{
        self, Kind, Resident, Run,
        glibc::{LibcFile, Malloc, Process},
    },
    heap::{self, Analysis, Histogram},
    jvm::{
        Capture, FrameKey, InterpreterRegisters, JavaCode, JvmThread, Memory, NoStep, Registers,
        Unreadable, Vm, thread_dump,
    },
    ledger::Metric,
    probes::Probes,
    report::{escape, flamegraph, folded, heap as heap_text, json, text_by},
    stacks,
    target::{Library, elf_parts, maps},
    trace::{self, Recording},
};

/// Reads of a JVM's memory that reading all of it may take: its largest tables, several times over.
const MAX_READS: u64 = 40_000_000;
/// Threads whose stacks are walked, and frames of each.
const MAX_WALKS: usize = 64;
const MAX_FRAMES: usize = 1024;
/// Places of an ELF file that are looked at.
const MAX_PLACES: usize = 512;
/// Functions of a file's allocators that are probed, and bytes of a function up to its probe.
const MAX_FUNCTIONS: usize = 128;
const MAX_FUNCTION_BYTES: u64 = 16 << 10;
/// How long a heap is looked at.
const MAX_HEAP_TIME: Duration = Duration::from_secs(5);
/// Objects of a heap dump that are looked at one by one.
const MAX_OBJECTS: usize = 8;
/// Records of a trace that are applied: what they come to is for `memtrace report` to limit.
const MAX_RECORDS: u64 = 10_000;

/// Bytes that say how other bytes are damaged: eight for each change.
#[derive(Clone, Copy, Debug)]
pub struct Damage<'a>(pub &'a [u8]);

impl Damage<'_> {
    /// The changes of something that is `len` bytes long: where, and what stands there then.
    fn changes(self, len: usize) -> impl Iterator<Item = (usize, [u8; 8], usize)> {
        self.0.chunks_exact(8).filter(move |_| len > 0).map(move |chunk| {
            let number = u64::from_le_bytes([
                chunk[0], chunk[1], chunk[2], chunk[3], chunk[4], chunk[5], chunk[6], chunk[7],
            ]);
            let at = (number >> 16) as usize % len;
            let value = match number % 5 {
                0 => [0; 8],
                1 => [0xff; 8],
                2 => (number >> 8).to_le_bytes(),
                // Something small: a count, a length, an offset.
                3 => (number >> 8 & 0xfff).to_le_bytes(),
                _ => [(number >> 8) as u8; 8],
            };
            (at, value, [1, 1, 2, 4, 8][(number >> 3) as usize % 5].min(len - at))
        })
    }

    /// `bytes` with these changes; one change in sixteen cuts them off.
    pub fn of_bytes(self, bytes: &mut Vec<u8>) {
        let len = bytes.len();
        for (at, value, n) in self.changes(len) {
            if let Some(place) = bytes.get_mut(at..at + n) {
                place.copy_from_slice(&value[..n]);
            }
            if value[0] & 0xf0 == 0x40 && value[1] & 1 == 1 {
                bytes.truncate(at);
            }
        }
    }

    /// `capture` with these changes. Words may also lead to another place of it.
    pub fn of_capture(self, capture: &mut Capture) {
        let ranges: Vec<(u64, usize)> =
            capture.ranges().map(|(at, bytes)| (at, bytes.len())).collect();
        let len = ranges.iter().map(|(_, len)| len).sum();
        let place = |mut at: usize| {
            ranges.iter().find_map(|&(start, len)| {
                let found = (at < len).then(|| start + at as u64);
                at = at.saturating_sub(len);
                found
            })
        };
        for (at, value, n) in self.changes(len) {
            let Some(address) = place(at) else { continue };
            let leads = value[0] & 3 == 3;
            let elsewhere = place(at.wrapping_mul(31) % len).unwrap_or_default().to_le_bytes();
            let bytes = if leads { &elsewhere[..] } else { &value[..n] };
            capture.insert(address, bytes);
        }
    }
}

/// The memory of a JVM that is damaged, or none at all.
#[derive(Debug)]
struct Hostile {
    capture: Capture,
    /// Whether what was not captured is noise; else it can't be read.
    is_endless: bool,
    n_reads: Cell<u64>,
    last: RefCell<Vec<u64>>,
}

impl Memory for Hostile {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        self.n_reads.set(self.n_reads.get() + 1);
        if self.n_reads.get() > MAX_READS - 20 {
            self.last.borrow_mut().push(address);
            assert!(self.n_reads.get() < MAX_READS, "no end: {:x?}", self.last.borrow());
        }
        let known = self.capture.read(address, bytes);
        if known.is_ok() || !self.is_endless {
            return known;
        }
        for (at, byte) in (address..).zip(bytes) {
            *byte = (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
        }
        Ok(())
    }
}

/// Reads tables, flags, threads and code of a JVM, and walks every stack; tells how many reads that took.
///
/// With `is_endless` every address can be read: what the capture lacks is noise.
pub fn jvm(capture: Capture, libjvm: u64, is_endless: bool) -> u64 {
    let (n_reads, last) = (Cell::new(0), RefCell::default());
    let memory = Rc::new(Hostile { capture, is_endless, n_reads, last });
    read_jvm(&memory, libjvm);
    memory.n_reads.get()
}

/// Errors are as good as results: the memory is damaged.
fn read_jvm(memory: &Rc<Hostile>, libjvm: u64) -> Option<()> {
    let mut vm = Vm::open(memory.clone(), libjvm).ok()?;
    vm.flag("UseCompressedOops");
    vm.flag_number("ReservedCodeCacheSize");
    let threads = vm.java_threads().unwrap_or_default();
    let unnamed: FxHashMap<u32, Vec<u8>> =
        threads.iter().take(8).map(|thread| (thread.nid ^ 1, b"VM Thread".to_vec())).collect();
    vm.vm_threads(&unnamed);
    let mut code = JavaCode::new(&vm).ok()?;
    for now_ns in [1, 2] {
        code.observe(now_ns).ok();
        for thread in threads.iter().take(MAX_WALKS) {
            walk(&vm, &mut code, &**memory, thread, now_ns);
        }
    }
    Some(())
}

fn walk(vm: &Vm, code: &mut JavaCode, memory: &dyn Memory, thread: &JvmThread, now_ns: u64) {
    let words = |address: u64| memory.u64(address).ok();
    let mut next = code.last_java_frame(vm, thread);
    for n in 0..MAX_FRAMES {
        let Some(at) = next else { return };
        // Every eighth as if it was interrupted there.
        let stepped = if n % 8 == 7 {
            let registers = InterpreterRegisters { rbx: at.fp, r13: at.sp };
            code.step_interrupted(at, registers, now_ns, &words)
        } else {
            code.step(at, now_ns, &words)
        };
        let step = match stepped {
            Ok(step) => step,
            Err(NoStep::Unknown | NoStep::Uncopied(_) | NoStep::Implausible) => return,
        };
        assert!(step.caller.sp > at.sp, "a stack is left upwards: {at:x?} {step:x?}");
        code.frames(step.frame);
        let _ = (code.label(step.frame), code.tier(step.frame));
        next = match step.frame {
            FrameKey::Entry => code.before_entry(at.fp, &words),
            _ => Some(Registers { ..step.caller }),
        };
    }
}

/// Reads the heap of a process of which `text` tells: lines `start_brk ADDRESS`, `thread ID` and `resident START-END`,
/// and its map. Tells how many reads that took, and what was found.
pub fn heap(capture: Capture, text: &[u8], is_endless: bool) -> (u64, Option<Malloc>) {
    let (n_reads, last) = (Cell::new(0), RefCell::default());
    let memory = Hostile { capture, is_endless, n_reads, last };
    let maps = maps::parse(text);
    let text = String::from_utf8_lossy(text);
    let said = |key: &'static str| text.lines().filter_map(move |line| line.strip_prefix(key));
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let range =
        |text: &str| text.split_once('-').and_then(|(start, end)| Some((hex(start)?, hex(end)?)));
    let run = |(start, end)| Run { start, end, kind: Kind::Anonymous };
    let runs: Vec<Run> = said("resident ").filter_map(range).map(run).collect();
    let resident = Resident::of_runs(&runs);
    let tids: Vec<(u32, u32)> =
        said("thread ").filter_map(|tid| tid.parse().ok()).map(|tid| (tid, tid)).collect();
    let malloc = Malloc::read(&Process {
        memory: &memory,
        maps: &maps,
        resident: &resident,
        pages: &resident,
        tids: &tids,
        start_brk: said("start_brk ").find_map(hex),
        libc: &LibcFile::default(),
        allocator: None,
        max_time: MAX_HEAP_TIME,
    });
    if let Ok(malloc) = &malloc {
        assert_adds_up(malloc, &resident);
    }
    (memory.n_reads.get(), malloc.ok())
}

/// Whatever a heap holds, no byte counts twice, and every resident one counts.
fn assert_adds_up(malloc: &Malloc, resident: &Resident) {
    let parts = malloc.parts();
    for part in &parts {
        let there = resident.bytes_in(part.range.clone()).resident();
        assert_eq!(part.resident.total(), there, "{part:x?}");
    }
    for pair in parts.windows(2) {
        assert!(pair[0].range.end <= pair[1].range.start, "{pair:x?}");
    }
    let chunks: u64 = malloc.arenas.iter().map(|arena| arena.chunks.n_live).sum();
    assert!(chunks <= parts.iter().map(|part| part.range.end - part.range.start).sum::<u64>() / 32);
}

/// Reads a heap dump with every view. Returns how many objects were found, 0 where it is no dump.
pub fn dump(bytes: &[u8]) -> u64 {
    let (Ok(histogram), Ok(all)) = (Histogram::read(bytes), Analysis::read(bytes)) else {
        return 0;
    };
    let sum: u64 = histogram.rows.iter().map(|row| row.n).sum();
    assert_eq!(sum, all.totals.n_objects);
    for (row, with_retained) in histogram.rows.iter().zip(&all.histogram) {
        assert_eq!((&row.class, row.n), (&with_retained.class, with_retained.n));
        let unreached = all.totals.unreached.map_or(0, |it| it.bytes);
        let retained = with_retained.retained_bytes.unwrap_or_default();
        assert!(retained.saturating_add(unreached) >= row.shallow_bytes, "{with_retained:?}");
    }
    assert!(all.totals.unreached.is_some_and(|it| it.n <= all.totals.n_objects));
    let dominators = all.dominators.as_deref().expect("there is room for them");
    for dominator in dominators {
        assert!(dominator.shallow_bytes <= dominator.retained_bytes, "{dominator:?}");
    }
    let found = heap::threads(bytes).and_then(|_| {
        heap::paths(bytes, None, |class| class.len().is_multiple_of(2))?;
        dominators.iter().take(MAX_OBJECTS).try_for_each(|dominator| {
            heap::paths(bytes, Some(dominator.id), |_| false)?;
            heap::object(bytes, dominator.id, false).map(|_| ())
        })
    });
    assert!(found.is_ok(), "one view knows the dump, another one not: {found:?}");
    let mut out = Vec::new();
    json::write_heap(&all, &mut out).expect("memory can be written");
    heap_text::write_text(&all, &mut out).expect("memory can be written");
    sum
}

/// Looks through an ELF file as walk and names do: what is needed of it is read, then rules and names are looked up.
pub fn elf(file: &File) {
    for parts in [elf_parts::Parts::UnwindInformation, elf_parts::Parts::Code] {
        let Ok(bytes) = elf_parts::read(file, parts) else { continue };
        // Everywhere in the file, and where bytes of it lead.
        let step = (bytes.len() / MAX_PLACES).max(1);
        let led = bytes.chunks_exact(8).step_by(step.div_ceil(8)).map(|chunk| {
            chunk.iter().rev().fold(0, |address, &byte| address << 8 | u64::from(byte))
        });
        let places = (0..bytes.len() as u64).step_by(step).chain(led).take(2 * MAX_PLACES);
        stacks::look_through(&bytes, places);
    }
}

/// Looks for allocators in a file with code, as is done before a process is probed; tells how many functions there are.
pub fn allocators(file: &File) -> usize {
    let link = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let library = Library::open(&link).expect("an open file can be opened once more");
    let Ok(functions) = Probes::allocator_functions(&library) else { return 0 };
    assert!(functions.len() <= MAX_FUNCTIONS, "{} functions", functions.len());
    for function in &functions {
        assert!(function.offset < MAX_FUNCTION_BYTES, "{function:?}");
        assert_printable(&function.name);
    }
    functions.len()
}

/// Reads a file as a trace and writes every form of report.
pub fn trace(file: &[u8]) {
    let mut recording = Recording::default();
    let mut n_records = 0;
    let outcome = trace::read(
        file,
        || ControlFlow::Continue(()),
        |record| {
            recording.apply(record);
            n_records += 1;
            let is_enough = n_records >= MAX_RECORDS;
            if is_enough {
                ControlFlow::Break("too much".into())
            } else {
                ControlFlow::Continue(())
            }
        },
    );
    if outcome.is_ok() {
        report(&recording);
    }
}

/// Reads `records` as the content of a trace file whose checksums are right.
pub fn records(records: &[u8]) {
    let mut file = trace::header().to_vec();
    let Ok(packed) = zstd::bulk::compress(records, 1) else { return };
    file.extend((packed.len() as u32).to_le_bytes());
    file.extend(crc32fast::hash(&packed).to_le_bytes());
    file.extend(packed);
    trace(&file);
}

fn report(recording: &Recording) {
    let mut folded = Vec::new();
    for metric in [Metric::Mapped, Metric::InflatersLive] {
        let _ = text_by(recording, metric, true);
        folded::write(recording, metric, &mut folded).expect("memory takes every write");
        // A recording without stacks of a metric has no flame graph.
        flamegraph::write(recording, metric, &mut Vec::new()).ok();
    }
    assert_printable(&String::from_utf8(folded).expect("folded stacks are text"));
    let mut written = Vec::new();
    json::write(recording, &mut written).expect("memory takes every write");
    serde_json::from_slice::<serde_json::Value>(&written).expect("the report is JSON");
}

/// Reads text that the kernel or a JVM writes with names of anyone's in it, and makes the names fit to print.
pub fn text(bytes: &[u8]) {
    for mapping in maps::parse(bytes) {
        assert!(mapping.start < mapping.end, "{mapping:x?}");
        mapping.file_name();
    }
    let text = escape::decode(bytes);
    for thread in thread_dump::parse(&text) {
        assert_printable(&escape::line(&thread.name));
        assert_printable(&escape::frame(&thread.name));
    }
    let frame = escape::frame(&text);
    assert!(!frame.contains(';'), "{frame:?}");
    assert_printable(&frame);
    assert_printable(&escape::line(&text));
    page(bytes);
}

/// Says what a page of the target's holds.
fn page(bytes: &[u8]) {
    let page = footprint::classify(bytes, |address| address % 3 == 0);
    let sample = page.sample.unwrap_or_default();
    // Each character may have become the six or more of its escape.
    assert!(sample.chars().count() <= 320, "{sample:?}");
    assert_printable(&escape::line(&sample));
}

/// Nothing in it acts on a terminal; lines may end.
fn assert_printable(text: &str) {
    let is_bad = |c: char| c.is_control() && c != '\n' || matches!(c, '\u{202a}'..='\u{202e}');
    assert!(!text.contains(is_bad), "{text:?}");
}
