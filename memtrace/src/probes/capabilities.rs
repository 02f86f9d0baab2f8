//! The rights of this process, as the kernel numbers them.
//!
//! In: the line `CapEff:` of a `/proc/PID/status`. Out: which of the rights that tracing uses are there. Whether they
//! count is another question: those of a user namespace's root end with that namespace.

use std::fmt;

/// A right that tracing uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Capability {
    /// Reading files whatever their mode; tracefs is closed to everyone but root.
    DacReadSearch = 2,
    /// Reading other users' processes.
    SysPtrace = 19,
    /// Mounting tracefs; it stands for [`Self::Bpf`], [`Self::Perfmon`] and [`Self::CheckpointRestore`], too.
    SysAdmin = 21,
    /// Attaching BPF programs to what the kernel does (since Linux 5.8).
    Perfmon = 38,
    /// Loading BPF programs (since Linux 5.8).
    Bpf = 39,
    /// Opening the files that another process has mapped (since Linux 5.9).
    CheckpointRestore = 40,
}

use Capability::{Bpf, CheckpointRestore, DacReadSearch, Perfmon, SysAdmin, SysPtrace};

/// All of them, the indispensable first.
pub const CAPABILITIES: [Capability; 6] =
    [Bpf, Perfmon, SysAdmin, SysPtrace, DacReadSearch, CheckpointRestore];

/// The rights that a process has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(u64);

impl Capabilities {
    /// Those in effect, in the text of a `/proc/PID/status`.
    pub(super) fn in_effect(status: &str) -> Option<Self> {
        let digits = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?.trim();
        u64::from_str_radix(digits, 16).ok().map(Self)
    }

    /// Exactly these.
    #[cfg(test)]
    pub(crate) fn of(capabilities: &[Capability]) -> Self {
        Self(capabilities.iter().fold(0, |bits, &capability| bits | 1 << capability as u32))
    }

    /// Whether `capability` is there, by itself or as a part of another.
    pub fn allow(self, capability: Capability) -> bool {
        let has = |capability: Capability| self.0 >> capability as u32 & 1 == 1;
        let part_of_admin = matches!(capability, Bpf | Perfmon | CheckpointRestore);
        has(capability) || (part_of_admin && has(SysAdmin))
    }

    /// Those of `wanted` that are not there.
    pub fn missing(self, wanted: &[Capability]) -> Vec<Capability> {
        wanted.iter().copied().filter(|&capability| !self.allow(capability)).collect()
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            DacReadSearch => "CAP_DAC_READ_SEARCH",
            SysPtrace => "CAP_SYS_PTRACE",
            SysAdmin => "CAP_SYS_ADMIN",
            Perfmon => "CAP_PERFMON",
            Bpf => "CAP_BPF",
            CheckpointRestore => "CAP_CHECKPOINT_RESTORE",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The administrator's right stands for the later ones that were split off it, and for nothing else.
    #[test]
    fn rights() {
        // (CapEff, what is missing)
        let cases: [(&str, &[Capability]); 5] = [
            ("000001ffffffffff", &[]),
            ("0000000000000000", &CAPABILITIES),
            ("0000000000200000", &[SysPtrace, DacReadSearch]),
            ("000000c000000000", &[SysAdmin, SysPtrace, DacReadSearch, CheckpointRestore]),
            ("000001c000080004", &[SysAdmin]),
        ];
        for (digits, missing) in cases {
            let status = format!("CapPrm:\tffff\nCapEff:\t{digits}\n");
            let capabilities = Capabilities::in_effect(&status).unwrap();
            assert_eq!(capabilities.missing(&CAPABILITIES), missing, "{digits}");
        }
    }

    #[test]
    fn no_rights_to_be_found() {
        for status in ["", "CapEff:\t\n", "CapEff:\tx\n", "CapPrm:\t0\n"] {
            assert_eq!(Capabilities::in_effect(status), None, "{status:?}");
        }
    }
}
