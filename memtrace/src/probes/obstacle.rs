//! Why the kernel refuses to be traced.
//!
//! In: an error of loading or attaching, which says what failed ("operation not permitted"), and the
//! [`Conditions`]. Out: the reason behind it in one line, with the next step, where one is known.

use std::io;

use anyhow::Error;
use thiserror::Error;

use super::{
    capabilities::Capability,
    conditions::{Conditions, Lockdown, OLDEST_KERNEL, TypeInformation},
};

/// What stands in the way.
#[derive(Debug, Error)]
pub enum Obstacle {
    /// memtrace has not the rights.
    #[error("failed to load the kernel side: not permitted without {}", list(.missing))]
    Rights {
        /// Those that it would need.
        missing: Vec<Capability>,
        /// Whether it is root nevertheless, as in a container.
        is_root: bool,
    },
    /// memtrace's rights end with its user namespace.
    #[error(
        "failed to load the kernel side: memtrace runs in a user namespace, whose root has no right over the kernel"
    )]
    UserNamespace,
    /// memtrace can't name a process to the kernel.
    #[error(
        "failed to name a process to the kernel: memtrace runs in a pid namespace, where processes have other ids"
    )]
    PidNamespace,
    /// There is no `/sys`.
    #[error("failed to read the kernel's type information (BTF): /sys is not mounted")]
    NoSysfs,
    /// The kernel does not describe its types.
    #[error("failed to read the kernel's type information (BTF): this kernel has none")]
    NoBtf,
    /// What describes its types does not.
    #[error(
        "failed to read the kernel's type information (BTF): /sys/kernel/btf/vmlinux is unreadable"
    )]
    UnreadableBtf,
    /// The kernel's memory may not be read by anyone.
    #[error("failed to load the kernel side: the kernel is locked down (confidentiality)")]
    Lockdown,
    /// The kernel is too old.
    #[error(
        "failed to load the kernel side: kernel {0} is older than {major}.{minor}",
        major = OLDEST_KERNEL.0,
        minor = OLDEST_KERNEL.1
    )]
    OldKernel(String),
    /// A filter keeps the system call away from the kernel.
    #[error(
        "failed to load the kernel side: refused, most likely by the container's seccomp filter"
    )]
    Seccomp,
    /// The kernel's trace events can't be found.
    #[error("failed to mount tracefs in a namespace of memtrace's own")]
    Tracefs(#[source] io::Error),
}

impl Obstacle {
    /// What keeps memtrace from tracing anything, even where the kernel would let it try.
    pub(super) fn in_any_case(conditions: &Conditions) -> Option<Self> {
        conditions.in_pid_namespace.then_some(Self::PidNamespace)
    }

    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Rights { is_root: false, .. } => "tracing needs root; try it with `sudo`".into(),
            Self::Rights { missing, is_root: true } => {
                format!("start the container with `--privileged --pid=host`, or give memtrace {}", list(missing))
            }
            Self::UserNamespace => {
                "run memtrace outside of the container, with `sudo`: it finds the container's processes from there".into()
            }
            Self::PidNamespace => {
                "run memtrace on the host, with the process's id there; or start the container with `--pid=host`".into()
            }
            Self::NoSysfs => "`mount -t sysfs sysfs /sys` mounts it".into(),
            Self::NoBtf => "use a kernel built with CONFIG_DEBUG_INFO_BTF=y, as the distributions' kernels are".into(),
            Self::UnreadableBtf => "`mount | grep btf` shows what lies over it; `umount /sys/kernel/btf/vmlinux` takes it away".into(),
            Self::Lockdown => {
                "start the kernel with `lockdown=integrity` or `lockdown=none`, or switch Secure Boot off".into()
            }
            Self::OldKernel(_) => "use a newer kernel: tracing needs registers of tasks and attach cookies".into(),
            Self::Seccomp => {
                "start the container with `--privileged` or `--security-opt seccomp=unconfined`".into()
            }
            Self::Tracefs(_) => {
                "give memtrace CAP_SYS_ADMIN, or mount it once: `sudo mount -t tracefs tracefs /sys/kernel/tracing`".into()
            }
        }
    }

    /// What most likely lies behind an error; `refused` if it is one of permission.
    fn behind(conditions: &Conditions, refused: bool) -> Option<Self> {
        let missing = conditions.capabilities.missing(&[Capability::Bpf, Capability::Perfmon]);
        if let Some(obstacle) = Self::in_any_case(conditions) {
            return Some(obstacle);
        }
        if !missing.is_empty() {
            return Some(Self::Rights { missing, is_root: conditions.is_root });
        }
        if conditions.in_user_namespace {
            return Some(Self::UserNamespace);
        }
        match conditions.btf {
            TypeInformation::NoSysfs => return Some(Self::NoSysfs),
            TypeInformation::Absent => return Some(Self::NoBtf),
            TypeInformation::Unreadable => return Some(Self::UnreadableBtf),
            TypeInformation::Present => {}
        }
        if conditions.is_too_old() {
            return Some(Self::OldKernel(conditions.release.clone()));
        }
        if conditions.lockdown == Some(Lockdown::Confidentiality) {
            return Some(Self::Lockdown);
        }
        (refused && conditions.seccomp).then_some(Self::Seccomp)
    }
}

/// The reason for `error`, if it is known, in place of it.
pub(super) fn explained(error: Error) -> Error {
    if error.downcast_ref::<Obstacle>().is_some() {
        return error;
    }
    match Obstacle::behind(&Conditions::read(), is_refusal(&error)) {
        Some(obstacle) => {
            log::info!("{}", one_line(&error));
            obstacle.into()
        }
        None => error,
    }
}

/// Whether it fails for want of rights.
pub fn is_refusal(error: &Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<io::Error>();
        io.is_some_and(|io| matches!(io.raw_os_error(), Some(libc::EPERM | libc::EACCES)))
    })
}

/// The chain of causes on one line, without the verifier's log, which the loader puts into its error.
pub fn one_line(error: &Error) -> String {
    let text = format!("{error:#}");
    let text = text.split(" Verifier output:").next().unwrap_or_default();
    text.split('\n').map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

fn list(capabilities: &[Capability]) -> String {
    capabilities.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}
