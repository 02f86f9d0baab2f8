//! Many functions probed by one program and one link, of which the kernel asks at each entry whether the return is to be seen.
//!
//! A link by `perf_event_open`, as aya makes them, is one for each function and each side of it; to make or drop one takes
//! tens of milliseconds. The kernel has links of many functions since Linux 6.6 (`BPF_TRACE_UPROBE_MULTI`) and such that see
//! entry and return as one since 6.13 (`BPF_TRACE_UPROBE_SESSION`; include/uapi/linux/bpf.h). A program for them must be
//! loaded as one, which aya 0.14 does not, so it is taken from the object once more.

use std::{
    collections::HashSet,
    ffi::{CStr, CString},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
};

use anyhow::{Context, Result};
use aya::{
    Btf, Ebpf,
    maps::{Map, MapData},
};
use aya_obj::{
    Function, Object, Program,
    generated::{bpf_attr, bpf_cmd, bpf_prog_type},
};

use super::OBJECT;
use crate::target::Library;

const BPF_TRACE_UPROBE_SESSION: u32 = 57;
/// What the verifier says is read only where it refuses.
const LOG_BYTES: usize = 64 << 10;

/// A program that is loaded for sessions.
pub(super) struct Session(OwnedFd);

/// A function to probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Point {
    /// Of the probed instruction.
    pub(super) file_offset: u64,
    pub(super) cookie: u64,
}

impl Session {
    /// Loads program `name` beside those of `ebpf`, with the same maps. Fails where the kernel has no sessions.
    pub(super) fn load(ebpf: &Ebpf, btf: &Btf, name: &str) -> Result<Self> {
        let (program, function) = relocated(ebpf, btf, name)?;
        let session = load(&program, &function).map(Self)?;
        session.try_link().context("the kernel has no sessions")?;
        Ok(session)
    }

    /// Whether the kernel has links for sessions: it loads programs for them since before it has any.
    ///
    /// A folder can't be probed, and a kernel that looks at what is to be probed says so, without having attached anything
    /// (`bpf_uprobe_multi_link_attach`, kernel/trace/bpf_trace.c, 6.13).
    fn try_link(&self) -> io::Result<()> {
        match self.link(c"/", &[Point { file_offset: 0, cookie: 0 }], 0) {
            Err(error) if error.raw_os_error() == Some(libc::EBADF) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Ok(()),
        }
    }

    /// Probes `points` of `library` in process `tgid`, which need not have mapped it yet. Process `tgid` must still have its
    /// first thread: the kernel asks for its memory.
    pub(super) fn attach(&self, library: &Library, points: &[Point], tgid: u32) -> Result<OwnedFd> {
        let path = CString::new(library.path().as_os_str().as_bytes())
            .context("a path with a zero in it")?;
        self.link(&path, points, tgid).with_context(|| {
            format!("failed to probe {} functions of {}", points.len(), library.name().display())
        })
    }

    fn link(&self, path: &CStr, points: &[Point], tgid: u32) -> io::Result<OwnedFd> {
        let offsets: Vec<u64> = points.iter().map(|point| point.file_offset).collect();
        let cookies: Vec<u64> = points.iter().map(|point| point.cookie).collect();
        let mut attr = no_attr();
        // SAFETY: the fields are those of a link of this kind, and plain numbers.
        unsafe {
            attr.link_create.__bindgen_anon_1.prog_fd = self.0.as_raw_fd().cast_unsigned();
            attr.link_create.attach_type = BPF_TRACE_UPROBE_SESSION;
            let link = &mut attr.link_create.__bindgen_anon_3.uprobe_multi;
            link.path = path.as_ptr() as u64;
            link.offsets = offsets.as_ptr() as u64;
            link.cookies = cookies.as_ptr() as u64;
            // More than the kernel takes in any case.
            link.cnt = u32::try_from(points.len()).unwrap_or(u32::MAX);
            link.pid = tgid;
        }
        bpf(bpf_cmd::BPF_LINK_CREATE, &mut attr)
    }
}

impl AsFd for Session {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The program and its code, which use the maps and the structures of the running kernel.
fn relocated(ebpf: &Ebpf, btf: &Btf, name: &str) -> Result<(Program, Function)> {
    let mut object = Object::parse(OBJECT).context("failed to parse the kernel side")?;
    object.relocate_btf(btf).context("failed to adapt the kernel side")?;
    let maps = std::mem::take(&mut object.maps);
    let maps = maps.iter().filter_map(|(name, map)| {
        let data = data_of(ebpf.map(name)?)?;
        Some((name.as_str(), data.fd().as_fd().as_raw_fd(), map))
    });
    let text: HashSet<usize> = object.functions.keys().map(|&(section, _)| section).collect();
    object.relocate_maps(maps, &text).context("failed to give the kernel side its maps")?;
    object.relocate_calls(&text).context("failed to link the kernel side")?;
    let program = object.programs.remove(name);
    let program = program.with_context(|| format!("the kernel side has no program {name}"))?;
    let function = object.functions.remove(&program.function_key());
    Ok((program, function.with_context(|| format!("program {name} has no code"))?))
}

/// The kinds of maps that the kernel side has.
fn data_of(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::PerCpuArray(data)
        | Map::ProgramArray(data)
        | Map::Queue(data)
        | Map::RingBuf(data) => Some(data),
        _ => None,
    }
}

fn load(program: &Program, function: &Function) -> Result<OwnedFd> {
    let mut log = vec![0_u8; LOG_BYTES];
    let mut attempt = |log_level: u32| {
        let mut attr = no_attr();
        // SAFETY: the fields are those of loading a program, and plain numbers.
        unsafe {
            let load = &mut attr.__bindgen_anon_3;
            load.prog_type = bpf_prog_type::BPF_PROG_TYPE_KPROBE as u32;
            load.expected_attach_type = BPF_TRACE_UPROBE_SESSION;
            load.insns = function.instructions.as_ptr() as u64;
            load.insn_cnt = function.instructions.len() as u32;
            load.license = program.license.as_ptr() as u64;
            if log_level != 0 {
                load.log_level = log_level;
                load.log_buf = log.as_mut_ptr() as u64;
                load.log_size = LOG_BYTES as u32;
            }
        }
        bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr)
    };
    attempt(0).or_else(|_| attempt(1)).with_context(|| {
        let end = log.iter().position(|&byte| byte == 0).unwrap_or_default();
        format!("the kernel refused a program for sessions: {}", last_line(&log[..end]))
    })
}

/// What the verifier says last but for its statistics.
fn last_line(log: &[u8]) -> String {
    let log = String::from_utf8_lossy(log);
    let last = log.lines().rev().find(|line| !line.is_empty() && !line.starts_with("processed "));
    last.unwrap_or_default().to_owned()
}

fn no_attr() -> bpf_attr {
    // SAFETY: a union of structures of plain numbers, all of which may be zero.
    unsafe { std::mem::zeroed() }
}

fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads `attr` and what its pointers lead to, all of which outlive the call.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_long, &raw mut *attr, size_of::<bpf_attr>())
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}
