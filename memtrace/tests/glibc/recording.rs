//! Recording a heap, for those who read damaged ones: `tests/heap_captures`.

use std::{env, fmt::Write, fs, path::Path, process::Command};

use memtrace::{
    footprint::{
        Kind, PageTables,
        glibc::{LibcFile, Malloc, Process},
    },
    jvm::{LiveMemory, Recorder},
    target::{self, maps},
};
use memtrace_tests::fixtures::built;

use super::{MAX_TIME, Shaped, ranges};

/// Where a new recording goes.
const TO: &str = "MEMTRACE_RECORD_HEAP";

/// Everything that reading a small heap needs can be recorded, and what is read of the recording is the same.
#[test]
fn records() {
    let shaped = Shaped::start(&mut Command::new(built("heap_shapes")), &("little", ""));
    let pid = shaped.subject.pid();
    let maps = maps::read(pid).unwrap();
    let resident = PageTables::open(pid).unwrap().read(&ranges(&maps)).unwrap();
    let tids: Vec<(u32, u32)> = target::threads(pid).into_iter().map(|tid| (tid, tid)).collect();
    let memory = Recorder::new(LiveMemory::new(pid));
    let malloc = Malloc::read(&Process {
        memory: &memory,
        maps: &maps,
        resident: &resident,
        pages: &resident,
        tids: &tids,
        start_brk: target::start_brk(pid),
        libc: &LibcFile::default(),
        allocator: None,
        max_time: MAX_TIME,
    })
    .unwrap();
    let mut text = format!("start_brk {:x}\n", target::start_brk(pid).unwrap());
    tids.iter().for_each(|(tid, _)| writeln!(text, "thread {tid}").unwrap());
    // Pages of files hold nothing of malloc's.
    for run in resident.runs_in(0..u64::MAX).filter(|run| run.kind == Kind::Anonymous) {
        writeln!(text, "resident {:x}-{:x}", run.start, run.end).unwrap();
    }
    for line in fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().lines() {
        // Where the files lie is nobody's business.
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let file = words.get(5).and_then(|path| path.rsplit('/').next()).unwrap_or_default();
        writeln!(text, "{} {file}", words[..5].join(" ")).unwrap();
    }
    let (_, replayed) = memtrace::hostile::heap(memory.capture(), text.as_bytes(), false);
    let replayed = replayed.unwrap();
    assert_eq!(replayed.parts(), malloc.parts());
    assert_eq!(replayed.chunks(), malloc.chunks());
    if let Some(to) = env::var_os(TO) {
        fs::write(&to, memory.capture().pack().unwrap()).unwrap();
        fs::write(Path::new(&to).with_extension("txt"), text).unwrap();
    }
}
