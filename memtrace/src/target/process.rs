//! What `/proc` says of a process.

use std::{
    fs, io,
    io::Read,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::proc::{self, is_alive, status_field, status_number};

const ELF_MAGIC: &[u8] = b"\x7fELF";
const ELF_CLASS_32: u8 = 1;

/// Why a process can't be traced.
#[derive(Debug, Error)]
pub enum FindError {
    /// There is none.
    #[error("failed to find process {0}: no such process")]
    None(u32),
    /// It is a thread of another process.
    #[error("{tid} is a thread of process {tgid}")]
    Thread {
        /// What was asked for.
        tid: u32,
        /// Its process.
        tgid: u32,
    },
    /// It is a kernel thread.
    #[error("process {0} is a thread of the kernel and has no memory of its own")]
    Kernel(u32),
    /// It has ended and waits for its parent.
    #[error("process {0} has ended already (a zombie)")]
    Zombie(u32),
    /// It is a 32-bit program.
    #[error("process {0} is a 32-bit program; only 64-bit programs are traced")]
    Bits32(u32),
    /// It could not be looked at.
    #[error("failed to look at process {pid}")]
    Io {
        /// The process.
        pid: u32,
        /// Why.
        source: io::Error,
    },
}

/// Why a program is not started.
#[derive(Debug, Error)]
pub enum ProgramError {
    /// It is a 32-bit program.
    #[error("{} is a 32-bit program; only 64-bit programs are traced", .0.display())]
    Bits32(PathBuf),
}

impl FindError {
    /// What to do next, where there is something.
    pub fn hint(&self) -> Option<String> {
        match self {
            FindError::None(_) => {
                Some("`pgrep -f NAME` lists the processes whose command line has NAME".into())
            }
            FindError::Thread { tgid, .. } => Some(format!("try `--pid {tgid}`")),
            FindError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("looking at another user's process needs root (CAP_SYS_PTRACE); try it with `sudo`".into())
            }
            _ => None,
        }
    }
}

/// Resident and swapped bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident bytes.
    pub rss_bytes: u64,
    /// Swapped bytes.
    pub swap_bytes: u64,
}

/// Whether `pid` is a process that can be traced.
pub fn check(pid: u32) -> Result<(), FindError> {
    let status = match proc::try_text_of(Path::new(&format!("/proc/{pid}/status"))) {
        Ok(status) => status,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(FindError::None(pid)),
        Err(source) => return Err(FindError::Io { pid, source }),
    };
    match status_number(&status, "Tgid:") {
        Some(tgid) if tgid != u64::from(pid) => {
            return Err(FindError::Thread { tid: pid, tgid: tgid as u32 });
        }
        _ => {}
    }
    if !is_alive(pid) {
        return Err(FindError::Zombie(pid));
    }
    let folder = proc::folder(pid);
    if status_field(&proc::text_of(&folder.join("status")), "VmSize:").is_none() {
        return Err(FindError::Kernel(pid));
    }
    match is_32_bit(&folder.join("exe")) {
        Ok(true) => Err(FindError::Bits32(pid)),
        Ok(false) => Ok(()),
        Err(source) => Err(FindError::Io { pid, source }),
    }
}

/// Whether the program at `path` can be traced once it is started.
pub fn check_program(path: &Path) -> Result<(), ProgramError> {
    // What can't be read may be executed all the same; exec will tell.
    if is_32_bit(path).unwrap_or(false) {
        Err(ProgramError::Bits32(path.to_path_buf()))
    } else {
        Ok(())
    }
}

/// Whether the ELF file at `path` is a 32-bit program. Other files (scripts) are not.
fn is_32_bit(path: &Path) -> io::Result<bool> {
    let mut start = Vec::new();
    fs::File::open(path)?.take(5).read_to_end(&mut start)?;
    Ok(start.strip_prefix(ELF_MAGIC) == Some(&[ELF_CLASS_32]))
}

/// The command line of `pid`, bytes that are not UTF-8 replaced.
pub fn command_line(pid: u32) -> Vec<String> {
    let bytes = proc::read(pid, "cmdline").unwrap_or_default();
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    bytes.split(|&byte| byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// The kernel's name of a thread.
pub fn comm(pid: u32, tid: u32) -> Option<Vec<u8>> {
    let mut bytes = proc::bytes_of(Path::new(&format!("/proc/{pid}/task/{tid}/comm"))).ok()?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    Some(bytes)
}

/// The id that thread `tid` of `pid` has in its own pid namespace.
pub fn namespace_tid(pid: u32, tid: u32) -> Option<u32> {
    let status = proc::text_of(Path::new(&format!("/proc/{pid}/task/{tid}/status")));
    status_field(&status, "NSpid:")?.split_whitespace().next_back()?.parse().ok()
}

/// The memory of `pid`; nothing when it has ended.
pub fn memory(pid: u32) -> Memory {
    let status = proc::text(pid, "status");
    let bytes = |name| status_number(&status, name).unwrap_or_default() * 1024;
    Memory { rss_bytes: bytes("VmRSS:"), swap_bytes: bytes("VmSwap:") }
}

/// The most that was ever resident of `pid` since its exec; 0 when it has ended.
pub fn peak_rss_bytes(pid: u32) -> u64 {
    status_number(&proc::text(pid, "status"), "VmHWM:").unwrap_or_default() * 1024
}

/// Where the heap that `brk` makes begins, or would begin; `None` where that can't be read.
pub fn start_brk(pid: u32) -> Option<u64> {
    start_brk_in(&proc::text(pid, "stat"))
}

/// Where the first thread's stack begins; `None` where that can't be read.
pub fn start_stack(pid: u32) -> Option<u64> {
    field_of_stat(&proc::text(pid, "stat"), 28)
}

/// What a process gets with each program that it executes, and no other has: where its stack begins, and 16 bytes that the
/// kernel has drawn for it (`AT_RANDOM`).
pub fn image(pid: u32) -> (Option<u64>, Option<[u8; 16]>) {
    (start_stack(pid), random_bytes(pid))
}

fn random_bytes(pid: u32) -> Option<[u8; 16]> {
    const AT_RANDOM: u64 = 25;
    let auxv = fs::read(proc::folder(pid).join("auxv")).ok()?;
    let words: Vec<u64> = auxv.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
    let &[_, address] = words.as_chunks().0.iter().find(|[kind, _]| *kind == AT_RANDOM)?;
    let mut bytes = [0; 16];
    let memory = fs::File::open(proc::folder(pid).join("mem")).ok()?;
    memory.read_exact_at(&mut bytes, address).ok()?;
    Some(bytes)
}

fn start_brk_in(stat: &str) -> Option<u64> {
    field_of_stat(stat, 47)
}

/// A field of `/proc/PID/stat` by its number in proc(5), if it is not 0.
fn field_of_stat(stat: &str, number: usize) -> Option<u64> {
    // The second field is the name, in parentheses, and may hold any.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(number - 3)?.parse().ok().filter(|&start| start != 0)
}

/// The program that `name` means: a path, or something in a folder of `PATH`.
pub fn resolve_command(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|path| path.exists());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process() {
        let pid = std::process::id();
        assert!(check(pid).is_ok());
        assert!(memory(pid).rss_bytes > 1 << 20);
        assert_eq!(namespace_tid(pid, pid), Some(pid));
        assert!(command_line(pid)[0].contains("memtrace"));
    }

    #[test]
    fn heaps() {
        let fields = (3..=52).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        let cases = [
            (format!("1 (sh) {fields}"), Some(47)),
            (format!("1 (a) b) {fields}"), Some(47)),
            (format!("1 (sh) {fields}").replace(" 47 ", " 0 "), None),
            (String::new(), None),
            ("1 (sh) S 1 2".into(), None),
        ];
        for (stat, want) in cases {
            assert_eq!(start_brk_in(&stat), want, "{stat}");
        }
        let pid = std::process::id();
        let mappings = super::super::maps::read(pid).unwrap();
        let heap = mappings.iter().find(|mapping| mapping.path == b"[heap]");
        let start = start_brk(pid).unwrap();
        assert!(heap.is_none_or(|heap| heap.start == start.next_multiple_of(4096)), "{start:x}");
    }

    #[test]
    fn what_is_no_process() {
        assert_eq!(
            check(u32::MAX - 1).unwrap_err().to_string(),
            "failed to find process 4294967294: no such process"
        );
        let thread = std::thread::spawn(|| {
            // SAFETY: no preconditions.
            let tid = unsafe { libc::gettid() }.cast_unsigned();
            check(tid).unwrap_err().to_string()
        });
        assert!(thread.join().unwrap().contains("is a thread of process"));
    }
}
