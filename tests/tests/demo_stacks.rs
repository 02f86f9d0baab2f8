//! The demo application's stacks with Java's frames: whole, and possible by what its classes call.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Write, stderr},
};

use memtrace_tests::{
    calls::{Calls, class_path},
    demo::{JVM_OPTIONS, jar},
    java::system_jdk,
    memtrace::Memtrace,
    report::{Report, Stack},
    turn,
};
use serde_json::Value;

const SCANNER: &str = "mcc-config-scanner";

/// A Java frame's class and method.
type Method<'a> = (&'a str, &'a str);

/// The class and method of a frame, if it is Java's and no guess, which says itself that it may be wrong; names of native
/// functions have no package.
fn method(frame: &str) -> Option<Method<'_>> {
    if frame.ends_with("_[?]") {
        return None;
    }
    let (class, method) = frame.rsplit_once('.')?;
    let is_native = frame.contains("::") || frame.contains('+') || frame.starts_with('[');
    let starts_name = |part: &str| {
        part.starts_with(|c: char| c.is_alphabetic() || c == '_' || c == '$' || c == '<')
    };
    let is_java = class.contains('.') && starts_name(method) && class.split('.').all(starts_name);
    (is_java && !is_native).then_some((class, method))
}

/// Every caller with every method that stands directly below it.
fn pairs(report: &Report) -> BTreeSet<(Method<'_>, Method<'_>)> {
    let stacks = report.value()["stacks"].as_array().expect("a report has stacks");
    let mut pairs = BTreeSet::new();
    for stack in stacks {
        let frames = stack["frames"].as_array().expect("a stack has frames");
        for pair in frames.windows(2) {
            let of = |at: usize| pair[at].as_str().and_then(method);
            pairs.extend(of(0).zip(of(1)));
        }
    }
    pairs
}

/// Whether a class was made while the application ran: no file tells what it calls.
fn is_made(class: &str) -> bool {
    [
        "$$Lambda",
        "$Proxy",
        "$$EnhancerBy",
        "$$FastClassBy",
        "$$KeyFactoryBy",
        "LambdaForm$",
        "/0x",
        "+0x",
        "reflect.Generated",
        "BySpringCGLIB",
        "$Holder",
        "Species_",
    ]
    .iter()
    .any(|part| class.contains(part))
}

/// Whether `caller` may have called `callee`: it has a call of that name, or one that is linked at run time and leads
/// there by way of the JDK's method handles.
fn may_call(calls: &Calls, caller: Method<'_>, callee: Method<'_>) -> bool {
    let Some(called) = calls.of(caller.0, caller.1) else { return false };
    let is_linked = callee.0.starts_with("java.lang.invoke.") || callee.0.contains("$$Lambda");
    called.names.contains(callee.1) || called.is_dynamic && is_linked
}

/// A stack in which `callee` stands directly below `caller`, as it is reported.
fn first_with<'a>(report: &'a Report, caller: Method<'_>, callee: Method<'_>) -> Option<&'a Value> {
    let stacks = report.value()["stacks"].as_array()?;
    stacks.iter().find(|stack| {
        let frames = stack["frames"].as_array().map(Vec::as_slice).unwrap_or_default();
        let of = |frame: &'a Value| frame.as_str().and_then(method);
        frames.windows(2).any(|pair| (of(&pair[0]), of(&pair[1])) == (Some(caller), Some(callee)))
    })
}

fn assert_legal(report: &Report) {
    let pairs = pairs(report);
    let folder = tempfile::tempdir().expect("there is room for the jars");
    let path = class_path(&jar(), folder.path());
    let callers: BTreeSet<&str> =
        pairs.iter().map(|((class, _), _)| *class).filter(|class| !is_made(class)).collect();
    let calls = Calls::read(&path, callers.iter().copied());
    // Groovy makes classes with names as any other's.
    let unknown: Vec<_> = callers.iter().filter(|class| !calls.knows(class)).collect();
    let _ = writeln!(stderr(), "made at run time, as it seems: {unknown:?}");
    assert!(unknown.len() * 200 <= callers.len(), "no class file was found of {unknown:#?}");

    let checked = pairs.iter().filter(|((class, _), _)| calls.knows(class));
    let illegal: Vec<_> =
        checked.clone().filter(|(caller, callee)| !may_call(&calls, *caller, *callee)).collect();
    for (caller, callee) in &illegal {
        if let Some(stack) = first_with(report, *caller, *callee) {
            let _ = writeln!(stderr(), "not legal: {stack:#}");
        }
    }
    let (n_checked, n_made) = (checked.count(), pairs.len());
    let _ = writeln!(stderr(), "{n_checked} of {n_made} pairs of caller and callee were checked");
    assert!(illegal.is_empty(), "{} of {n_checked}: {illegal:#?}", illegal.len());
    assert!(n_checked > 1000, "only {n_checked} pairs were checked");
    assert!(n_checked * 100 > n_made * 90, "{} callers are made at run time", n_made - n_checked);
}

/// From the thread's start by way of the application's scanner to the opening, in this order.
fn assert_scanned(stack: &Stack) {
    let order = [
        "java.lang.Thread.run",
        "demo.ConfigScanner.run",
        "java.util.zip.Inflater.<init>",
        "java.util.zip.Inflater.init",
        "Java_java_util_zip_Inflater_init",
    ];
    let mut frames = stack.frames.iter();
    for name in order {
        assert!(frames.any(|frame| frame.starts_with(name)), "{name} is missing: {stack:#?}");
    }
}

/// Of the stacks at least 99.5 % are whole, at most 0.5 % of those have an uncertain frame, and no Java method stands
/// below one that does not call it.
#[test]
fn whole_and_legal() {
    let _turn = turn::alone();
    let memtrace = Memtrace::with_json().arg("--").arg(system_jdk().java());
    let memtrace = memtrace.args(JVM_OPTIONS).arg("-Ddemo.once=true").arg("-jar").arg(jar());
    let report = memtrace.run().report();
    // Maps are read again where the kernel's word of them was lost: that costs no event.
    let lost: Vec<_> = report.lost().into_iter().filter(|(name, _)| name != "code_maps").collect();
    assert!(lost.is_empty(), "{lost:?}");

    let kinds = ["complete", "approximate", "truncated", "broken"];
    let counts: BTreeMap<&str, u64> =
        kinds.iter().map(|kind| (*kind, report.stacks_that_are(kind))).collect();
    let _ = writeln!(stderr(), "stacks: {counts:?}");
    let n: u64 = counts.values().sum();
    let n_whole = counts["complete"] + counts["approximate"];
    assert!(n_whole * 1000 >= n * 995, "{counts:?}");
    assert!(counts["approximate"] * 1000 <= n_whole * 5, "{counts:?}");

    let scanner = report.thread_named(SCANNER).tid;
    let stacks = report.stacks("inflaters");
    let scanned: Vec<&Stack> =
        stacks.iter().filter(|stack| stack.tid == scanner && stack.quality == "complete").collect();
    let n_scanned: u64 = scanned.iter().map(|stack| stack.value).sum();
    assert!(n_scanned > 40_000, "{n_scanned}");
    scanned.iter().for_each(|stack| assert_scanned(stack));
    let is_scan =
        |stack: &&&Stack| stack.frames.iter().any(|frame| frame == "demo.ConfigScanner.scan");
    let n_in_scan: u64 = scanned.iter().filter(is_scan).map(|stack| stack.value).sum();
    // The rest are classes that are loaded before it.
    assert!(n_in_scan * 1000 >= n_scanned * 995, "{n_in_scan} of {n_scanned}");
    assert_legal(&report);
}
