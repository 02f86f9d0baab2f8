//! `memtrace compare`: what the settings do is measured, what fails is told, and nothing is left.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    thread::sleep,
    time::{Duration, Instant},
};

use memtrace_tests::{
    fixtures::built,
    java::{classes, system_jdk},
    memtrace::{Memtrace, Outcome},
    turn,
};
use serde_json::Value;

const MIB: u64 = 1 << 20;
/// What two starts of the same program differ by.
const NOISE: u64 = MIB;
/// A variable that tells the processes of one test from all others.
const MARK: &str = "MEMTRACE_TEST_MARK";

/// A comparison whose processes are known by their mark.
struct Comparing {
    memtrace: Memtrace,
    mark: String,
}

impl Comparing {
    fn new(name: &str, options: &[&str]) -> Self {
        let mark = format!("{name}-{}", std::process::id());
        let mut memtrace = Memtrace::new().arg("compare").args(options).file("--json", "c.json");
        memtrace.raw().env(MARK, &mark);
        Self { memtrace, mark }
    }

    /// Runs it with the fixture `starts` as its command.
    fn of_starts(self, what: &[&str]) -> Outcome {
        self.of(built("starts").to_str().unwrap(), what)
    }

    fn of(self, program: &str, arguments: &[&str]) -> Outcome {
        let outcome = self.memtrace.command(program, arguments).run();
        assert_none_left(&self.mark);
        outcome
    }
}

/// Processes with this mark in their environment.
fn marked(mark: &str) -> Vec<String> {
    let wanted = format!("{MARK}={mark}");
    let has_mark = |folder: &std::path::Path| {
        let environment = fs::read(folder.join("environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|variable| variable == wanted.as_bytes())
    };
    let folders = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    folders.filter(|path| has_mark(path)).map(|path| path.display().to_string()).collect()
}

fn assert_none_left(mark: &str) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !marked(mark).is_empty() {
        assert!(Instant::now() < deadline, "left: {:?}", marked(mark));
        sleep(Duration::from_millis(20));
    }
}

fn document(outcome: &Outcome) -> Value {
    let document: Value = serde_json::from_str(&outcome.written("c.json")).unwrap();
    assert_eq!(document["schema"], 1);
    document
}

fn number(variant: &Value, measure: &str) -> u64 {
    variant[measure]["median"].as_u64().unwrap_or_else(|| panic!("{measure}: {variant}"))
}

/// A setting that makes 40 MiB more resident is seen in settled and peak memory and in its row; one that does nothing is no
/// larger than the spread.
#[test]
fn measures() {
    let _turn = turn::together();
    let options = ["--with", "STARTS_MIB=60", "--with", "NOTHING='a b' OTHER=", "--runs", "3"];
    let comparing = Comparing::new("measures", &options);
    let outcome =
        Comparing { memtrace: comparing.memtrace.args(["--until", "Started"]), ..comparing };
    let outcome = outcome.of_starts(&[]);
    assert_eq!(outcome.code(), Some(0), "{}", outcome.stderr);
    let document = document(&outcome);
    let [plain, large, same] = document["variants"].as_array().unwrap().as_slice() else {
        panic!("{document}")
    };
    assert_eq!(plain["name"], "plain");
    assert_eq!(same["environment"]["NOTHING"], "a b");
    for measure in ["settled_rss_bytes", "peak_rss_bytes"] {
        let more = number(large, measure) - number(plain, measure);
        assert!(more.abs_diff(40 * MIB) < NOISE, "{measure}: {more}");
        assert!(number(plain, measure).abs_diff(20 * MIB) < 4 * MIB, "{plain}");
        assert_eq!(large[measure]["against_plain"]["larger_than_spread"], true, "{large}");
        assert!(number(same, measure).abs_diff(number(plain, measure)) < NOISE);
    }
    for variant in [plain, large, same] {
        let rows = variant["rows"].as_array().unwrap().iter();
        let sum: u64 = rows.map(|row| number(row, "resident_bytes")).sum();
        assert!(sum.abs_diff(number(variant, "settled_rss_bytes")) < NOISE, "{variant}");
        assert_eq!(variant["runs"].as_array().unwrap().len(), 3);
        let startup = variant["startup_seconds"]["median"].as_f64().unwrap();
        assert!((0.0..10.0).contains(&startup), "{variant}");
    }
    assert!(outcome.stdout.contains("against plain"), "{}", outcome.stdout);
    assert!(outcome.stderr.contains("what they print is dropped"), "{}", outcome.stderr);
}

/// Without a text to wait for, memory has to stand still for five seconds; a start that ends by itself is measured as well.
#[test]
fn settles() {
    let _turn = turn::together();
    let settled = Comparing::new("settles", &["--with", "A=1", "--runs", "1"]).of_starts(&[]);
    assert_eq!(settled.code(), Some(0), "{}", settled.stderr);
    assert!(settled.stdout.contains("one run does not tell the spread"), "{}", settled.stdout);
    let plain = &document(&settled)["variants"][0];
    assert!(plain["startup_seconds"]["median"].as_f64().unwrap() < 5.0, "{plain}");
    let ended = Comparing::new("ends", &["--with", "A=1", "--runs", "1"]).of_starts(&["ends"]);
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    let variant = &document(&ended)["variants"][0];
    assert!(variant["runs"][0]["settled"].is_null() && variant["settled_rss_bytes"].is_null());
    assert!(ended.stdout.contains("ended by itself"), "{}", ended.stdout);
    let passed = Comparing::new("passes", &["--with", "A=1", "--runs", "1", "--until", "500ms"]);
    let passed = passed.of_starts(&[]);
    assert_eq!(passed.code(), Some(0), "{}", passed.stderr);
    assert!(document(&passed)["variants"][1]["startup_seconds"].is_null());
}

/// What fails, hangs or ends too early is told with its reason; the others are measured all the same.
#[test]
fn failures() {
    let _turn = turn::together();
    // (fixture, options, why, what is shown of its output)
    let cases: [(&str, &[&str], &str, &str); 4] = [
        ("fails", &[], "it ended with exit status 7", "| no database"),
        ("escape", &[], "it ended with exit status 1", r"| red\x1b[31m"),
        (
            "grows",
            &["--timeout", "1s"],
            "it was not ready after 1 s (--timeout)",
            "it printed nothing",
        ),
        ("ends", &["--until", "Never"], "it ended before that was seen", "| Started"),
    ];
    for (what, options, why, shown) in cases {
        let options = [&["--with", "A=1", "--runs", "3"], options].concat();
        let outcome = Comparing::new(what, &options).of_starts(&[what]);
        assert_eq!(outcome.code(), Some(2), "{what}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("nothing could be measured"), "{}", outcome.stderr);
        let text = &outcome.stdout;
        assert!(text.contains(why) && text.contains(shown), "{what}: {text}");
        assert!(text.contains("2 of 2 starts, so it was not started again"), "{what}: {text}");
    }
    // A variant alone that fails.
    let script = r#"test -z "$BROKEN" || { echo broken; exit 3; }; exec "$0""#;
    let options = ["--with", "BROKEN=1", "--runs", "3", "--until", "Started"];
    let comparing = Comparing::new("broken", &options);
    let outcome = comparing.of("sh", &["-c", script, built("starts").to_str().unwrap()]);
    assert_eq!(outcome.code(), Some(3), "{}", outcome.stderr);
    let document = document(&outcome);
    assert_eq!(document["variants"][0]["runs"].as_array().unwrap().len(), 3);
    assert_eq!(document["variants"][1]["failures"].as_array().unwrap().len(), 2);
    assert!(outcome.stdout.contains("failed: BROKEN=1"), "{}", outcome.stdout);
}

/// A daemon is followed though its first process has ended; it ends with its start, and so does what ignores SIGTERM.
#[test]
fn daemons() {
    let _turn = turn::together();
    let options = ["--with", "STARTS_MIB=40", "--runs", "1", "--until", "Started"];
    let outcome = Comparing::new("daemons", &options).of_starts(&["daemon"]);
    assert_eq!(outcome.code(), Some(0), "{}", outcome.stderr);
    assert!(outcome.stdout.contains("its first process ended"), "{}", outcome.stdout);
    let variant = &document(&outcome)["variants"][1];
    assert!(number(variant, "settled_rss_bytes").abs_diff(40 * MIB) < 4 * MIB, "{variant}");
    let options = ["--with", "A=1", "--runs", "1", "--until", "Started"];
    let stubborn = Comparing::new("stubborn", &options).of_starts(&["stubborn"]);
    assert_eq!(stubborn.code(), Some(0), "{}", stubborn.stderr);
    assert!(stubborn.stdout.contains("processes; pages that they share"), "{}", stubborn.stdout);
}

/// A JVM: options stand behind `java`, or reach it by its environment; a port that is taken fails at once.
#[test]
fn jvms() {
    let _turn = turn::together();
    let (java, classes) = (system_jdk().java(), classes());
    let (java, classes) = (java.to_str().unwrap(), classes.to_str().unwrap());
    let options = ["--with", "-XX:+UseSerialGC -Xmx64m", "--with", "-XX:+Nonsense"];
    let common = ["--runs", "2", "--until", "Started"];
    let comparing = Comparing::new("jvms", &[&options[..], &common].concat());
    let outcome = comparing.of(java, &["-XX:+UseG1GC", "-cp", classes, "Starts"]);
    // Two collectors at once are refused, and so is nonsense: the plain command is measured.
    assert_eq!(outcome.code(), Some(3), "{}", outcome.stderr);
    assert!(outcome.stdout.contains("Unrecognized VM option 'Nonsense'"), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("garbage collectors selected"), "{}", outcome.stdout);

    let logs = tempfile::tempdir().unwrap();
    let options = ["--with", "-Dx='a b' -Xmx65m", "--logs", logs.path().to_str().unwrap()];
    let comparing = Comparing::new("by-environment", &[&options[..], &common].concat());
    let script = format!("exec {java} -cp {classes} Starts");
    let outcome = comparing.of("sh", &["-c", &script]);
    assert_eq!(outcome.code(), Some(0), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("sh is no java"), "{}", outcome.stderr);
    let log = fs::read_to_string(logs.path().join("1-2.log")).unwrap();
    assert!(log.contains("JAVA_TOOL_OPTIONS: \"-Dx=a b\" -Xmx65m"), "{log}");
    assert!(!fs::read_to_string(logs.path().join("0-1.log")).unwrap().contains("-Xmx65m"));
    assert!(document(&outcome)["variants"][1]["by_environment"].as_bool().unwrap());

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let began = Instant::now();
    let comparing = Comparing::new("port", &["--with", "A=1"]);
    let outcome = comparing.of(java, &["-cp", classes, "Starts", &port]);
    assert_eq!(outcome.code(), Some(2), "{}", outcome.stderr);
    assert!(outcome.stdout.contains("Address already in use"), "{}", outcome.stdout);
    assert!(began.elapsed() < Duration::from_secs(40), "it should fail fast");
}

/// Ctrl-C ends what runs, and what is known is printed; a memtrace that is killed takes its command with it.
#[test]
fn interrupted() {
    let _turn = turn::together();
    let options = ["--with", "A=1", "--runs", "900", "--until", "Started"];
    let Comparing { memtrace, mark } = Comparing::new("interrupted", &options);
    let memtrace = memtrace.command(built("starts"), &[]).start();
    memtrace.await_part("round 2 of 900");
    let outcome = memtrace.stop();
    assert_eq!(outcome.code(), Some(3), "{}", outcome.stderr);
    assert!(outcome.stdout.contains("ended early by the user"), "{}", outcome.stdout);
    assert_eq!(document(&outcome)["interrupted"], true);
    assert_none_left(&mark);

    let options = ["--with", "A=1", "--until", "1h", "--timeout", "2h"];
    let Comparing { memtrace, mark } = Comparing::new("killed", &options);
    let memtrace = memtrace.command(built("starts"), &[]).start();
    let is_started = || marked(&mark).len() == 2;
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_started() && Instant::now() < deadline {
        sleep(Duration::from_millis(20));
    }
    assert!(is_started(), "{:?}", marked(&mark));
    memtrace.signal(libc::SIGKILL);
    assert_eq!(memtrace.end().code(), None);
    assert_none_left(&mark);
}

/// What can't be understood, found or written is told before anything is started.
#[test]
fn refused() {
    let _turn = turn::together();
    // (arguments, what is said)
    let cases: [(&[&str], &str); 7] = [
        (&["--with", "jemalloc", "--", "true"], "neither NAME=VALUE nor an option"),
        (&["--with", "", "--", "true"], "there is no setting in it"),
        (&["--with", "LD_PRELOAD=/no/such.so", "--", "true"], "there is no file /no/such.so"),
        (&["--with", "A=1", "--", "/no/such/program"], "failed to find /no/such/program"),
        (&["--with", "A=1", "--json", "/no/such/folder/x", "--", "true"], "failed to create"),
        (&["--with", "A=1", "--until", "", "--", "true"], "an empty text is seen at once"),
        (&["--with", "A=1", "--until", "6m", "--", "true"], "no shorter than --timeout"),
    ];
    for (arguments, says) in cases {
        let outcome = Memtrace::new().arg("compare").args(arguments).run();
        assert_eq!(outcome.code(), Some(2), "{arguments:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(says), "{arguments:?}: {}", outcome.stderr);
        assert!(!outcome.stderr.contains("round 1"), "{arguments:?}: {}", outcome.stderr);
        assert!(outcome.stdout.is_empty(), "{}", outcome.stdout);
    }
}
