//! What is the matter: causes that run, each with a look-alike, and applications that are healthy.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use memtrace_tests::{
    demo::{JVM_OPTIONS, jar},
    fixtures::built,
    java::system_jdk,
    memtrace::{Memtrace, Outcome},
    report::Report,
    said::Said,
    subject::Subject,
    turn,
};
use serde_json::Value;

const STORY: &str = "inflaters-left-to-collector";
const SCANNER: &str = "mcc-config-scanner";
const MIB: u64 = 1 << 20;
/// What the estimates may be off by that count calls and not pages, of a hundred.
const MAX_OFF_PERCENT: u64 = 10;

fn findings(report: &Report) -> Vec<Value> {
    report.value()["findings"].as_array().expect("there was a footprint").clone()
}

/// The ids of what is suspicious, in order.
fn suspicious(report: &Report) -> Vec<String> {
    let found = findings(report).into_iter().filter(|it| it["verdict"] == "suspicious");
    found.map(|it| it["id"].as_str().unwrap().to_owned()).collect()
}

fn finding(report: &Report, id: &str) -> Value {
    let found = findings(report).into_iter().find(|it| it["id"] == id);
    found.unwrap_or_else(|| panic!("no {id} in {:#?}", findings(report)))
}

fn bytes(finding: &Value) -> u64 {
    finding["bytes"].as_u64().unwrap()
}

fn retained(report: &Report) -> u64 {
    report.value()["retained"]["bytes"].as_u64().unwrap()
}

/// Not one finding that is suspicious.
fn assert_healthy(report: &Report, about: &str) {
    let all = findings(report);
    assert_eq!(suspicious(report), Vec::<String>::new(), "{about}: {all:#?}");
}

/// The demo application as it starts, traced until its scan is over and it has calmed down; `busy` keeps it busy then.
fn demo(options: &[&str], busy: impl FnOnce()) -> Outcome {
    let mut shell = Command::new("sh");
    shell.args(["-c", "echo ready; read line; exec \"$@\"", "sh"]);
    shell.arg(system_jdk().java()).args(JVM_OPTIONS).args(options).arg("-jar").arg(jar());
    let mut subject = Subject::start(&mut shell);
    let tracing = Memtrace::of_process(subject.pid()).recorded().attached();
    subject.begin();
    subject.hear_until("demo: scan finished");
    thread::sleep(Duration::from_secs(8));
    busy();
    tracing.stop()
}

/// The article's story: it comes first, and has everything in it; recorded it is the same.
#[test]
fn story() {
    let _turn = turn::alone();
    let outcome = demo(&[], || ());
    let report = outcome.report();
    let all = findings(&report);
    assert_eq!(all[0]["id"], STORY, "{all:#?}");
    let said = all[0]["evidence"].to_string();
    let scanner = report.thread_named(SCANNER);
    for part in [SCANNER, "Common-Cleaner", "and 0 by `close`", "arena", "resident"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(scanner.inflaters > 40_000, "{scanner:?}");
    let call = all[0]["call"].to_string();
    assert!(call.contains("org.reflections.Reflections.<init>"), "{call}");
    assert!(call.contains("demo.ConfigScanner.scan"), "{call}");
    let of_story = bytes(&all[0]);
    assert!(of_story > retained(&report) / 2 && of_story <= retained(&report), "{all:#?}");
    // The screen begins with it.
    let screen = &outcome.stdout;
    let (heading, tables) = (screen.find("\nFindings\n"), screen.find("\nMemory\n"));
    assert!(heading.unwrap() < tables.unwrap(), "{screen}");
    assert!(screen.contains("leaves its Inflaters to the garbage"), "{screen}");
    let again = Memtrace::report_of(&outcome.file("trace.mt")).run();
    assert_eq!(again.report().value()["findings"], report.value()["findings"]);
    assert_eq!(again.stdout, outcome.stdout);
}

/// What the story advises returns what it says: of the pages that malloc keeps free, as much less is there.
#[test]
fn story_followed() {
    let _turn = turn::alone();
    let before = demo(&[], || ()).report();
    let story = finding(&before, STORY);
    let after = demo(&["-Ddemo.scan=own", "-Ddemo.closeInflaters=true"], || ()).report();
    assert_healthy(&after, "demo");
    let saved = retained(&before).saturating_sub(retained(&after));
    let remedy = &story["remedies"][0];
    let least = remedy["returns_bytes_min"].as_u64().unwrap();
    assert!(saved >= least, "{saved} of {story:#}");
}

/// A Tomcat within an application, under load.
#[test]
fn healthy_tomcat() {
    let _turn = turn::alone();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let option = format!("-Dserver.port={port}");
    let options = ["-Ddemo.scan=own", "-Ddemo.closeInflaters=true", &option];
    let mut n = 0;
    let outcome = demo(&options, || n = load(port));
    assert!(n > 1000, "{n} requests");
    assert_healthy(&outcome.report(), "tomcat");
    assert!(outcome.stdout.contains("nothing suspicious"), "{}", outcome.stdout);
}

/// Requests from sixteen clients for some seconds; how many were answered.
fn load(port: u16) -> usize {
    let until = Instant::now() + Duration::from_secs(10);
    let client = move || {
        let mut n = 0;
        while Instant::now() < until {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let request = format!("GET /{n} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = Vec::new();
            n += usize::from(stream.read_to_end(&mut answer).is_ok() && !answer.is_empty());
        }
        n
    };
    let clients: Vec<_> = (0..16).map(|_| thread::spawn(client)).collect();
    clients.into_iter().map(|client| client.join().unwrap()).sum()
}

fn caused(arguments: &[&str], options: &[&str]) -> (Said, Report) {
    let mut jvm = vec!["-Xmx256m", "-Xss512k"];
    jvm.extend(options);
    let mut subject = Subject::ready_java(&system_jdk(), &jvm, "Causes", arguments);
    let tracing = Memtrace::of_process(subject.pid()).attached();
    let said = subject.finish();
    let outcome = tracing.stop();
    assert!(subject.leave().success());
    (said, outcome.report())
}

/// Each cause is found first, with as many bytes as the fixture holds; its look-alike is none.
#[test]
fn causes_and_look_alikes() {
    let _turn = turn::together();
    // (cause, its finding, look-alike)
    let cases: [(&[&str], &str, &[&str]); 4] = [
        (&["inflaters", "2000"], "inflaters-never-ended", &["pool", "2000"]),
        (&["deflaters", "300"], "deflaters-never-ended", &["gzip"]),
        (&["direct", "96"], "direct-buffers", &["buffers", "96"]),
        (&["temporary", "12"], "nio-temporary-buffers", &["pieces", "12"]),
    ];
    for (cause, id, look_alike) in cases {
        let (said, report) = caused(cause, &[]);
        assert_eq!(suspicious(&report), [id], "{cause:?} {:#?}", findings(&report));
        let (found, held) = (bytes(&finding(&report, id)), said.number("bytes"));
        let may_be_off = held * MAX_OFF_PERCENT / 100;
        assert!(found.abs_diff(held) <= may_be_off, "{cause:?}: {found} of {held}");
        assert_healthy(&caused(look_alike, &[]).1, look_alike[0]);
    }
}

/// Threads with deep stacks, and as many with shallow ones.
#[test]
fn deep_stacks() {
    let _turn = turn::together();
    let (_, report) = caused(&["deep", "300"], &[]);
    assert_eq!(suspicious(&report), ["thread-stacks"], "{:#?}", findings(&report));
    let rows = report.value()["footprint"]["rows"].as_array().unwrap();
    let row = rows.iter().find(|row| row["kind"] == "thread_stacks").unwrap();
    assert_eq!(row["resident_bytes"].as_u64(), Some(bytes(&finding(&report, "thread-stacks"))));
    assert_healthy(&caused(&["shallow", "300"], &[]).1, "shallow");
}

/// A heap that was needed once is told of, and is nothing to worry about.
#[test]
fn heap_by_design() {
    let _turn = turn::together();
    let (_, report) = caused(&["garbage"], &["-Xms600m", "-Xmx600m"]);
    assert_healthy(&report, "garbage");
    let unused = finding(&report, "java-heap-not-used");
    assert_eq!(unused["verdict"], "by_design");
    assert!(bytes(&unused) > 300 * MIB, "{unused:#}");
    assert_eq!(unused["remedies"][0]["returns_bytes_max"], 0, "-Xms keeps it: {unused:#}");
}

/// Free pages of a burst, with bytes as the program knows them, and a JVM that is only idle.
#[test]
fn burst_and_idle() {
    let _turn = turn::together();
    let mut subject = Subject::ready(&built("retained"), &["own"]);
    let tracing = Memtrace::of_process(subject.pid()).attached();
    let said = subject.finish();
    let report = tracing.stop().report();
    assert!(subject.leave().success());
    let truth: u64 = said.numbers_of("thread", "resident").values().sum();
    let found = bytes(&finding(&report, "arena-retention"));
    assert!(found.abs_diff(truth) <= truth / 50, "{found} of {truth}");

    let mut subject = Subject::ready_java(&system_jdk(), &[], "Idle", &[]);
    let tracing = Memtrace::of_process(subject.pid()).attached();
    subject.finish();
    thread::sleep(Duration::from_secs(3));
    assert_healthy(&tracing.stop().report(), "idle");
    assert!(subject.leave().success());
}
