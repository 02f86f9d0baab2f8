//! What this kernel allows, found by trying it.
//!
//! In: the size of the ring buffer that tracing will use. Out: for each thing that tracing needs, whether it worked
//! and else why not. Everything is attached for a moment and nothing stays; no process is traced meanwhile.

use std::{
    fs, io,
    os::fd::{FromRawFd, OwnedFd},
    path::Path,
};

use anyhow::{Context, Result};
use aya::programs::uprobe::UProbeScope;
use memtrace_common::Kind;
use object::Object;

use super::{Blocks, Options, Probes, conditions::Conditions, obstacle, one_line, tracefs, zlib};
use crate::target::Library;

const OWN_PROGRAM: &str = "/proc/self/exe";

/// Enough to load the programs.
const SMALL_RING_BYTES: u32 = 64 << 10;

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_TYPE_RINGBUF: u32 = 27;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    /// What the kernel says of itself.
    pub conditions: Conditions,
    /// Whether tracefs can be used.
    pub tracefs: Result<Tracefs, Refused>,
    /// Whether the kernel side can be loaded and attached; then, whether the kernel tells of mapped code.
    pub probes: Result<bool, Refused>,
    /// Whether a function of a program can be probed.
    pub uprobe: Result<(), Refused>,
    /// Whether the ring buffer can be made; then, its size.
    pub ring_bytes: Result<u32, Refused>,
}

/// How tracefs is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracefs {
    /// It is mounted.
    Mounted,
    /// It can be mounted for memtrace alone.
    Private,
}

/// Why something does not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The reason, one line.
    pub reason: String,
    /// What to do about it, where that is known.
    pub hint: Option<String>,
}

impl Features {
    /// Tries everything; tracing will ask for a ring buffer of `ring_bytes`.
    pub fn find(ring_bytes: u32) -> Self {
        let tried = try_probes();
        let (probes, uprobe) = match tried {
            Ok((tells_code_maps, uprobe)) => (Ok(tells_code_maps), uprobe.map_err(Refused::from)),
            Err(error) => {
                let refused = Refused::from(error);
                (Err(refused.clone()), Err(refused))
            }
        };
        Self {
            conditions: Conditions::read(),
            tracefs: try_tracefs().map_err(Refused::from),
            probes,
            uprobe,
            ring_bytes: try_ring(ring_bytes).map(|_ring| ring_bytes).map_err(Refused::from),
        }
    }

    /// Whether tracing will work.
    pub fn suffice(&self) -> bool {
        self.tracefs.is_ok() && self.probes.is_ok() && self.ring_bytes.is_ok()
    }
}

impl From<anyhow::Error> for Refused {
    fn from(error: anyhow::Error) -> Self {
        let hint = error.downcast_ref::<super::Obstacle>().map(super::Obstacle::hint);
        Self { reason: one_line(&error), hint }
    }
}

fn try_tracefs() -> Result<Tracefs> {
    if tracefs::is_mounted() {
        return Ok(Tracefs::Mounted);
    }
    tracefs::with_tracefs(|| Ok(Tracefs::Private))
}

/// Loads and attaches everything.
fn try_probes() -> Result<(bool, Result<()>)> {
    let options = Options {
        ring_bytes: SMALL_RING_BYTES,
        debug: false,
        zlib: false,
        blocks: Blocks::None,
        min_block_bytes: 0,
        bare: false,
        sessions: true,
    };
    let mut probes = Probes::load(options)?;
    probes.attach()?;
    let tells_code_maps = probes.tells_code_maps();
    Ok((tells_code_maps, try_uprobe(&mut probes)))
}

/// Probes memtrace's own first instruction, which it has executed already.
fn try_uprobe(probes: &mut Probes) -> Result<()> {
    let bytes = fs::read(OWN_PROGRAM).with_context(|| format!("failed to read {OWN_PROGRAM}"))?;
    let elf =
        object::File::parse(&*bytes).with_context(|| format!("failed to parse {OWN_PROGRAM}"))?;
    let file_offset = zlib::file_offset(&elf, elf.entry())
        .context("memtrace's own first instruction is not in its file")?;
    let own = Library::open(Path::new(OWN_PROGRAM))?;
    let scope = UProbeScope::AllProcesses;
    probes.attach_function("stream_end", &own, file_offset, Kind::INFLATER_END.0.into(), scope)
}

/// The kernel charges the ring buffer to memtrace's memory cgroup, and refuses it where that is full.
fn try_ring(ring_bytes: u32) -> Result<OwnedFd> {
    // The beginning of `union bpf_attr`: type, sizes of key and value, entries, flags.
    let request = [BPF_MAP_TYPE_RINGBUF, 0, 0, ring_bytes, 0];
    // SAFETY: the kernel reads as many bytes of `request` as it is told there are.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_MAP_CREATE, request.as_ptr(), size_of_val(&request))
    };
    if fd < 0 {
        let error = anyhow::Error::from(io::Error::last_os_error());
        return Err(obstacle::explained(error.context("failed to make the ring buffer")));
    }
    let fd = i32::try_from(fd).context("the kernel gave no file descriptor")?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is refused says why, and a known obstacle says what to do.
    #[test]
    fn refusals() {
        let refused = Refused::from(anyhow::Error::from(super::super::Obstacle::NoSysfs));
        assert_eq!(refused.hint.as_deref(), Some("`mount -t sysfs sysfs /sys` mounts it"));
        let verifier =
            anyhow::anyhow!("returned EINVAL. Verifier output: R1 !read_ok\nprocessed 5");
        let refused = Refused::from(verifier.context("the kernel refused\nthe program"));
        assert_eq!(refused.reason, "the kernel refused the program: returned EINVAL.");
        assert_eq!(refused.hint, None);
    }
}
