//! Perf buffers in which the kernel tells of code that processes map, one for each processor.

use std::{
    fs, io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::atomic::{AtomicU64, Ordering},
};

use memmap2::{MmapOptions, MmapRaw};

const PAGE: usize = 4096;
/// Room for some 500 mappings; a process that starts has a tenth of that, a large JVM twice as much as that.
const DATA_BYTES: usize = 16 * PAGE;
/// Where the buffer's first page has its positions (`struct perf_event_mmap_page`).
const DATA_HEAD: usize = 1024;
const DATA_TAIL: usize = 1032;
const RECORD_HEADER_BYTES: usize = 8;

/// The buffers of all processors.
#[derive(Debug)]
pub(super) struct CodeMaps {
    rings: Vec<Ring>,
}

#[derive(Debug)]
struct Ring {
    map: MmapRaw,
    tail: u64,
    _event: OwnedFd,
}

impl CodeMaps {
    /// Opens a buffer on every processor that is online.
    pub(super) fn open() -> io::Result<Self> {
        let online = fs::read_to_string("/sys/devices/system/cpu/online")?;
        let rings: io::Result<Vec<Ring>> = processors(online.trim()).map(Ring::open).collect();
        Ok(Self { rings: rings? })
    }

    /// Hands every record that came since the last call to `take`, each processor's in order.
    pub(super) fn read(&mut self, mut take: impl FnMut(&[u8])) {
        self.rings.iter_mut().for_each(|ring| ring.read(&mut take));
    }
}

impl Ring {
    fn open(cpu: i32) -> io::Result<Self> {
        let event = open_event(cpu)?;
        let map = MmapOptions::new().len(PAGE + DATA_BYTES).map_raw(event.as_raw_fd())?;
        Ok(Self { map, tail: 0, _event: event })
    }

    fn read(&mut self, take: &mut impl FnMut(&[u8])) {
        let head = self.position(DATA_HEAD).load(Ordering::Acquire);
        let mut record = Vec::new();
        while self.tail < head {
            self.copy(self.tail, RECORD_HEADER_BYTES, &mut record);
            let size = usize::from(u16::from_ne_bytes([record[6], record[7]]));
            if size < RECORD_HEADER_BYTES {
                self.tail = head;
                break;
            }
            self.copy(self.tail, size, &mut record);
            take(&record);
            self.tail += size as u64;
        }
        self.position(DATA_TAIL).store(self.tail, Ordering::Release);
    }

    /// Copies `len` bytes at `position` of the data, which is a ring.
    fn copy(&self, position: u64, len: usize, into: &mut Vec<u8>) {
        into.clear();
        let start = position as usize % DATA_BYTES;
        let first = len.min(DATA_BYTES - start);
        // SAFETY: the data begins a page into the mapping and is `DATA_BYTES` long; the kernel writes only beyond the
        // head, and what is copied lies between tail and head.
        let parts = unsafe {
            let data = self.map.as_ptr().add(PAGE);
            [
                std::slice::from_raw_parts(data.add(start), first),
                std::slice::from_raw_parts(data, len - first),
            ]
        };
        parts.iter().for_each(|part| into.extend_from_slice(part));
    }

    fn position(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: the mapping is page-aligned, the offset is one of two 8-byte fields of its first page, and both
        // sides access them atomically.
        unsafe { AtomicU64::from_ptr(self.map.as_mut_ptr().add(offset).cast()) }
    }
}

/// `struct perf_event_attr` up to its fifth version (include/uapi/linux/perf_event.h).
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup: u32,
    breakpoint_type: u32,
    config_1: u64,
    config_2: u64,
    branch_sample_type: u64,
    sample_regs_user: u64,
    sample_stack_user: u32,
    clock: i32,
    sample_regs_intr: u64,
    aux_watermark: u32,
    sample_max_stack: u16,
    reserved: u16,
}
const _: () = assert!(size_of::<Attributes>() == 112);

const PERF_TYPE_SOFTWARE: u32 = 1;
const PERF_COUNT_SW_DUMMY: u64 = 9;
const PERF_SAMPLE_TIME: u64 = 1 << 2;
const MMAP: u64 = 1 << 8;
const COMM: u64 = 1 << 9;
const SAMPLE_ID_ALL: u64 = 1 << 18;
const MMAP2: u64 = 1 << 23;
const COMM_EXEC: u64 = 1 << 24;
const USE_CLOCK: u64 = 1 << 25;
const PERF_FLAG_FD_CLOEXEC: u64 = 1 << 3;

/// An event that counts nothing: only its side records are wanted.
fn open_event(cpu: i32) -> io::Result<OwnedFd> {
    let attributes = Attributes {
        kind: PERF_TYPE_SOFTWARE,
        size: size_of::<Attributes>() as u32,
        config: PERF_COUNT_SW_DUMMY,
        sample_type: PERF_SAMPLE_TIME,
        flags: MMAP | COMM | SAMPLE_ID_ALL | MMAP2 | COMM_EXEC | USE_CLOCK,
        clock: libc::CLOCK_MONOTONIC,
        ..Attributes::default()
    };
    // SAFETY: the kernel reads `size` bytes of `attributes`.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            -1,
            cpu,
            -1,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    let fd = i32::try_from(fd).unwrap_or(-1);
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `0-3,6` as the kernel lists processors.
fn processors(list: &str) -> impl Iterator<Item = i32> {
    list.split(',').flat_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (first.parse::<i32>(), last.parse::<i32>()) {
            (Ok(first), Ok(last)) => first..=last,
            #[expect(clippy::reversed_empty_ranges, reason = "an empty range is meant")]
            _ => 1..=0,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        for (list, want) in
            [("0", vec![0]), ("0-1", vec![0, 1]), ("0-2,5", vec![0, 1, 2, 5]), ("", vec![])]
        {
            assert_eq!(processors(list).collect::<Vec<_>>(), want, "{list}");
        }
    }
}
