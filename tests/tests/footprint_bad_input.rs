//! `memtrace footprint` of what is large, hidden, denied or changing: rows that add up, or one clear line.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::Read,
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use memtrace_tests::{
    fixtures::built,
    footprint::{Footprint, Stopped, footprint, kernels_rss},
    java::system_jdk,
    memtrace::{Memtrace, Outcome},
    skip::{has_tool, skip},
    subject::Subject,
    turn,
};

/// How long a look at anything may take here, others beside it.
const PATIENCE: Duration = Duration::from_secs(30);
/// Looks at a process that changes.
const N_LOOKS: usize = 40;

/// It failed with one line that says why, perhaps with a hint, and printed nothing.
fn assert_refused(outcome: &Outcome, says: &str) {
    assert_eq!(outcome.code(), Some(2), "{}", outcome.stderr);
    assert!(outcome.stdout.is_empty(), "{}", outcome.stdout);
    let errors = outcome.stderr.lines().filter(|line| line.starts_with("memtrace: ")).count();
    let others = outcome.stderr.lines().filter(|line| !line.starts_with("hint: ")).count();
    assert_eq!((errors, others), (1, 1), "{}", outcome.stderr);
    assert!(outcome.stderr.contains(says), "`{says}` is not in: {}", outcome.stderr);
}

/// A subject that has done what it was to do.
fn done(fixture: &str, arguments: &[&str]) -> (Subject, memtrace_tests::said::Said) {
    let mut subject = Subject::ready(&built(fixture), arguments);
    let said = subject.finish();
    (subject, said)
}

/// What only looks like something is not taken for it, and what is not recognised is in no row but `unexplained`, and said.
#[test]
fn lookalikes() {
    let _turn = turn::together();
    // (what, the row that it is in, rows that have none of it)
    let cases = [
        ("stack", "anonymous", ["thread_stacks", "unexplained"]),
        ("heap", "shared", ["java_heap_used", "java_heap_views"]),
        ("malloc", "unexplained", ["malloc_live", "malloc_returnable"]),
    ];
    for (what, row, others) in cases {
        let (subject, said) = done("lookalike", &[what]);
        let footprint = Footprint::of(subject.pid());
        footprint.assert_adds_up(what);
        let bytes = said.number("bytes");
        assert!(footprint.row(row) > bytes - bytes / 20, "{what}: {}", footprint.0);
        for other in others {
            assert!(footprint.row(other) < bytes / 20, "{what}, {other}: {}", footprint.0);
        }
        let is_said = footprint.notes().contains("malloc's heap was not found");
        assert_eq!(is_said, what == "malloc", "{}", footprint.0);
    }
}

/// Ten thousand mappings.
#[test]
fn many_mappings() {
    let _turn = turn::together();
    let (subject, said) = done("mappings", &["many", "10000"]);
    let _stopped = Stopped::new(&subject);
    let began = Instant::now();
    let footprint = Footprint::of(subject.pid());
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    footprint.assert_adds_up("many mappings");
    assert_eq!(footprint.rss(), kernels_rss(subject.pid()), "{}", footprint.0);
    assert!(footprint.row("anonymous") >= said.number("written"), "{}", footprint.0);
}

/// 64 TB of address space with three pages in it, on kernels with `PAGEMAP_SCAN` and without: there what could not be
/// looked at is said, with how much it is.
#[test]
fn sparse() {
    let _turn = turn::together();
    let (subject, _) = done("residency", &[]);
    let _stopped = Stopped::new(&subject);
    let rss = kernels_rss(subject.pid());
    let by_scan = Footprint::of(subject.pid());
    by_scan.assert_adds_up("sparse");
    assert_eq!(by_scan.rss(), rss, "{}", by_scan.0);
    let denied = built("denied");
    let memtrace = Memtrace::started_by(&[denied.to_str().unwrap(), "scan"]);
    let began = Instant::now();
    let outcome = memtrace.args(["footprint", &subject.pid().to_string(), "--json", "-"]).run();
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    let page_by_page = Footprint::told(&outcome);
    page_by_page.assert_adds_up("sparse, page by page");
    // Two of its three pages are beyond what is looked at: they are counted, without a place.
    assert_eq!(page_by_page.rss(), rss, "{}", page_by_page.0);
    assert!(page_by_page.row("unexplained") >= 2 * 4096, "{}", page_by_page.0);
    assert!(page_by_page.notes().contains("too large to be looked at"), "{}", page_by_page.0);
}

/// Hundreds of threads, in C and in Java: their stacks are stacks.
#[test]
fn hundreds_of_threads() {
    let _turn = turn::together();
    let (subject, said) = done("crowd", &["400", "64"]);
    let stopped = Stopped::new(&subject);
    let native = Footprint::of(subject.pid());
    native.assert_adds_up("400 threads");
    assert_eq!(native.rss(), kernels_rss(subject.pid()), "{}", native.0);
    // Of each also what lies above and below: libc's part, its frames.
    let (stacks, touched) = (native.row("thread_stacks"), said.number("stacks"));
    assert!((touched..touched + 400 * (16 << 10)).contains(&stacks), "{touched}: {}", native.0);
    drop(stopped);

    let mut subject = Subject::ready_java(&system_jdk(), &["-Xmx128m"], "Crowd", &["400"]);
    subject.finish();
    let _stopped = Stopped::new(&subject);
    let java = Footprint::of(subject.pid());
    java.assert_adds_up("400 threads of Java");
    assert_eq!(java.rss(), kernels_rss(subject.pid()), "{}", java.0);
    assert!(java.row("thread_stacks") >= 400 * (8 << 10), "{}", java.0);
    assert!(java.row("unexplained") <= 1 << 20, "{}", java.0);
}

/// The stack of a thread that never waits, and tells no stack pointer, is a stack: none other is as large.
#[test]
fn never_waits() {
    let _turn = turn::together();
    let (subject, said) = done("crowd", &["3", "1024", "24"]);
    let footprint = Footprint::of(subject.pid());
    footprint.assert_adds_up("a busy thread");
    let (stacks, touched) = (footprint.row("thread_stacks"), said.number("stacks"));
    assert!((touched..touched + (64 << 10)).contains(&stacks), "{touched}: {}", footprint.0);
}

/// 2 GB of huge pages are told of, and are in no row: the kernel's RSS does not have them either.
#[test]
fn huge_pages() {
    const MIB: u64 = 2048;
    let _turn = turn::together();
    let free = fs::read_to_string("/proc/meminfo").unwrap();
    let free = free.lines().find_map(|line| line.strip_prefix("HugePages_Free:"));
    let n_free: u64 = free.and_then(|n| n.trim().parse().ok()).unwrap_or_default();
    if n_free < MIB / 2 {
        let why = format!(
            "{n_free} free pages of 2 MiB in the pool of huge pages, it takes {}: `sysctl vm.nr_hugepages={}`",
            MIB / 2,
            MIB / 2
        );
        return skip("footprint_bad_input::huge_pages", &why);
    }
    let (subject, said) = done("mappings", &["huge", &MIB.to_string()]);
    let _stopped = Stopped::new(&subject);
    let footprint = Footprint::of(subject.pid());
    footprint.assert_adds_up("huge pages");
    assert_eq!(footprint.rss(), kernels_rss(subject.pid()), "{}", footprint.0);
    assert_eq!(footprint.0["hugetlb_bytes"], said.number("huge"), "{}", footprint.0);
    let text = footprint_text(subject.pid());
    assert!(text.contains("2.0 GiB"), "{text}");
}

fn footprint_text(pid: u32) -> String {
    let outcome = footprint(pid, &[]);
    assert_eq!(outcome.code(), Some(0), "{}", outcome.stderr);
    outcome.stdout
}

/// Who may not read the page tables is told so, with what to do; who may read its own processes only can do that.
#[test]
fn no_permission() {
    let _turn = turn::together();
    if !has_tool("setpriv") {
        return skip("footprint_bad_input::no_permission", "no setpriv");
    }
    let (subject, _) = done("residency", &[]);
    let powerless = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"];
    let memtrace = Memtrace::started_by(&powerless);
    let outcome = memtrace.args(["footprint", &subject.pid().to_string()]).run();
    assert_refused(&outcome, "needs root (CAP_SYS_PTRACE)");
    assert!(outcome.stderr.contains("hint: "), "{}", outcome.stderr);

    let mut own = Command::new("setpriv");
    own.args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c"]);
    own.arg("echo ready; read line");
    let subject = Subject::start(&mut own);
    let of_nobody = Memtrace::of_nobody().arg("footprint").arg(subject.pid().to_string());
    let footprint = Footprint::told(&of_nobody.args(["--json", "-"]).run());
    footprint.assert_adds_up("its own process");
    assert_eq!(footprint.rss(), kernels_rss(subject.pid()), "{}", footprint.0);
}

/// Where the kernel lets nobody read other processes' memory (containers often don't), rows add up all the same, and a
/// line says what is missing.
#[test]
fn memory_is_denied() {
    let _turn = turn::together();
    let (subject, _) = done("heap_busy", &["1", "256", "1000"]);
    let _stopped = Stopped::new(&subject);
    let denied = built("denied");
    let memtrace = Memtrace::started_by(&[denied.to_str().unwrap(), "memory"]);
    let outcome = memtrace.args(["footprint", &subject.pid().to_string(), "--json", "-"]).run();
    let footprint = Footprint::told(&outcome);
    footprint.assert_adds_up("memory is denied");
    assert_eq!(footprint.rss(), kernels_rss(subject.pid()), "{}", footprint.0);
    assert!(footprint.notes().contains("memory can't be read"), "{}", footprint.0);
}

/// What is called like a JVM's library and has none of its tables is a library like any other, and that is said.
#[test]
fn jvm_without_tables() {
    let _turn = turn::together();
    let (subject, _) = done("fake_jvm", &[]);
    let _stopped = Stopped::new(&subject);
    let footprint = Footprint::of(subject.pid());
    footprint.assert_adds_up("a JVM without tables");
    assert_eq!(footprint.rss(), kernels_rss(subject.pid()), "{}", footprint.0);
    assert!(footprint.notes().contains("JVM"), "{}", footprint.0);
    assert!(footprint.row("malloc_live") > 0, "{}", footprint.0);
    assert!(footprint.row("java_heap_used") == 0, "{}", footprint.0);
}

/// Where the files of control groups are hidden there is no container, and all the rest.
#[test]
fn hidden_control_groups() {
    let _turn = turn::together();
    let (subject, _) = done("residency", &[]);
    let _stopped = Stopped::new(&subject);
    let memtrace = Memtrace::with_mounts("mount -t tmpfs none /sys/fs/cgroup", "");
    let outcome = memtrace.args(["footprint", &subject.pid().to_string(), "--json", "-"]).run();
    let footprint = Footprint::told(&outcome);
    footprint.assert_adds_up("hidden control groups");
    assert_eq!(footprint.rss(), kernels_rss(subject.pid()), "{}", footprint.0);
    assert!(footprint.0.get("container").is_none_or(|it| it.is_null()), "{}", footprint.0);
    let shown = Footprint::of(subject.pid());
    let is_there = |value: &Footprint| value.0["container"]["usage_bytes"].is_u64();
    if !is_there(&shown) {
        skip("footprint_bad_input::hidden_control_groups", "no control group here to be hidden");
    }
}

/// A process that grows, forks, or executes itself all the time: each look adds up.
#[test]
fn changes_meanwhile() {
    let _turn = turn::together();
    for how in ["grow", "fork", "exec"] {
        let (subject, _) = done("changing", &[how]);
        for n in 0..N_LOOKS {
            let outcome = footprint(subject.pid(), &["--json", "-"]);
            assert!(!outcome.stderr.contains("panicked"), "{how}: {}", outcome.stderr);
            let footprint = Footprint::told(&outcome);
            footprint.assert_adds_up(&format!("{how}, look {n}"));
            assert!(footprint.rss() > 0, "{how}: {}", footprint.0);
        }
    }
}

/// A process that ends at any time of a look, before it, or after it: a footprint that adds up, or one line that says
/// that it has ended.
#[test]
fn ends_meanwhile() {
    let _turn = turn::together();
    let (mut n_seen, mut n_gone) = (0, 0);
    for n in 0..2 * N_LOOKS as u64 {
        let mut subject = Subject::ready(&built("changing"), &["exit"]);
        let pid = subject.pid();
        if n == 0 {
            subject.begin();
            while !fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") Z ") {
                sleep(Duration::from_millis(1));
            }
        }
        let looking = Memtrace::new().args(["footprint", &pid.to_string(), "--json", "-"]).start();
        sleep(Duration::from_micros(250 * n));
        let outcome = if n + 1 == 2 * N_LOOKS as u64 {
            let outcome = looking.end();
            subject.begin();
            outcome
        } else {
            subject.begin();
            looking.end()
        };
        assert!(subject.wait().success());
        match outcome.code() {
            Some(0) => {
                Footprint::told(&outcome).assert_adds_up(&format!("look {n}"));
                n_seen += 1;
            }
            _ => {
                assert_refused(&outcome, &pid.to_string());
                n_gone += 1;
            }
        }
    }
    eprintln!("{n_seen} seen, {n_gone} gone");
    assert!(n_seen > 0 && n_gone > 0);
    let after = footprint(Command::new("true").spawn().map(ended).unwrap(), &[]);
    assert_refused(&after, "no such process");
}

fn ended(mut child: std::process::Child) -> u32 {
    child.wait().unwrap();
    child.id()
}

/// `--watch` ends with the process, with Ctrl-C, and when nobody reads any more; each time as a success.
#[test]
fn watch_ends() {
    let _turn = turn::together();
    let watch = |pid: u32| {
        Memtrace::new().args(["footprint", &pid.to_string(), "--watch", "1s", "--json", "-"])
    };
    let (subject, _) = done("residency", &[]);
    let watching = watch(subject.pid()).start();
    sleep(Duration::from_millis(1500));
    assert!(subject.leave().success());
    let outcome = watching.end();
    assert_eq!(outcome.code(), Some(0), "{}", outcome.stderr);
    let lines: Vec<Footprint> = outcome.stdout.lines().map(Footprint::parse).collect();
    assert!(lines.len() >= 2, "{}", outcome.stdout);
    lines.iter().for_each(|line| line.assert_adds_up("a line of --watch"));

    let (subject, _) = done("residency", &[]);
    let watching = watch(subject.pid()).start();
    sleep(Duration::from_millis(1500));
    let began = Instant::now();
    let outcome = watching.stop();
    assert_eq!(outcome.code(), Some(0), "{}", outcome.stderr);
    assert!(began.elapsed() < Duration::from_millis(900), "it waited for the next look");
    assert!(outcome.stdout.lines().count() >= 2, "{}", outcome.stdout);

    let mut memtrace = watch(subject.pid());
    let mut child = memtrace.raw().stdout(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 1];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    drop(child.stdout.take());
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "nobody reads, and it goes on");
        sleep(Duration::from_millis(20));
    };
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.is_empty(), "{said}");
}

/// The id of a thread is refused with the process to name instead.
#[test]
fn thread_of_a_process() {
    let _turn = turn::together();
    let (subject, _) = done("crowd", &["1", "4"]);
    let pid = subject.pid();
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let tids = tasks.map(|task| task.unwrap().file_name().into_string().unwrap());
    let tid = tids.map(|tid| tid.parse::<u32>().unwrap()).find(|&tid| tid != pid).unwrap();
    for options in [&[][..], &["--watch", "1s"]] {
        let outcome = footprint(tid, options);
        assert_refused(&outcome, &format!("{tid} is a thread of process {pid}"));
    }
}
