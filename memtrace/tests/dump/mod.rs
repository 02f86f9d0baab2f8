//! What JVMs say of their threads themselves, as the tests compare it.

use std::{collections::BTreeMap, time::Duration};

use memtrace::{attach, jvm::thread_dump};

/// What a JVM says of its threads: name and frames by id.
pub(crate) fn dump(pid: u32) -> BTreeMap<u32, (String, Vec<String>)> {
    let text = attach::command(pid, "threaddump", &[], Duration::from_secs(30)).unwrap();
    let mut threads = BTreeMap::new();
    for part in text.split("\n\n") {
        let part = part.trim_start_matches('\n');
        let frames = part.lines().filter_map(|line| line.strip_prefix("\tat "));
        let frames: Vec<String> = frames.map(|frame| without_module(frame.trim())).collect();
        // The VM's own threads have no stacks, and need no empty line between them.
        for thread in thread_dump::parse(part) {
            threads.insert(thread.nid, (thread.name, frames.clone()));
        }
    }
    assert!(threads.len() > 10, "{text}");
    threads
}

/// `a.B.c(java.base@17.0.15/B.java:7)` without the module.
fn without_module(frame: &str) -> String {
    let (method, place) = frame.split_once('(').unwrap();
    let place = place.split_once('/').map_or(place, |(_, place)| place);
    comparable(&format!("{method}({place}"))
}

/// The address in a lambda's class is no part of its name on every JDK.
pub(crate) fn comparable(frame: &str) -> String {
    match frame.split_once("$$Lambda") {
        Some((class, rest)) => {
            let method = rest.rfind(".").filter(|_| !rest.contains(".java"));
            let method = method.or_else(|| rest.find(")").and_then(|_| rest.find(".")));
            format!("{class}$$Lambda{}", &rest[method.unwrap_or(0)..])
        }
        None => frame.to_owned(),
    }
}
