//! The fuzz targets' bodies, run for a while on bytes that are the same on every run.
//!
//! What `fuzz/` does without end is done here so often that it takes seconds. What the bodies allocate is counted: their
//! bytes are small, so a claim that is believed shows.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    fs::{self, File},
    io::{Seek, Write},
    path::Path,
    ptr,
};

use memtrace::{
    hostile::{self, Damage},
    jvm::Capture,
    ledger::{Before, Event, NameFrom, Sample, StreamKind, What},
    stacks::{Frame, FrameId, FrameKind, Quality, Stack, StackId},
    trace::{Record, Target, ThreadName, Writer},
};
use memtrace_tests::hprof::{Format, Heap, populate};
use proptest::{
    collection::vec,
    prelude::any,
    strategy::Strategy,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

/// What a body may hold at once: the readers' own bounds for debug information and tables, with room.
const MAX_BYTES: isize = 400 << 20;

/// Counts what each thread holds.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    // A thread that ends frees memory when its variables are gone already.
    HELD.try_with(|held| {
        held.set(held.get() + change);
        MOST.try_with(|most| most.set(most.get().max(held.get()))).ok();
    })
    .ok();
}

// SAFETY: everything is done by the system's allocator; counting takes no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `body` on `n` values of `strategy`, the same ones each time.
fn for_all<S: Strategy>(n: u32, strategy: &S, body: impl Fn(S::Value)) {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let config = Config { cases: n, failure_persistence: None, ..Config::default() };
    let tested = TestRunner::new_with_rng(config, rng).run(strategy, |value| {
        MOST.set(HELD.get());
        let before = HELD.get();
        body(value);
        let most = MOST.get() - before;
        assert!(most < MAX_BYTES, "{most} bytes were allocated at once");
        Ok(())
    });
    if let Err(error) = tested {
        panic!("{error}");
    }
}

/// Few changes as often as many.
fn damage() -> impl Strategy<Value = Vec<u8>> {
    (0_u32..9).prop_flat_map(|log2| vec(any::<u8>(), 0..(16 << log2)))
}

/// The recorded JVMs, and where their libraries begin.
fn captures() -> Vec<(Capture, u64)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/jvm_captures");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut captures: Vec<_> = files
        .filter(|path| path.extension().is_none_or(|end| end != "txt"))
        .map(|path| {
            let text = fs::read_to_string(format!("{}.txt", path.display())).unwrap();
            let start = text.lines().next().unwrap().strip_prefix("libjvm 0x").unwrap();
            let capture = Capture::unpack(&fs::read(&path).unwrap()).unwrap();
            (capture, u64::from_str_radix(start, 16).unwrap())
        })
        .collect();
    captures.sort_by_key(|(_, start)| *start);
    assert!(captures.len() >= 4, "only {} captures", captures.len());
    captures
}

/// A recorded JVM is read whole; then with damage, and with noise for all that was not recorded.
#[test]
fn jvm() {
    let captures = captures();
    for (capture, libjvm) in &captures {
        let n_reads = hostile::jvm(capture.clone(), *libjvm, false);
        assert!(n_reads > 10_000, "the undamaged one took only {n_reads} reads");
    }
    for_all(600, &(0..captures.len(), any::<bool>(), damage()), |(which, is_endless, changes)| {
        let (mut capture, libjvm) = captures[which].clone();
        Damage(&changes).of_capture(&mut capture);
        hostile::jvm(capture, libjvm, is_endless);
    });
}

/// A library that is nothing but noise.
#[test]
fn jvm_of_noise() {
    for_all(100, &(vec(any::<u8>(), 0..4096), any::<u64>()), |(bytes, start)| {
        let mut elf = b"\x7fELF".to_vec();
        elf.extend(bytes);
        hostile::jvm(Capture::of_ranges([(start, elf)]), start, true);
    });
}

/// The recorded heap, and what is known of its process.
fn heap_capture() -> (Capture, Vec<u8>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/heap_captures/glibc-236");
    let capture = Capture::unpack(&fs::read(&path).unwrap()).unwrap();
    (capture, fs::read(path.with_extension("txt")).unwrap())
}

/// A recorded heap is read whole; then with damage to its memory or to its map, and with noise for all that was not
/// recorded.
#[test]
fn heap() {
    let (capture, text) = heap_capture();
    let (n_reads, malloc) = hostile::heap(capture.clone(), &text, false);
    let malloc = malloc.unwrap();
    assert!(n_reads > 100, "the undamaged one took only {n_reads} reads");
    assert_eq!((malloc.arenas.len(), malloc.losses.unknown_bytes), (3, 0), "{malloc:#x?}");
    assert!(malloc.chunks().n_live > 100 && malloc.chunks().n_tcache > 10, "{malloc:#x?}");
    for_all(2000, &(any::<[bool; 2]>(), damage()), |([is_endless, is_text], changes)| {
        let (mut capture, mut text) = (capture.clone(), text.clone());
        if is_text {
            Damage(&changes).of_bytes(&mut text);
        } else {
            Damage(&changes).of_capture(&mut capture);
        }
        hostile::heap(capture, &text, is_endless);
    });
}

/// A heap dump is read whole; then with damage anywhere.
#[test]
fn dump() {
    let mut whole = Vec::new();
    let heap = Heap::new(&mut whole, Format::JDK_17, 8).unwrap();
    let truth = populate(heap, 200).unwrap();
    let n = hostile::dump(&whole);
    assert!((truth.n_objects..truth.n_objects + 16).contains(&n), "{n} of {truth:?}");
    for_all(100, &damage(), |changes| {
        let mut bytes = whole.clone();
        Damage(&changes).of_bytes(&mut bytes);
        hostile::dump(&bytes);
        hostile::dump(&changes);
    });
}

/// Captures come with the tests, but a damaged one is refused, too.
#[test]
fn captures_unpack() {
    let whole = Capture::of_ranges([(0x1000, vec![7; 300]), (0x9000, vec![1; 9])]).pack().unwrap();
    for_all(500, &damage(), |changes| {
        let mut packed = whole.clone();
        Damage(&changes).of_bytes(&mut packed);
        Capture::unpack(&packed).ok();
        Capture::unpack(&changes).ok();
    });
}

fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

/// The machine's C library.
fn libc() -> Vec<u8> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let libc = maps.lines().find(|line| line.contains("/libc.so")).unwrap();
    fs::read(libc.split_ascii_whitespace().last().unwrap()).unwrap()
}

/// The same with damage to headers, symbols, names, linkage or code: the finder of allocators goes by all of these.
#[test]
fn allocators() {
    use object::{Object, ObjectSection, ObjectSymbol};
    let libc = libc();
    let parts = {
        let elf = object::File::parse(&*libc).unwrap();
        let malloc = elf.dynamic_symbols().find(|it| it.name() == Ok("malloc")).unwrap().address();
        let text = elf.section_by_name(".text").unwrap();
        let (start, _) = text.file_range().unwrap();
        let code = (start + malloc - text.address(), 64 << 10);
        let sections = [".dynsym", ".dynstr", ".rela.plt", ".rela.dyn", ".plt", ".dynamic"];
        let sections = sections.iter().filter_map(|name| elf.section_by_name(name)?.file_range());
        let headers = [(0, 4096), (libc.len() as u64 - 4096, 4096)];
        headers.into_iter().chain([code]).chain(sections).collect::<Vec<_>>()
    };
    assert!(parts.len() >= 7, "only {} parts", parts.len());
    assert!(hostile::allocators(&file_of(&libc)) > 8);
    let n_found = Cell::new(0);
    for_all(400, &(0..parts.len(), damage()), |(which, changes)| {
        let (start, len) = (parts[which].0 as usize, parts[which].1 as usize);
        let mut bytes = libc.clone();
        let mut part = bytes[start..start + len].to_vec();
        Damage(&changes).of_bytes(&mut part);
        bytes[start..start + part.len()].copy_from_slice(&part);
        n_found.set(n_found.get() + usize::from(hostile::allocators(&file_of(&bytes)) > 0));
        hostile::allocators(&file_of(&changes));
        bytes.truncate(start + part.len());
        hostile::allocators(&file_of(&bytes));
    });
    // Damage that hides everything would try nothing.
    assert!((50..400).contains(&n_found.get()), "{n_found:?} files had an allocator yet");
}

/// Libraries of the machine with damage anywhere, and only in the unwind information.
#[test]
fn elf() {
    let libc = libc();
    let frames = {
        use object::{Object, ObjectSection};
        let elf = object::File::parse(&*libc).unwrap();
        elf.section_by_name(".eh_frame").unwrap().file_range().unwrap()
    };
    for_all(60, &(any::<bool>(), damage()), |(is_anywhere, changes)| {
        let mut bytes = libc.clone();
        if is_anywhere {
            // The headers are small: most changes would miss them.
            let mut head = bytes[..4096].to_vec();
            Damage(&changes).of_bytes(&mut head);
            bytes[..head.len()].copy_from_slice(&head);
        } else {
            let start = frames.0 as usize;
            let mut unwind = bytes[start..start + frames.1 as usize].to_vec();
            Damage(&changes).of_bytes(&mut unwind);
            bytes[start..start + unwind.len()].copy_from_slice(&unwind);
        }
        hostile::elf(&file_of(&bytes));
        hostile::elf(&file_of(&changes));
    });
}

/// Records as a trace has them: names of any kind, memory that comes, goes and is inherited, streams.
fn records() -> Vec<Record> {
    let frame = |name: &str| {
        let source = Some(("A;b.java".into(), Some(7)));
        Record::Frame(Frame { name: name.into(), kind: FrameKind::Native, guess: false, source })
    };
    let event =
        |tgid, what| Record::Event(Event { time_ns: 9, tgid, tid: tgid, stack: StackId(0), what });
    let before = Before { start: 0x4000, end: 0x9000, access: true, is_brk: false, read_ns: 0 };
    let name = b"x\xff;\n\x1b[31m".to_vec();
    vec![
        Record::Target(Target { pid: 1, command: vec!["java".into()], allocator: None, jvm: None }),
        frame("mmap"),
        frame("\u{1b}[31m;main\u{202e}"),
        Record::Stack(Stack { frames: vec![FrameId(0), FrameId(1)], quality: Quality::Complete }),
        Record::Before((1, before)),
        Record::ThreadName(ThreadName { tgid: 1, tid: 1, name, from: NameFrom::Comm }),
        event(1, What::Mmap { addr: 0x8000, len: 0x8000, access: true }),
        event(1, What::Mprotect { addr: 0x9000, len: 0x1000, access: false, pkey: false }),
        event(1, What::Brk { to: 0x20_0000 }),
        event(1, What::StreamInit { kind: StreamKind::Inflater, address: 77 }),
        event(1, What::Munmap { addr: 0x8000, len: 0x3000 }),
        event(1, What::Exit { ended: true, code: 256 }),
        Record::Sample(Sample { time_ns: 10, rss_bytes: 5, swap_bytes: 6 }),
        Record::Losses(vec![("ring_full".into(), 3)]),
        Record::Note("a note\u{7}".into()),
    ]
}

/// A trace with damage to the file, or to its records under checksums that are right.
#[test]
fn trace() {
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, u64::MAX).unwrap();
    for record in records() {
        writer.write(&record).unwrap();
    }
    writer.flush().unwrap();
    drop(writer);
    let block = zstd::bulk::decompress(&file[20..], 1 << 20).unwrap();
    hostile::trace(&file);
    for_all(1000, &damage(), |changes| {
        let mut damaged = file.clone();
        Damage(&changes).of_bytes(&mut damaged);
        hostile::trace(&damaged);
        let mut damaged = block.clone();
        Damage(&changes).of_bytes(&mut damaged);
        hostile::records(&damaged);
        hostile::records(&changes);
    });
}

/// Maps and thread dumps with damage, and text of any kind.
#[test]
fn text() {
    let map =
        b"7f00-7f10 r-xp 00001000 08:01 42  /lib/x\\012y.so (deleted)\n7f20-7f30 ---p 0 0:0 0\n";
    let dump = b"\"main\" #1 prio=5 os_prio=0 tid=0x7 nid=0x1f3a waiting on condition [0x7f]\n\tat A.b(A.java:1)\n\n\"a\\\"b;\x1b[31m\" #9 [77] daemon prio=5 nid=77 runnable\n";
    let both = [&map[..], &dump[..]];
    for_all(4000, &(0..both.len(), damage(), any::<String>()), |(which, changes, any)| {
        let mut bytes = both[which].to_vec();
        hostile::text(&bytes);
        Damage(&changes).of_bytes(&mut bytes);
        hostile::text(&bytes);
        hostile::text(&changes);
        hostile::text(any.as_bytes());
    });
}

/// Pages with damage: class files, members of zip files, text.
#[test]
fn pages() {
    let class =
        [&[0xca, 0xfe, 0xba, 0xbe, 0, 0, 0, 61][..], &b"\x01\0\x04Code\x07\0\x09".repeat(400)]
            .concat();
    let zip = b"PK\x03\x04\x14\0\0\0\x08\0................\x08\0\0\0a/b.text".repeat(100);
    let text = b"a line with \x1b[31m and \xe2\x80\xae in it\n".repeat(100);
    let pages = [class, zip, text];
    for_all(2000, &(0..pages.len(), damage()), |(which, changes)| {
        let mut bytes = pages[which].clone();
        Damage(&changes).of_bytes(&mut bytes);
        hostile::text(&bytes);
    });
}

/// The counter of what is allocated does count.
#[test]
fn allocations_are_counted() {
    MOST.set(HELD.get());
    let before = HELD.get();
    let large = vec![1_u8; 10 << 20];
    assert!(!ptr::addr_eq(large.as_ptr(), ptr::null::<u8>()));
    drop(large);
    assert_eq!(HELD.get(), before);
    assert!(MOST.get() - before >= 10 << 20);
}
