//! The main job: the start-up of a real application, and the thread that makes it grow.

use std::process::Command;

use memtrace_tests::{
    bpftrace::{self, SYSCALLS},
    demo::{JVM_OPTIONS, jar},
    java::{Jdk, all_jdks, system_jdk},
    memtrace::Memtrace,
    report::{Report, Thread},
    skip::runs_all,
    subject::Subject,
    turn,
};

const SCANNER: &str = "mcc-config-scanner";

/// A shell that says `ready`, waits for a line, and then becomes the demo application.
fn waiting_demo(jdk: &Jdk, options: &[&str]) -> Subject {
    let mut shell = Command::new("sh");
    shell.args(["-c", "echo ready; read line; exec \"$@\"", "sh"]);
    shell.arg(jdk.java()).args(JVM_OPTIONS).args(["-Ddemo.once=true"]).args(options);
    Subject::start(shell.arg("-jar").arg(jar()))
}

fn by(threads: &mut [Thread], key: impl Fn(&Thread) -> u64) -> Vec<&str> {
    threads.sort_by_key(|thread| std::cmp::Reverse(key(thread)));
    threads.iter().map(|thread| thread.name.as_str()).collect()
}

fn assert_scanner_leads(report: &Report) {
    let mut threads = report.threads();
    assert_eq!(by(&mut threads, |thread| thread.inflaters)[0], SCANNER);
    let by_bytes = by(&mut threads, |thread| thread.mapped);
    assert!(by_bytes[..2].contains(&SCANNER), "{by_bytes:?}");
}

/// Stacks are copied up to 64 KiB. The launcher's `find_file` alone has a larger frame, when it reads the jar's manifest.
fn assert_only_the_launcher_is_cut(report: &Report) {
    let stacks = report.value()["stacks"].as_array().expect("a list").clone();
    let cut: Vec<_> = stacks.iter().filter(|stack| stack["quality"] == "truncated").collect();
    let is_launcher =
        |stack: &&serde_json::Value| stack["frames"].to_string().contains("JLI_ParseManifest");
    assert!(cut.iter().all(is_launcher), "{cut:#?}");
    assert!(report.stacks_that_are("truncated") <= 2);
}

/// The scanner comes first, every call and every Inflater is counted as bpftrace counts them
/// beside it, and nothing is lost.
#[test]
fn start_up() {
    let _turn = turn::alone();
    let jdks = if runs_all() { all_jdks() } else { vec![system_jdk()] };
    // The jar lies outside of the roots that some JDKs are in.
    for jdk in jdks.iter().filter(|jdk| jdk.major >= 11 && !jdk.is_in_own_root()) {
        let mut subject = waiting_demo(jdk, &[]);
        let counting = bpftrace::count(subject.pid(), Some(&jdk.libzip()));
        let tracing = Memtrace::of_process(subject.pid()).attached();
        subject.begin();
        assert!(subject.wait().success(), "{jdk:?}");
        let report = tracing.end().report();
        let counted = counting.stop();

        assert!(report.lost().is_empty(), "{jdk:?} {:?}", report.lost());
        let streams = ["inflater_init", "inflater_end", "deflater_init", "deflater_end"];
        for kind in SYSCALLS.iter().chain(&streams) {
            let n = counted.get(*kind).copied().unwrap_or_default();
            assert_eq!(report.events(kind), n, "{jdk:?} {kind}");
        }
        assert!(report.events("inflater_init") > 50_000, "{jdk:?}");
        assert_scanner_leads(&report);
        assert_only_the_launcher_is_cut(&report);
    }
}

/// Launched by memtrace it is the same, and the scan that closes its Inflaters opens hardly any.
#[test]
fn launched() {
    let _turn = turn::alone();
    let jdk = system_jdk();
    let run = |options: &[&str]| {
        let memtrace = Memtrace::with_json().arg("--").arg(jdk.java());
        let memtrace = memtrace.args(JVM_OPTIONS).arg("-Ddemo.once=true").args(options);
        memtrace.arg("-jar").arg(jar()).run().report()
    };
    let leaking = run(&[]);
    assert_scanner_leads(&leaking);
    assert!(leaking.lost().is_empty(), "{:?}", leaking.lost());
    let scanner = leaking.thread_named(SCANNER);

    let closing = run(&["-Ddemo.closeInflaters=true"]);
    let closer = closing.thread_named(SCANNER);
    assert!(closer.inflaters * 5 < scanner.inflaters, "{closer:?} {scanner:?}");
}
