//! What strace sees a program do, from its first instruction to its end.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use crate::{bpftrace::SYSCALLS, fixtures::run};

/// How often each memory call of `program` and its children succeeded.
pub fn counts(program: &Path, arguments: &[&str]) -> BTreeMap<String, u64> {
    let log = tempfile::NamedTempFile::new().expect("a temporary file");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-q", "-e", &format!("trace={}", SYSCALLS.join(","))]);
    run(strace.arg("-o").arg(log.path()).arg(program).args(arguments));
    let mut counts = BTreeMap::new();
    for line in fs::read_to_string(log.path()).expect("strace writes text").lines() {
        // `4711  brk(NULL) = 0x5555`, or in two lines: `<unfinished ...>` and `<... brk resumed>) = 0x5555`.
        let Some((call, result)) = line.rsplit_once(" = ") else { continue };
        let call = call.split_once(char::is_whitespace).map_or("", |(_, call)| call.trim_start());
        let call = call.trim_start_matches("<... ");
        let name: String = call.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if SYSCALLS.contains(&name.as_str()) && !result.starts_with("-1 ") {
            *counts.entry(name).or_default() += 1;
        }
    }
    counts
}
