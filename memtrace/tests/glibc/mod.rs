//! Fixture programs with a heap in some shape, looked at from outside.

mod corrupt;
mod live;
mod others;
mod recording;
mod size;
mod versions;

use std::{
    fs,
    ops::Range,
    process::Command,
    time::{Duration, Instant},
};

use memtrace::{
    footprint::{
        PageTables, Resident,
        glibc::{Arena, Malloc, NoMalloc},
    },
    target::maps,
};
use memtrace_tests::{said::Said, subject::Subject};

/// What `malloc_trim(0)` may differ by from what was predicted.
const MAX_TRIM_ERROR: u64 = 64 << 10;

/// Every shape that the fixture makes, and a tunable that it is run with.
pub(crate) const SHAPES: &[(&str, &str)] = &[
    ("little", ""),
    ("burst", ""),
    ("top", ""),
    ("burst_threads", ""),
    ("pinned", ""),
    ("every_second_small", ""),
    ("every_second_large", ""),
    ("threads32", ""),
    ("mixed", ""),
    ("caches", ""),
    ("fast_main", ""),
    ("fast_top", ""),
    ("fast_pinned", ""),
    ("tops", ""),
    ("mmapped", ""),
    ("mmapped_behind", ""),
    ("foreign", ""),
    ("foreign_last", ""),
    ("sizes", ""),
    ("nothing", ""),
    ("top", "glibc.malloc.hugetlb=1"),
    ("foreign", "glibc.malloc.hugetlb=1"),
    ("mixed", "glibc.malloc.arena_max=1"),
];

/// A fixture whose heap has its shape, and that is stopped.
pub(crate) struct Shaped {
    subject: Subject,
    pub(crate) said: Said,
}

impl Shaped {
    /// Starts `program`, which takes the shape as its last argument.
    pub(crate) fn start(program: &mut Command, (shape, tunable): &(&str, &str)) -> Self {
        program.arg(shape).arg("--wait").env("GLIBC_TUNABLES", tunable);
        let mut subject = Subject::start(program);
        let said = subject.finish();
        subject.signal(libc::SIGSTOP);
        Self { subject, said }
    }

    pub(crate) fn scan(&self) -> Scan {
        Scan::of(self.subject.pid())
    }

    /// Lets it trim, and returns by how much its anonymous memory fell.
    pub(crate) fn trim(&mut self) -> u64 {
        self.subject.signal(libc::SIGCONT);
        let said = self.subject.finish();
        said.text("dropped").parse::<i64>().unwrap().max(0).cast_unsigned()
    }
}

/// One look at a process.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) malloc: Malloc,
    pub(crate) resident: Resident,
    pub(crate) took: Duration,
}

impl Scan {
    pub(crate) fn of(pid: u32) -> Self {
        Self::try_of(pid).unwrap()
    }

    pub(crate) fn try_of(pid: u32) -> Result<Self, NoMalloc> {
        let begun = Instant::now();
        let maps = maps::read(pid).unwrap();
        let tables = PageTables::open(pid).unwrap();
        let resident = tables.read(&ranges(&maps)).unwrap();
        let malloc = Malloc::of(pid, &maps, &resident, &tables)?;
        Ok(Self { malloc, resident, took: begun.elapsed() })
    }
}

/// How long a heap may be looked at.
pub(crate) const MAX_TIME: Duration = Duration::from_secs(20);

/// All that is mapped.
pub(crate) fn ranges(maps: &[maps::Mapping]) -> Vec<Range<u64>> {
    maps.iter().map(|mapping| mapping.start..mapping.end).collect()
}

/// A field of `/proc/PID/smaps_rollup` in bytes.
pub(crate) fn rollup(pid: u32, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_ascii_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

/// What was read is what malloc itself counts, and everything adds up; else what does not.
pub(crate) fn check_sums(scan: &Scan, said: &Said) -> Result<(), String> {
    let malloc = &scan.malloc;
    let sum = |of: &dyn Fn(&Arena) -> u64| malloc.arenas.iter().map(of).sum::<u64>();
    let rows = [
        ("system", sum(&|arena| arena.system_bytes)),
        ("in_use", sum(&|arena| arena.in_use_as_mallinfo())),
        ("free", sum(&|arena| arena.free_as_mallinfo())),
        ("fast", malloc.chunks().fastbin_bytes),
        ("mmapped", malloc.mmapped_bytes()),
        ("n_mmapped", malloc.mmapped.len() as u64),
    ];
    for (key, seen) in rows {
        same(key, seen, said.number(key))?;
    }
    for arena in &malloc.arenas {
        // What others have before its first chunk and behind the top is none of malloc's business.
        let behind = arena.heaps.iter().filter(|heap| arena.is_main && heap.top.is_some());
        let behind: u64 =
            behind.map(|heap| heap.range.end - arena.top - heap.chunks.top_bytes).sum();
        let base = malloc.settings.filter(|_| arena.is_main).map(|settings| settings.sbrk_base);
        let before = base.map_or(0, |base| base - arena.heaps[0].range.start);
        let walked = arena.chunks.total_bytes() - behind - before;
        same("all chunks of an arena", walked, arena.system_bytes)?;
    }
    for part in malloc.parts() {
        let resident = scan.resident.bytes_in(part.range.clone()).resident();
        same("resident bytes of a part", part.resident.total(), resident)?;
    }
    let parts: u64 = malloc.parts().iter().map(|part| part.resident.total()).sum();
    same("resident bytes of all parts", parts, malloc.resident().total())
}

/// What a shape was made to have is where it belongs.
fn check_classes((shape, _): &(&str, &str), scan: &Scan) -> Result<(), String> {
    let (chunks, resident) = (scan.malloc.chunks(), scan.malloc.resident());
    // In eight threads seven blocks of each of 64 sizes; each thread has a few of its own beside them.
    let cached = 8 * 7 * (0..64).map(|n| 0x20 + 16 * n).sum::<u64>();
    let has_fastbins = scan.malloc.layout != "2.43";
    // (shape, what, bytes, at least, at most)
    let rows = [
        ("caches", "cached", chunks.tcache_bytes, cached, cached + (32 << 10)),
        ("tops", "kept", resident.kept, 60 << 20, 70 << 20),
        ("fast_top", "kept", resident.kept, if has_fastbins { 25 << 20 } else { 0 }, 30 << 20),
        ("foreign", "foreign", chunks.foreign_bytes, 300_000 + 12_336, 330_000),
        ("every_second_small", "fragments", resident.fragments, 50_400_000, 50_500_000),
    ];
    let is_wrong =
        |row: &&(&str, &str, u64, u64, u64)| row.0 == *shape && !(row.3..=row.4).contains(&row.2);
    match rows.iter().find(is_wrong) {
        Some((_, what, bytes, from, to)) => {
            Err(format!("{what}: {bytes}, should be {from} to {to}"))
        }
        None => Ok(()),
    }
}

fn same(what: &str, seen: u64, want: u64) -> Result<(), String> {
    if seen == want { Ok(()) } else { Err(format!("{what}: {seen}, should be {want}")) }
}

/// What is wrong with what was read of `program` in this shape.
pub(crate) fn check(program: &mut Command, shape: &(&str, &str)) -> Option<String> {
    let mut shaped = Shaped::start(program, shape);
    let scan = shaped.scan();
    let summed = check_sums(&scan, &shaped.said).and_then(|()| check_classes(shape, &scan));
    let (predicted, returned) = (scan.malloc.trim_returns_bytes(), shaped.trim());
    let is_predicted = predicted.abs_diff(returned) <= MAX_TRIM_ERROR;
    eprintln!(
        "{shape:?}: predicted {predicted} returned {returned}, {:?}, {:?}",
        scan.took, scan.malloc.losses
    );
    let summed = match summed {
        Ok(()) if is_predicted => return None,
        Ok(()) => "the sums are right".to_owned(),
        Err(error) => error,
    };
    Some(format!(
        "{shape:?}: predicted {predicted}, returned {returned}; {summed}: {:#x?}",
        scan.malloc
    ))
}
