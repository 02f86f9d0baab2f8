//! What the kernel says of itself and of memtrace's place on it.
//!
//! Out: facts that can be read in no time and without any right. None of them decides whether tracing works, trying
//! does ([`features`](super::features)); they tell why it does not.

use std::{fs, io, io::Read, os::unix::fs::MetadataExt, path::Path};

use super::capabilities::Capabilities;

/// The oldest kernel that has everything: registers of a task and attach cookies came with it.
pub const OLDEST_KERNEL: (u32, u32) = (5, 15);

const BTF: &str = "/sys/kernel/btf/vmlinux";
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

/// The numbers that the kernel gives to its first namespaces (include/linux/proc_ns.h).
const FIRST_USER_NAMESPACE: u64 = 0xefff_fffd;
const FIRST_PID_NAMESPACE: u64 = 0xefff_fffc;

/// How BPF programs may have been forbidden to the kernel's own root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lockdown {
    /// Nothing is forbidden.
    None,
    /// Changing the kernel is; tracing is not.
    Integrity,
    /// Reading the kernel's memory is, and that is what tracing does.
    Confidentiality,
}

/// The kernel's description of its own types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TypeInformation {
    /// It can be read.
    Present,
    /// This kernel has none.
    Absent,
    /// `/sys` is empty, so there is no telling.
    NoSysfs,
    /// It is there, but can't be read or is none.
    Unreadable,
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// The processor's name as the kernel has it, `x86_64`.
    pub machine: String,
    /// The kernel's release, `6.1.0-40-amd64`.
    pub release: String,
    /// Its types.
    pub btf: TypeInformation,
    /// `None` where the kernel knows no lockdown, or does not show it.
    pub lockdown: Option<Lockdown>,
    /// The rights in effect.
    pub capabilities: Capabilities,
    /// Whether memtrace is root, of whatever namespace.
    pub is_root: bool,
    /// Whether memtrace is in a user namespace, where rights over the kernel end.
    pub in_user_namespace: bool,
    /// Whether memtrace is in a pid namespace, where processes have other numbers than the kernel's.
    pub in_pid_namespace: bool,
    /// Whether a seccomp filter may refuse system calls to memtrace.
    pub seccomp: bool,
    /// `kernel.perf_event_paranoid`.
    pub perf_event_paranoid: Option<i64>,
    /// `kernel.unprivileged_bpf_disabled`.
    pub unprivileged_bpf_disabled: Option<i64>,
    /// `net.core.bpf_jit_enable`.
    pub bpf_jit_enable: Option<i64>,
}

impl Conditions {
    /// Reads them.
    pub fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let (machine, release) = uname();
        Self {
            machine,
            release,
            btf: type_information(Path::new(BTF)),
            lockdown: fs::read_to_string(LOCKDOWN).ok().and_then(|text| lockdown_in(&text)),
            capabilities: Capabilities::in_effect(&status).unwrap_or_default(),
            // SAFETY: no preconditions.
            is_root: unsafe { libc::geteuid() } == 0,
            in_user_namespace: is_other("user", FIRST_USER_NAMESPACE),
            in_pid_namespace: is_other("pid", FIRST_PID_NAMESPACE),
            seccomp: status.lines().any(|line| line == "Seccomp:\t2"),
            perf_event_paranoid: setting("kernel/perf_event_paranoid"),
            unprivileged_bpf_disabled: setting("kernel/unprivileged_bpf_disabled"),
            bpf_jit_enable: setting("net/core/bpf_jit_enable"),
        }
    }

    /// Whether the kernel is older than [`OLDEST_KERNEL`].
    pub fn is_too_old(&self) -> bool {
        version(&self.release).is_some_and(|version| version < OLDEST_KERNEL)
    }
}

fn uname() -> (String, String) {
    // SAFETY: all zero is a valid `utsname`: arrays of characters.
    let mut names: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: `names` is written by the call.
    unsafe { libc::uname(&raw mut names) };
    (text(&names.machine), text(&names.release))
}

fn text(characters: &[libc::c_char]) -> String {
    let bytes = characters.iter().map(|&character| character.cast_unsigned());
    String::from_utf8_lossy(&bytes.take_while(|&byte| byte != 0).collect::<Vec<_>>()).into_owned()
}

/// Major and minor number of a release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn type_information(path: &Path) -> TypeInformation {
    let mut magic = [0; 2];
    match fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic)) {
        Ok(()) if u16::from_ne_bytes(magic) == super::btf::MAGIC => TypeInformation::Present,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let has_sysfs = Path::new("/sys/kernel").is_dir();
            if has_sysfs { TypeInformation::Absent } else { TypeInformation::NoSysfs }
        }
        _ => TypeInformation::Unreadable,
    }
}

/// The mode in brackets: `none [integrity] confidentiality`.
fn lockdown_in(text: &str) -> Option<Lockdown> {
    let mode = text.split('[').nth(1)?.split(']').next()?;
    match mode {
        "none" => Some(Lockdown::None),
        "integrity" => Some(Lockdown::Integrity),
        "confidentiality" => Some(Lockdown::Confidentiality),
        _ => None,
    }
}

/// Whether memtrace's namespace of this kind is another than the kernel's first.
fn is_other(kind: &str, first: u64) -> bool {
    fs::metadata(format!("/proc/self/ns/{kind}")).is_ok_and(|metadata| metadata.ino() != first)
}

fn setting(name: &str) -> Option<i64> {
    fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let cases = [
            ("6.18.44", Some((6, 18))),
            ("5.15.0-91-generic", Some((5, 15))),
            ("6.1-rc3", Some((6, 1))),
            ("5", None),
            ("", None),
            ("unknown", None),
        ];
        for (release, want) in cases {
            assert_eq!(version(release), want, "{release}");
        }
    }

    #[test]
    fn lockdown_modes() {
        let cases = [
            ("[none] integrity confidentiality\n", Some(Lockdown::None)),
            ("none [integrity] confidentiality\n", Some(Lockdown::Integrity)),
            ("none integrity [confidentiality]\n", Some(Lockdown::Confidentiality)),
            ("none integrity confidentiality\n", None),
            ("[", None),
            ("", None),
        ];
        for (text, want) in cases {
            assert_eq!(lockdown_in(text), want, "{text:?}");
        }
    }

    /// What is no type information is not taken for it.
    #[test]
    fn other_files() {
        let folder = tempfile::tempdir().unwrap();
        let cases: [(&[u8], TypeInformation); 3] = [
            (&[0x9f, 0xeb, 1, 0], TypeInformation::Present),
            (&[], TypeInformation::Unreadable),
            (b"text", TypeInformation::Unreadable),
        ];
        for (bytes, want) in cases {
            let path = folder.path().join("vmlinux");
            fs::write(&path, bytes).unwrap();
            assert_eq!(type_information(&path), want, "{bytes:?}");
        }
        assert_eq!(type_information(&folder.path().join("none")), TypeInformation::Absent);
    }

    /// The kernel that runs the test has a name, a version and types.
    #[test]
    fn this_kernel() {
        let conditions = Conditions::read();
        assert!(version(&conditions.release).is_some(), "{conditions:?}");
        assert!(!conditions.machine.is_empty() && !conditions.is_too_old(), "{conditions:?}");
    }
}
