//! Events that the kernel did not hand to a program because the program, or one like it, was running on that processor
//! already: it counts these itself, per program (`recursion_misses`).
//!
//! That is all it counts. A return probe that the kernel leaves out because too many are nested in a thread is counted
//! nowhere there: the kernel side sees by itself that the return never came (`return_missed`).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use aya::Ebpf;

use super::session::Session;

const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;

/// Offset of `recursion_misses` in `struct bpf_prog_info` (include/uapi/linux/bpf.h, since Linux 5.12).
const RECURSION_MISSES: usize = 208;
const INFO_BYTES: usize = 232;

#[repr(C)]
struct GetInfo {
    fd: u32,
    len: u32,
    info: u64,
}

/// Events missed by all programs together, under the name that reports use.
pub(super) fn read(ebpf: &Ebpf, session: Option<&Session>) -> Vec<(&'static str, u64)> {
    let programs = ebpf.programs().filter_map(|(_, program)| program.fd().ok());
    let misses = programs.filter_map(|program| recursion_misses(program.as_fd()));
    let misses = misses.chain(session.and_then(|session| recursion_misses(session.as_fd()))).sum();
    vec![("recursion", misses)]
}

fn recursion_misses(program: BorrowedFd<'_>) -> Option<u64> {
    let mut info = [0u8; INFO_BYTES];
    let mut request = GetInfo {
        fd: program.as_raw_fd().cast_unsigned(),
        len: INFO_BYTES as u32,
        info: info.as_mut_ptr() as u64,
    };
    // SAFETY: the kernel writes at most `len` bytes to `info`, which outlives the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &raw mut request, size_of::<GetInfo>())
    };
    let bytes = info.get(RECURSION_MISSES..RECURSION_MISSES + 8)?;
    (result == 0).then(|| u64::from_ne_bytes(bytes.try_into().unwrap_or_default()))
}
