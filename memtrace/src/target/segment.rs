//! The size of a System V segment that a process attached: the call doesn't tell.

use std::{fs, path::PathBuf};

use super::{maps, proc};

/// The size in bytes of segment `id`, which process `pid` has attached at `addr`: as its map has it, or, where it has
/// detached it again since, as the kernel knows the segment.
pub fn segment_bytes(pid: u32, id: i32, addr: u64) -> Option<u64> {
    let mappings = maps::read(pid).unwrap_or_default();
    let mapped =
        mappings.iter().find(|mapping| mapping.start == addr).map(maps::Mapping::size_bytes);
    mapped.or_else(|| known_bytes(pid, id))
}

/// Segments are numbered within an IPC namespace; only memtrace's own can be asked.
fn known_bytes(pid: u32, id: i32) -> Option<u64> {
    let namespace = |folder: PathBuf| fs::read_link(folder.join("ns/ipc")).ok();
    if namespace(proc::folder(pid))? != namespace("/proc/self".into())? {
        return None;
    }
    // SAFETY: all zero is a valid `shmid_ds`: integers only.
    let mut segment: libc::shmid_ds = unsafe { std::mem::zeroed() };
    // SAFETY: `segment` is written by the call.
    let result = unsafe { libc::shmctl(id, libc::IPC_STAT, &raw mut segment) };
    (result == 0).then(|| (segment.shm_segsz as u64).next_multiple_of(4096))
}
