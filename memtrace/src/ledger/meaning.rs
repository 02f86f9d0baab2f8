//! What a call means: from the numbers that the kernel side saw to what the ledger is told, and when it took effect.

use memtrace_common::{EventHeader, Kind};
use rustc_hash::FxHashMap;

use super::event::{Allocation, Freeing, StreamKind, What};

const PAGE: u64 = 4096;
const PROT_ANY: u64 = 7;
const MAP_HUGETLB: u64 = 0x4_0000;
const MAP_HUGE_SHIFT: u64 = 26;
const DEFAULT_HUGE_PAGE: u64 = 2 << 20;
const MREMAP_DONTUNMAP: u64 = 4;

/// What a call means, with the time at which it took effect; a move has two parts.
pub type Steps = [Option<(u64, What)>; 2];

/// Interprets calls. It remembers where the break of each process is, to tell up from down.
#[derive(Debug, Default)]
pub struct Meaning {
    breaks: FxHashMap<u32, u64>,
}

impl Meaning {
    /// What `header`, a call of `kind`, means; nothing for what is about names alone.
    pub fn of(&mut self, header: &EventHeader, kind: Kind) -> Steps {
        let [a0, a1, a2, a3, _] = header.args;
        let (enter, exit, result) = (header.enter_ns, header.exit_ns, header.result);
        let one = |time_ns, what| [Some((time_ns, what)), None];
        match kind {
            Kind::MMAP => {
                let len = round(a1, huge_page(a3));
                one(exit, What::Mmap { addr: result, len, access: a2 & PROT_ANY != 0 })
            }
            Kind::MUNMAP => one(enter, What::Munmap { addr: a0, len: round(a1, PAGE) }),
            Kind::MREMAP => remap(header),
            Kind::MPROTECT | Kind::PKEY_MPROTECT => {
                let access = a2 & PROT_ANY != 0;
                let pkey = kind == Kind::PKEY_MPROTECT;
                let what = What::Mprotect { addr: a0, len: round(a1, PAGE), access, pkey };
                one(if access { exit } else { enter }, what)
            }
            Kind::BRK => {
                let is_down =
                    self.breaks.insert(header.tgid, result).is_some_and(|before| result < before);
                one(if is_down { enter } else { exit }, What::Brk { to: result })
            }
            Kind::MADVISE => {
                one(enter, What::Madvise { addr: a0, len: round(a1, PAGE), advice: a2 as u32 })
            }
            Kind::PROCESS_MADVISE => {
                one(enter, What::ProcessMadvise { len: result, advice: a3 as u32 })
            }
            Kind::SHMAT => one(exit, What::Shmat { addr: result, len: 0 }),
            Kind::SHMDT => one(enter, What::Shmdt { addr: a0 }),
            Kind::THREAD_START => one(enter, What::ThreadStart { tid: a0 as u32 }),
            Kind::FORK => {
                if let Some(&at) = self.breaks.get(&header.tgid) {
                    self.breaks.insert(a0 as u32, at);
                }
                one(enter, What::Fork { child: a0 as u32, followed: a1 != 0 })
            }
            Kind::EXEC => {
                self.breaks.remove(&header.tgid);
                one(enter, What::Exec)
            }
            Kind::EXIT => {
                if a0 != 0 {
                    self.breaks.remove(&header.tgid);
                }
                let leaves = (a0 == 0 && a2 == 0).then_some((enter, What::Leaves));
                [leaves, Some((enter, What::Exit { ended: a0 != 0, code: a1 as u32 }))]
            }
            Kind::PAGE_FAULT => one(enter, What::PageFault { addr: a0 }),
            Kind::REALLOC_FROM => one(enter, What::Free { addr: a0, by: Freeing::Realloc }),
            Kind::TALLY => one(enter, What::Tally { blocks: a0, bytes: a1, given_back: a2 }),
            _ if kind.is_malloc() => block(header, kind),
            _ => stream(header, kind).map_or([None, None], |(time_ns, what)| one(time_ns, what)),
        }
    }
}

fn remap(header: &EventHeader) -> Steps {
    let [old, old_len, new_len, flags, _] = header.args;
    let (old_len, new_len) = (round(old_len, PAGE), round(new_len, PAGE));
    let to = What::MremapTo { addr: header.result, len: new_len };
    if old_len == 0 || flags & MREMAP_DONTUNMAP != 0 {
        return [Some((header.exit_ns, to)), None];
    }
    // A mapping that shrinks in its place is free beyond its new end from the entry on; nothing is free before that.
    let from_ns = if header.result == old && new_len < old_len {
        header.enter_ns
    } else {
        from_time(header, old)
    };
    [
        Some((from_ns, What::MremapFrom { addr: old, len: old_len })),
        Some((header.exit_ns.max(from_ns), to)),
    ]
}

/// What moves away leaves its place at entry; what stays is never free.
fn from_time(header: &EventHeader, old: u64) -> u64 {
    if header.result == old { header.exit_ns } else { header.enter_ns }
}

/// Streams: opened when the call returned with success, ended when the call began.
fn stream(header: &EventHeader, kind: Kind) -> Option<(u64, What)> {
    let init = |kind, address| Some((header.exit_ns, What::StreamInit { kind, address }));
    let end = |kind| Some((header.enter_ns, What::StreamEnd { kind, address: header.args[0] }));
    let opened = header.result != 0;
    let succeeded = header.result as u32 == 0;
    match kind {
        Kind::INFLATER_INIT if opened => init(StreamKind::Inflater, header.result),
        Kind::DEFLATER_INIT if opened => init(StreamKind::Deflater, header.result),
        Kind::INFLATE_INIT if succeeded => init(StreamKind::Inflate, header.args[0]),
        Kind::DEFLATE_INIT if succeeded => init(StreamKind::Deflate, header.args[0]),
        Kind::INFLATER_END => end(StreamKind::Inflater),
        Kind::DEFLATER_END => end(StreamKind::Deflater),
        Kind::INFLATE_END => end(StreamKind::Inflate),
        Kind::DEFLATE_END => end(StreamKind::Deflate),
        _ => None,
    }
}

/// Blocks: handed out when the call returned, given back when it began. What is given back is not there any more from
/// the entry on: another thread may get it before the call returns.
fn block(header: &EventHeader, kind: Kind) -> Steps {
    let [a0, a1, a2, ..] = header.args;
    let (enter, exit, addr) = (header.enter_ns, header.exit_ns, header.result);
    let got = |by, size| (addr != 0).then_some((exit, What::Alloc { by, addr, size }));
    let gone = |by| (a0 != 0).then_some((enter, What::Free { addr: a0, by }));
    // One that fails leaves the block as it was; a size of 0 gives it back (glibc 2.36, malloc/malloc.c).
    let moved = |size, to_zero| match (addr, size) {
        (0, 0) => gone(to_zero),
        (0, _) => None,
        _ => gone(Freeing::Realloc),
    };
    match kind {
        Kind::MALLOC => [got(Allocation::Malloc, a0), None],
        Kind::CALLOC => [got(Allocation::Calloc, a0.saturating_mul(a1)), None],
        Kind::REALLOC => [moved(a1, Freeing::ReallocToZero), got(Allocation::Realloc, a1)],
        Kind::REALLOCARRAY => {
            let size = a1.saturating_mul(a2);
            [moved(size, Freeing::ReallocarrayToZero), got(Allocation::Reallocarray, size)]
        }
        Kind::POSIX_MEMALIGN => [got(Allocation::PosixMemalign, a2), None],
        Kind::ALIGNED_ALLOC => [got(Allocation::AlignedAlloc, a1), None],
        Kind::MEMALIGN => [got(Allocation::Memalign, a1), None],
        Kind::VALLOC => [got(Allocation::Valloc, a0), None],
        Kind::PVALLOC => [got(Allocation::Pvalloc, round(a0, PAGE)), None],
        Kind::FREE => [gone(Freeing::Free), None],
        _ => [None, None],
    }
}

fn huge_page(flags: u64) -> u64 {
    match (flags & MAP_HUGETLB, flags >> MAP_HUGE_SHIFT & 0x3f) {
        (0, _) => PAGE,
        (_, 0) => DEFAULT_HUGE_PAGE,
        (_, shift) => 1 << shift,
    }
}

/// The kernel works in whole pages.
fn round(len: u64, page: u64) -> u64 {
    len.checked_next_multiple_of(page).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(args: [u64; 5], result: u64) -> EventHeader {
        EventHeader {
            enter_ns: 10,
            exit_ns: 20,
            args,
            result,
            tgid: 1,
            tid: 1,
            ..Default::default()
        }
    }

    #[test]
    fn blocks() {
        let free = |addr, by| Some((10, What::Free { addr, by }));
        let alloc = |by, addr, size| Some((20, What::Alloc { by, addr, size }));
        use Allocation as A;
        // (kind, arguments, result, what it means)
        let cases: [(Kind, [u64; 3], u64, Steps); 16] = [
            (Kind::MALLOC, [24, 0, 0], 0x10, [alloc(A::Malloc, 0x10, 24), None]),
            (Kind::MALLOC, [24, 0, 0], 0, [None, None]),
            (Kind::MALLOC, [0, 0, 0], 0x10, [alloc(A::Malloc, 0x10, 0), None]),
            (Kind::CALLOC, [3, 8, 0], 0x10, [alloc(A::Calloc, 0x10, 24), None]),
            (
                Kind::REALLOC,
                [0x10, 8, 0],
                0x20,
                [free(0x10, Freeing::Realloc), alloc(A::Realloc, 0x20, 8)],
            ),
            (
                Kind::REALLOC,
                [0x10, 8, 0],
                0x10,
                [free(0x10, Freeing::Realloc), alloc(A::Realloc, 0x10, 8)],
            ),
            (Kind::REALLOC, [0, 8, 0], 0x10, [None, alloc(A::Realloc, 0x10, 8)]),
            (Kind::REALLOC, [0x10, 0, 0], 0, [free(0x10, Freeing::ReallocToZero), None]),
            (Kind::REALLOC, [0x10, u64::MAX, 0], 0, [None, None]),
            (Kind::REALLOCARRAY, [0x10, u64::MAX, 2], 0, [None, None]),
            (Kind::REALLOCARRAY, [0, 3, 8], 0x10, [None, alloc(A::Reallocarray, 0x10, 24)]),
            (
                Kind::POSIX_MEMALIGN,
                [0x7ff0, 64, 24],
                0x40,
                [alloc(A::PosixMemalign, 0x40, 24), None],
            ),
            (Kind::ALIGNED_ALLOC, [64, 24, 0], 0x40, [alloc(A::AlignedAlloc, 0x40, 24), None]),
            (Kind::PVALLOC, [5000, 0, 0], 0x1000, [alloc(A::Pvalloc, 0x1000, 8192), None]),
            (Kind::FREE, [0x10, 0, 0], 0, [free(0x10, Freeing::Free), None]),
            (Kind::FREE, [0, 0, 0], 0, [None, None]),
        ];
        for (kind, [a, b, c], result, want) in cases {
            let header = call([a, b, c, 0, 0], result);
            assert_eq!(
                Meaning::default().of(&header, kind),
                want,
                "{kind:?} {a:#x} {b} {result:#x}"
            );
        }
    }

    #[test]
    fn meanings() {
        let p = 4096;
        let mmap = |addr, len, access| [Some((20, What::Mmap { addr, len, access })), None];
        // (kind, arguments, result, meaning)
        let cases: Vec<(Kind, [u64; 5], u64, Steps)> = vec![
            (Kind::MMAP, [0, 5000, 3, 0x22, 0], 7 * p, mmap(7 * p, 2 * p, true)),
            (Kind::MMAP, [0, p, 0, 0x22, 0], 7 * p, mmap(7 * p, p, false)),
            (Kind::MMAP, [0, p, 3, 0x4_0022, 0], 0, mmap(0, 2 << 20, true)),
            (Kind::MMAP, [0, p, 3, 0x4_0022 | 30 << 26, 0], 0, mmap(0, 1 << 30, true)),
            (
                Kind::MUNMAP,
                [p, 1, 0, 0, 0],
                0,
                [Some((10, What::Munmap { addr: p, len: p })), None],
            ),
            (
                Kind::MPROTECT,
                [p, p, 0, 0, 0],
                0,
                [Some((10, What::Mprotect { addr: p, len: p, access: false, pkey: false })), None],
            ),
            (
                Kind::PKEY_MPROTECT,
                [p, p, 1, 0, 0],
                0,
                [Some((20, What::Mprotect { addr: p, len: p, access: true, pkey: true })), None],
            ),
            (
                Kind::MREMAP,
                [p, 2 * p, 3 * p, 1, 0],
                9 * p,
                [
                    Some((10, What::MremapFrom { addr: p, len: 2 * p })),
                    Some((20, What::MremapTo { addr: 9 * p, len: 3 * p })),
                ],
            ),
            (
                Kind::MREMAP,
                [p, 2 * p, 2 * p, 5, 0],
                9 * p,
                [Some((20, What::MremapTo { addr: 9 * p, len: 2 * p })), None],
            ),
            (
                Kind::INFLATER_INIT,
                [1, 0, 0, 0, 0],
                77,
                [Some((20, What::StreamInit { kind: StreamKind::Inflater, address: 77 })), None],
            ),
            (Kind::INFLATER_INIT, [1, 0, 0, 0, 0], 0, [None, None]),
            (Kind::INFLATE_INIT, [8, 0, 0, 0, 0], (-2_i64).cast_unsigned(), [None, None]),
            (Kind::RENAME, [0; 5], 0, [None, None]),
        ];
        for (kind, args, result, want) in cases {
            assert_eq!(
                Meaning::default().of(&call(args, result), kind),
                want,
                "{kind:?} {args:x?}"
            );
        }
    }

    /// The break goes down at entry and up at exit.
    #[test]
    fn breaks() {
        let mut meaning = Meaning::default();
        let times: Vec<_> = [100, 200, 150, 150, 300]
            .iter()
            .map(|&to| meaning.of(&call([to, 0, 0, 0, 0], to), Kind::BRK)[0].map(|(time, _)| time))
            .collect();
        assert_eq!(times, [Some(20), Some(20), Some(10), Some(20), Some(20)]);
    }
}
