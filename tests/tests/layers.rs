//! The rules of the house that a compiler does not know: who may use whom.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The rooms in their order: a room uses only rooms before it.
const ROOMS: [&str; 14] = [
    "target",
    "probes",
    "events",
    "jvm",
    "stacks",
    "ledger",
    "footprint",
    "trace",
    "owners",
    "findings",
    "attach",
    "heap",
    "report",
    "commands",
];

/// Only these rooms know what loads BPF.
const KNOW_AYA: [&str; 2] = ["probes", "events"];

/// Rooms that read no clock, file or process.
const PURE: [&str; 3] = ["ledger", "owners", "findings"];

/// Every source file of a room, with its text but without its tests.
fn sources(room: &str) -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../memtrace/src").join(room);
    let mut found = Vec::new();
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        // A room that is not built yet has no folder.
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("the folder is readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|name| name != "tests.rs") {
                let text = fs::read_to_string(&path).expect("sources are text");
                let code = text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
                found.push((path, code));
            }
        }
    }
    found
}

/// The rooms that `code` names: `crate::room`, also in a group `use crate::{room::…, room}`.
fn rooms_used(code: &str) -> Vec<&'static str> {
    let code: String = code
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join(" ");
    let mut used = Vec::new();
    for part in code.split("crate::").skip(1) {
        let group = part.strip_prefix('{');
        let names: Vec<&str> = match group {
            Some(group) => top_level_names(group),
            None => vec![part],
        };
        for name in names {
            let word = name.trim_start().split(|c: char| !c.is_alphanumeric() && c != '_').next();
            used.extend(ROOMS.iter().filter(|room| Some(**room) == word));
        }
    }
    used
}

/// The items of `{…}` that are not inside a deeper pair of braces.
fn top_level_names(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut names) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.push(&group[start..at]);
                return names;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    names
}

/// A room uses only rooms before it.
#[test]
fn rooms_use_rooms_before_them() {
    let mut n_sources = 0;
    for (place, room) in ROOMS.iter().enumerate() {
        for (path, code) in sources(room) {
            n_sources += 1;
            for used in rooms_used(&code) {
                let other = ROOMS.iter().position(|room| *room == used).unwrap_or_default();
                assert!(other <= place, "{} uses {used}, which comes after {room}", path.display());
            }
        }
    }
    assert!(n_sources > 20, "only {n_sources} sources were found");
}

/// Every folder of the library is a room of the list.
#[test]
fn every_folder_is_a_room() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../memtrace/src");
    for entry in fs::read_dir(source).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(ROOMS.contains(&name), "{name} is no room of the architecture");
        }
    }
}

/// Only the rooms that attach and read mention aya.
#[test]
fn aya_stays_at_the_edge() {
    for room in ROOMS.iter().filter(|room| !KNOW_AYA.contains(room)) {
        for (path, code) in sources(room) {
            assert!(!code.contains("aya::"), "{} mentions aya", path.display());
        }
    }
}

/// The pure rooms do no input or output and read no clock.
#[test]
fn pure_rooms() {
    for room in PURE {
        for (path, code) in sources(room) {
            for word in ["std::fs", "std::io", "std::process", "Instant::", "SystemTime", "libc::"]
            {
                assert!(!code.contains(word), "{} mentions {word}", path.display());
            }
        }
    }
}

/// What counts as using a room.
#[test]
fn uses_are_found() {
    // (code, rooms it uses)
    let cases: [(&str, &[&str]); 6] = [
        ("use crate::stacks::StackId;", &["stacks"]),
        ("use crate::{\n    events::{Event, jvm},\n    target::maps,\n};", &["events", "target"]),
        ("use crate::{ledger, report};", &["ledger", "report"]),
        ("// crate::stacks is not used", &[]),
        ("fn f() -> crate::trace::Record", &["trace"]),
        ("use super::stacks; use crate::targets;", &[]),
    ];
    for (code, rooms) in cases {
        assert_eq!(rooms_used(code), rooms, "{code}");
    }
}
