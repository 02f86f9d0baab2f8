//! The checks of kernel and rights.

use super::{super::units, Check};
use crate::probes::{
    capabilities::{CAPABILITIES, Capability},
    conditions::{Conditions, Lockdown, OLDEST_KERNEL, TypeInformation},
    features::{Features, Refused, Tracefs},
};

/// Where memtrace runs best from.
const ROOT: &str = "run it as root, `sudo memtrace …`";

/// The checks of what was found, the reasons before what follows from them.
#[must_use]
pub fn of_kernel(features: &Features) -> Vec<Check> {
    let Features { conditions, tracefs, probes, uprobe, ring_bytes } = features;
    let mut checks = vec![
        kernel(conditions),
        processor(conditions),
        btf(conditions),
        lockdown(conditions),
        capabilities(conditions),
        namespaces(conditions),
        of_tracefs(tracefs),
    ];
    match probes {
        Ok(_) => checks.push(Check::ok("BPF", "the kernel side can be loaded and attached")),
        Err(refused) => checks.push(failed("BPF", refused)),
    }
    // What failed for the same reason is not told twice.
    let is_new = |refused: &&Refused| probes.as_ref().err() != Some(*refused);
    match uprobe {
        Ok(()) => checks.push(Check::ok("uprobes", "functions of libraries can be probed")),
        Err(refused) => checks.extend(Some(refused).filter(is_new).map(no_uprobes)),
    }
    match ring_bytes {
        Ok(bytes) => checks.push(Check::ok("ring buffer", ring(*bytes))),
        Err(refused) => {
            checks.extend(Some(refused).filter(is_new).map(no_ring));
        }
    }
    checks.extend(perf_event(conditions, probes.as_ref().ok().copied()));
    checks.extend(unprivileged_bpf(conditions));
    checks.extend(bpf_jit(conditions));
    checks
}

fn kernel(conditions: &Conditions) -> Check {
    let (major, minor) = OLDEST_KERNEL;
    let found = format!("{}, needs {major}.{minor} or newer", conditions.release);
    if conditions.is_too_old() {
        return Check::fail("kernel", found, Some("use a newer kernel".into()));
    }
    Check::ok("kernel", found)
}

fn processor(conditions: &Conditions) -> Check {
    let found = &conditions.machine;
    if found != "x86_64" {
        let found = format!("{found}, only x86_64 is known");
        return Check::fail("processor", found, Some("use an x86_64 machine".into()));
    }
    Check::ok("processor", found)
}

fn btf(conditions: &Conditions) -> Check {
    let fail = |found: &str, advice: &str| Check::fail("BTF", found, Some(advice.into()));
    match conditions.btf {
        TypeInformation::Present => Check::ok("BTF", "the kernel describes its types"),
        TypeInformation::Absent => fail(
            "this kernel has no type information",
            "use a kernel built with CONFIG_DEBUG_INFO_BTF=y, as the distributions' kernels are",
        ),
        TypeInformation::NoSysfs => fail("/sys is not mounted", "`mount -t sysfs sysfs /sys`"),
        TypeInformation::Unreadable => fail(
            "/sys/kernel/btf/vmlinux holds no type information",
            "`umount /sys/kernel/btf/vmlinux` takes away what was mounted over it",
        ),
    }
}

fn lockdown(conditions: &Conditions) -> Check {
    match conditions.lockdown {
        None => Check::ok("lockdown", "none to be seen"),
        Some(Lockdown::None) => Check::ok("lockdown", "none"),
        Some(Lockdown::Integrity) => Check::ok("lockdown", "integrity, which tracing respects"),
        Some(Lockdown::Confidentiality) => Check::fail(
            "lockdown",
            "confidentiality: BPF may not read the kernel's memory",
            Some("start the kernel with `lockdown=integrity`, or switch Secure Boot off".into()),
        ),
    }
}

fn capabilities(conditions: &Conditions) -> Check {
    let missing = conditions.capabilities.missing(&CAPABILITIES);
    if missing.is_empty() {
        return Check::ok("capabilities", "all that tracing uses");
    }
    let names: Vec<String> = missing.iter().map(ToString::to_string).collect();
    let found = format!("without {}", names.join(", "));
    let advice = if conditions.is_root {
        format!("give it {}; to a container, with `--privileged`", names.join(", "))
    } else {
        ROOT.into()
    };
    let is_fatal =
        [Capability::Bpf, Capability::Perfmon].iter().any(|right| missing.contains(right));
    if is_fatal {
        return Check::fail("capabilities", found, Some(advice));
    }
    let use_of = |capability: &Capability| match capability {
        Capability::SysAdmin => Some("mounts tracefs"),
        Capability::SysPtrace => Some("reads other users' processes"),
        Capability::DacReadSearch => Some("reads tracefs and files of other users"),
        Capability::CheckpointRestore => Some("opens deleted and replaced libraries"),
        Capability::Bpf | Capability::Perfmon => None,
    };
    let uses: Vec<&str> = missing.iter().filter_map(use_of).collect();
    Check::warn("capabilities", format!("{found} (which {})", uses.join(", ")), advice)
}

fn namespaces(conditions: &Conditions) -> Check {
    let fail = |found: &str, advice: &str| Check::fail("place", found, Some(advice.into()));
    if conditions.in_pid_namespace {
        return fail(
            "in a pid namespace, where processes have other ids than the kernel's",
            "run memtrace on the host, or start the container with `--pid=host`",
        );
    }
    if conditions.in_user_namespace {
        return fail(
            "in a user namespace, whose root has no right over the kernel",
            "run memtrace outside of the container, with `sudo`",
        );
    }
    let seccomp = if conditions.seccomp { ", under a seccomp filter" } else { "" };
    Check::ok("place", format!("the host's pid and user namespace{seccomp}"))
}

fn of_tracefs(tracefs: &Result<Tracefs, Refused>) -> Check {
    match tracefs {
        Ok(Tracefs::Mounted) => Check::ok("tracefs", "mounted"),
        Ok(Tracefs::Private) => Check::ok("tracefs", "not mounted; memtrace mounts it for itself"),
        Err(refused) => failed("tracefs", refused),
    }
}

fn failed(name: &'static str, refused: &Refused) -> Check {
    let advice = refused.hint.clone().or_else(|| Some("look at what failed above".into()));
    Check::fail(name, &refused.reason, advice)
}

fn no_uprobes(refused: &Refused) -> Check {
    let advice =
        "Inflaters and Deflaters are not counted; a kernel with CONFIG_UPROBE_EVENTS=y can";
    Check::warn("uprobes", &refused.reason, advice)
}

fn ring(bytes: u32) -> String {
    format!("{} can be had", units::bytes(u64::from(bytes)))
}

fn no_ring(refused: &Refused) -> Check {
    let advice = "raise the memory limit of the control group that memtrace runs in";
    Check::fail("ring buffer", &refused.reason, refused.hint.clone().or(Some(advice.into())))
}

/// The level binds only those without CAP_PERFMON; what counts is whether the kernel tells of mapped code.
fn perf_event(conditions: &Conditions, tells_code_maps: Option<bool>) -> Option<Check> {
    let level = conditions.perf_event_paranoid?;
    let level = format!("paranoid level {level}");
    Some(match tells_code_maps {
        Some(true) => Check::ok("perf_event", format!("{level}; tells of mapped code")),
        None => Check::ok("perf_event", level),
        Some(false) => Check::warn(
            "perf_event",
            format!(
                "{level}; does not tell of mapped code, so a short process's stacks may be broken"
            ),
            "`sysctl kernel.perf_event_mlock_kb=516`, or give memtrace CAP_IPC_LOCK",
        ),
    })
}

fn unprivileged_bpf(conditions: &Conditions) -> Option<Check> {
    let found = match conditions.unprivileged_bpf_disabled? {
        0 => "allowed, not that it matters",
        _ => "disabled, which does not concern root",
    };
    Some(Check::ok("unprivileged BPF", found))
}

fn bpf_jit(conditions: &Conditions) -> Option<Check> {
    Some(match conditions.bpf_jit_enable? {
        0 => Check::warn(
            "BPF compiler",
            "off: each event costs the traced process several times as much",
            "`sudo sysctl net.core.bpf_jit_enable=1`",
        ),
        _ => Check::ok("BPF compiler", "on"),
    })
}

#[cfg(test)]
mod tests {
    use super::{super::doctor, *};
    use crate::probes::{Obstacle, capabilities::Capabilities};

    fn good() -> Features {
        Features {
            conditions: Conditions {
                machine: "x86_64".into(),
                release: "6.1.0-40-amd64".into(),
                btf: TypeInformation::Present,
                lockdown: Some(Lockdown::None),
                capabilities: Capabilities::of(&CAPABILITIES),
                is_root: true,
                in_user_namespace: false,
                in_pid_namespace: false,
                seccomp: false,
                perf_event_paranoid: Some(3),
                unprivileged_bpf_disabled: Some(2),
                bpf_jit_enable: Some(1),
            },
            tracefs: Ok(Tracefs::Private),
            probes: Ok(true),
            uprobe: Ok(()),
            ring_bytes: Ok(16 << 20),
        }
    }

    #[test]
    fn all_is_well() {
        let want = "\
ok   kernel            6.1.0-40-amd64, needs 5.15 or newer
ok   processor         x86_64
ok   BTF               the kernel describes its types
ok   lockdown          none
ok   capabilities      all that tracing uses
ok   place             the host's pid and user namespace
ok   tracefs           not mounted; memtrace mounts it for itself
ok   BPF               the kernel side can be loaded and attached
ok   uprobes           functions of libraries can be probed
ok   ring buffer       16.0 MiB can be had
ok   perf_event        paranoid level 3; tells of mapped code
ok   unprivileged BPF  disabled, which does not concern root
ok   BPF compiler      on
tracing will work
";
        assert_eq!(doctor(&of_kernel(&good()), false), want);
    }

    #[test]
    fn without_root() {
        let mut features = good();
        features.conditions.capabilities = Capabilities::default();
        features.conditions.is_root = false;
        let missing = vec![Capability::Bpf, Capability::Perfmon];
        let refused = || {
            Refused::from(anyhow::Error::from(Obstacle::Rights {
                missing: missing.clone(),
                is_root: false,
            }))
        };
        features.probes = Err(refused());
        features.uprobe = Err(refused());
        features.ring_bytes = Err(refused());
        let text = doctor(&of_kernel(&features), false);
        let failed: Vec<&str> =
            text.lines().skip_while(|line| !line.starts_with("FAIL")).take(2).collect();
        let want = [
            "FAIL capabilities      without CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN, CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH, CAP_CHECKPOINT_RESTORE",
            "     -> run it as root, `sudo memtrace …`",
        ];
        assert_eq!(failed, want);
        // Three things failed for one reason, which is told once.
        assert_eq!(
            text.matches("not permitted without CAP_BPF and CAP_PERFMON").count(),
            1,
            "{text}"
        );
        assert!(text.ends_with("tracing will not work: 2 checks failed\n"), "{text}");
    }

    /// Each thing that may be wrong has a line of its own and one that says what to do.
    #[test]
    fn what_may_be_wrong() {
        type Break = fn(&mut Features);
        // (what is broken, how the line begins)
        let cases: [(Break, &str); 14] = [
            (
                |f| f.conditions.release = "5.10.0-46".into(),
                "FAIL kernel            5.10.0-46, needs 5.15",
            ),
            (
                |f| f.conditions.machine = "aarch64".into(),
                "FAIL processor         aarch64, only x86_64",
            ),
            (
                |f| f.conditions.btf = TypeInformation::Absent,
                "FAIL BTF               this kernel has no",
            ),
            (
                |f| f.conditions.btf = TypeInformation::NoSysfs,
                "FAIL BTF               /sys is not mounted",
            ),
            (
                |f| f.conditions.btf = TypeInformation::Unreadable,
                "FAIL BTF               /sys/kernel/btf/",
            ),
            (
                |f| f.conditions.lockdown = Some(Lockdown::Confidentiality),
                "FAIL lockdown          confid",
            ),
            (|f| f.conditions.in_pid_namespace = true, "FAIL place             in a pid namespace"),
            (
                |f| f.conditions.in_user_namespace = true,
                "FAIL place             in a user namespace",
            ),
            (
                |f| {
                    f.conditions.capabilities =
                        Capabilities::of(&[Capability::Bpf, Capability::Perfmon])
                },
                "warn capabilities      without CAP_SYS_ADMIN, CAP_SYS_PTRACE",
            ),
            (|f| f.conditions.bpf_jit_enable = Some(0), "warn BPF compiler      off"),
            (|f| f.tracefs = Err(no("no mount")), "FAIL tracefs           no mount"),
            (|f| f.uprobe = Err(no("no probe")), "warn uprobes           no probe"),
            (|f| f.ring_bytes = Err(no("no memory")), "FAIL ring buffer       no memory"),
            (|f| f.probes = Ok(false), "warn perf_event        paranoid level 3; does not tell"),
        ];
        for (spoil, begin) in cases {
            let mut features = good();
            spoil(&mut features);
            let text = doctor(&of_kernel(&features), false);
            let lines: Vec<&str> = text.lines().collect();
            let at = lines.iter().position(|line| line.starts_with(begin));
            let at = at.unwrap_or_else(|| panic!("`{begin}` is not in:\n{text}"));
            assert!(lines[at + 1].starts_with("     -> "), "{text}");
            assert_eq!(
                text.matches("\nok   ").count() + text.starts_with("ok   ") as usize,
                12,
                "{text}"
            );
        }
    }

    fn no(reason: &str) -> Refused {
        Refused { reason: reason.into(), hint: None }
    }
}
