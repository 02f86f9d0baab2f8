//! The checks of a process.

use super::{
    super::units,
    Check,
    allocators::{AllocatorFile, of_allocators},
};
use crate::target::{Activity, Situation};

/// How much of a command line is shown.
const MAX_COMMAND: usize = 80;

/// A zlib library for Java, and how many of its functions can be probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Libzip {
    /// Where it is.
    pub path: String,
    /// How many functions can be probed; or why none can.
    pub functions: Result<usize, String>,
}

/// The checks of what was found.
#[must_use]
pub fn of_process(
    situation: &Situation,
    allocators: &[AllocatorFile],
    libzips: &[Libzip],
) -> Vec<Check> {
    let mut checks = vec![process(situation), activity(situation), jvm(situation)];
    checks.push(of_allocators(situation.allocator.as_deref(), allocators));
    if situation.jvm.is_some() && libzips.is_empty() {
        checks.push(Check::warn(
            "libzip",
            "not found in the JDK; Inflaters and Deflaters are counted once it is mapped",
            "`memtrace --zlib` counts those of a libz that the JVM was linked with",
        ));
    }
    checks.extend(libzips.iter().map(of_libzip));
    checks.push(namespaces(situation));
    checks
}

fn process(situation: &Situation) -> Check {
    let Situation { pid, command, n_threads, uid, .. } = situation;
    let command = command.join(" ");
    let command = super::super::names::clip(&command, MAX_COMMAND);
    let threads = units::things(*n_threads as u64, "thread");
    let user = uid.map(|uid| format!(", user id {uid}")).unwrap_or_default();
    Check::ok("process", format!("{pid}, 64-bit, {threads}{user}: {command}"))
}

fn activity(situation: &Situation) -> Check {
    let pid = situation.pid;
    match situation.activity {
        Activity::Running => Check::ok("state", "running"),
        Activity::Stopped => Check::warn(
            "state",
            "stopped by a signal; nothing is seen until it goes on",
            format!("`kill -CONT {pid}`"),
        ),
        Activity::HeldBy(tracer) => Check::warn(
            "state",
            format!("held by process {tracer} (a debugger); nothing is seen until it goes on"),
            format!("`ps -p {tracer}` tells which; let the process go on there"),
        ),
        Activity::Frozen => Check::warn(
            "state",
            "its control group is frozen; nothing is seen until it goes on",
            "`docker unpause` or `systemctl thaw`, whatever froze it",
        ),
    }
}

fn jvm(situation: &Situation) -> Check {
    let found = match &situation.jvm {
        Some(jvm) => jvm.version.clone().unwrap_or_else(|| "of an unknown version".into()),
        None => "none; memtrace traces memory and native stacks".into(),
    };
    Check::ok("JVM", found)
}

fn of_libzip(libzip: &Libzip) -> Check {
    let Libzip { path, functions } = libzip;
    match functions {
        Ok(0) => Check::warn(
            "libzip",
            format!("{path} has no function of java.util.zip"),
            "`memtrace --zlib` counts zlib's own functions instead",
        ),
        Ok(n) => {
            let functions = units::things(*n as u64, "function");
            Check::ok("libzip", format!("{path}, {functions} to probe"))
        }
        Err(reason) => Check::warn(
            "libzip",
            reason,
            "Inflaters and Deflaters are not counted; run it as root, `sudo memtrace …`",
        ),
    }
}

fn namespaces(situation: &Situation) -> Check {
    let root = match situation.same_root {
        Some(false) => "; its libraries are found through its own root",
        _ => "",
    };
    match &situation.other_namespaces {
        Some(others) if others.is_empty() => {
            Check::ok("namespaces", format!("memtrace's own{root}"))
        }
        Some(others) => {
            Check::ok("namespaces", format!("others than memtrace's: {}{root}", others.join(", ")))
        }
        None => Check::warn(
            "namespaces",
            "can't be compared with memtrace's",
            "run it as root, `sudo memtrace doctor --pid …`",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::doctor, *};
    use crate::{probes::AllocatorFunction, target::Jvm};

    fn app() -> Situation {
        Situation {
            pid: 4711,
            command: ["java", "-jar", "app.jar"].map(str::to_owned).to_vec(),
            n_threads: 34,
            uid: Some(1000),
            activity: Activity::Running,
            jvm: Some(Jvm { version: Some("17.0.15+6".into()) }),
            allocator: Some("glibc 2.36".into()),
            libzips: Vec::new(),
            other_namespaces: Some(vec!["pid", "mnt"]),
            same_root: Some(false),
        }
    }

    fn libc() -> AllocatorFile {
        let malloc = AllocatorFunction {
            name: "malloc".into(),
            offset: 4,
            instruction: "push".into(),
            is_emulated: true,
            hands_out: true,
        };
        AllocatorFile { path: "/libc.so.6".into(), functions: Ok(vec![malloc]) }
    }

    #[test]
    fn in_a_container() {
        let libzip = Libzip { path: "/jdk/lib/libzip.so".into(), functions: Ok(4) };
        let want = "\
ok   process           4711, 64-bit, 34 threads, user id 1000: java -jar app.jar
ok   state             running
ok   JVM               17.0.15+6
ok   allocator         glibc 2.36: 1 function can be probed
     /libc.so.6
       malloc             +4   push     emulated by the kernel, its result by a return probe
ok   libzip            /jdk/lib/libzip.so, 4 functions to probe
ok   namespaces        others than memtrace's: pid, mnt; its libraries are found through its own root
tracing will work
";
        assert_eq!(doctor(&of_process(&app(), &[libc()], &[libzip]), false), want);
    }

    /// What is no JVM is no fault; what was not found is said.
    #[test]
    fn not_a_jvm() {
        let situation = Situation {
            command: vec!["a\nb".into()],
            n_threads: 1,
            uid: None,
            jvm: None,
            allocator: None,
            other_namespaces: Some(Vec::new()),
            same_root: Some(true),
            ..app()
        };
        let want = "\
ok   process           4711, 64-bit, 1 thread: a\\nb
ok   state             running
ok   JVM               none; memtrace traces memory and native stacks
warn allocator         none that is known, and no function of one to probe
     -> `memtrace` traces its memory all the same, `memtrace --malloc` sees no block of it
ok   namespaces        memtrace's own
tracing will work
";
        assert_eq!(doctor(&of_process(&situation, &[], &[]), false), want);
    }

    /// What is not as it should be is said with what to do, and nothing of it keeps tracing from working.
    #[test]
    fn what_may_be_wrong() {
        let libzip = |functions| vec![Libzip { path: "/libzip.so".into(), functions }];
        // (the process, its libraries, how the lines begin)
        let cases: [(Situation, Vec<Libzip>, &str, &str); 7] = [
            (
                Situation { activity: Activity::Stopped, ..app() },
                libzip(Ok(4)),
                "warn state             stopped",
                "`kill -CONT 4711`",
            ),
            (
                Situation { activity: Activity::HeldBy(77), ..app() },
                libzip(Ok(4)),
                "warn state             held by process 77",
                "`ps -p 77`",
            ),
            (
                Situation { activity: Activity::Frozen, ..app() },
                libzip(Ok(4)),
                "warn state             its control group is frozen",
                "`docker unpause`",
            ),
            (app(), Vec::new(), "warn libzip            not found", "`memtrace --zlib`"),
            (app(), libzip(Ok(0)), "warn libzip            /libzip.so has no", "`memtrace --zlib`"),
            (
                app(),
                libzip(Err("no access".into())),
                "warn libzip            no access",
                "Inflaters",
            ),
            (
                Situation { other_namespaces: None, ..app() },
                libzip(Ok(4)),
                "warn namespaces        can't be compared",
                "run it as root",
            ),
        ];
        for (situation, libzips, begin, advice) in cases {
            let text = doctor(&of_process(&situation, &[libc()], &libzips), false);
            let lines: Vec<&str> = text.lines().collect();
            let at = lines.iter().position(|line| line.starts_with(begin));
            let at = at.unwrap_or_else(|| panic!("`{begin}` is not in:\n{text}"));
            assert!(lines[at + 1].starts_with(&format!("     -> {advice}")), "{text}");
            assert_eq!(lines.last(), Some(&"tracing will work"), "{text}");
        }
    }
}
