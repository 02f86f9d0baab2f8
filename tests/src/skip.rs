//! Saying that a test was not run.

use std::{
    env,
    fs::OpenOptions,
    io::{Write, stderr},
};

/// Says that the test `name` is not run, and why: on stderr, and in the file that `MEMTRACE_SKIPPED` names.
pub fn skip(name: &str, reason: &str) {
    let line = format!("{name}: {reason}\n");
    // Nobody may be reading stderr any more.
    stderr().write_all(format!("skipped {line}").as_bytes()).ok();
    if let Some(path) = env::var_os("MEMTRACE_SKIPPED") {
        let file = OpenOptions::new().append(true).create(true).open(&path);
        let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
        written.unwrap_or_else(|e| panic!("failed to write {}: {e}", path.display()));
    }
}

/// Whether the heavy matrices were asked for too.
pub fn runs_all() -> bool {
    env::var_os("MEMTRACE_TEST_ALL").is_some_and(|value| value == "1")
}

/// Whether `tool` is on the PATH.
pub fn has_tool(tool: &str) -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|dir| dir.join(tool).is_file()))
}
