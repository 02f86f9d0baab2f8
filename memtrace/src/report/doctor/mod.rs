//! What `memtrace doctor` prints.
//!
//! In: facts about the kernel and about a process. Out: one line a check, after what is not well what to do about it, and
//! for who wants to know more what was found in detail; then whether tracing will work. The facts are found elsewhere; here they are only put into words.

mod allocators;
mod kernel;
mod process;

use super::escape;

pub use allocators::{AllocatorFile, of_allocators};
pub use kernel::of_kernel;
pub use process::{Libzip, of_process};

/// Columns of the word that a line begins with, and of the name of the check.
const GRADE: usize = 5;
const NAME: usize = 17;

/// How well a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grade {
    /// As it should be.
    Ok,
    /// Tracing works, but not everything in it.
    Warn,
    /// Tracing will not work.
    Fail,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// How it went.
    pub grade: Grade,
    /// What was looked at.
    pub name: &'static str,
    /// What was found.
    pub found: String,
    /// What to do about it.
    pub advice: Option<String>,
    /// More of what was found, a line each.
    pub details: Vec<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { grade: Grade::Ok, name, found: found.into(), advice: None, details: Vec::new() }
    }

    fn warn(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        let advice = Some(advice.into());
        Self { grade: Grade::Warn, name, found: found.into(), advice, details: Vec::new() }
    }

    /// Something that is indispensable is missing.
    pub fn fail(name: &'static str, found: impl Into<String>, advice: Option<String>) -> Self {
        Self { grade: Grade::Fail, name, found: found.into(), advice, details: Vec::new() }
    }
}

/// Whether tracing will work after all these checks.
#[must_use]
pub fn is_well(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.grade != Grade::Fail)
}

/// The checks as text; with `colors`, the grades are colored.
#[must_use]
pub fn doctor(checks: &[Check], colors: bool) -> String {
    let lines: String = checks.iter().map(|check| line(check, colors)).collect();
    let verdict = match checks.iter().filter(|check| check.grade == Grade::Fail).count() {
        0 => "tracing will work".to_owned(),
        1 => "tracing will not work: one check failed".to_owned(),
        n => format!("tracing will not work: {n} checks failed"),
    };
    format!("{lines}{verdict}\n")
}

fn line(check: &Check, colors: bool) -> String {
    let Check { grade, name, found, advice, details } = check;
    let (word, color) = match grade {
        Grade::Ok => ("ok", "32"),
        Grade::Warn => ("warn", "33"),
        Grade::Fail => ("FAIL", "1;31"),
    };
    let word = if colors {
        format!("\x1b[{color}m{word}\x1b[0m{:1$}", "", GRADE - word.len())
    } else {
        format!("{word:GRADE$}")
    };
    let mut line = format!("{word}{name:NAME$} {}\n", escape::line(found));
    if let Some(advice) = advice {
        line.push_str(&format!("{:GRADE$}-> {}\n", "", escape::line(advice)));
    }
    for detail in details {
        line.push_str(&format!("{:GRADE$}{}\n", "", escape::line(detail)));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Vec<Check> {
        vec![
            Check::ok("kernel", "6.18.44, needs 5.15 or newer"),
            Check::warn("bpf_jit_enable", "0", "`sysctl net.core.bpf_jit_enable=1`"),
            Check::fail("BPF", "refused\x1b[2J", Some("try it with `sudo`".into())),
        ]
    }

    #[test]
    fn layout() {
        let want = "\
ok   kernel            6.18.44, needs 5.15 or newer
warn bpf_jit_enable    0
     -> `sysctl net.core.bpf_jit_enable=1`
FAIL BPF               refused\\x1b[2J
     -> try it with `sudo`
tracing will not work: one check failed
";
        assert_eq!(doctor(&three(), false), want);
        assert!(!is_well(&three()));
    }

    /// Only what failed keeps tracing from working.
    #[test]
    fn verdicts() {
        assert!(is_well(&three()[..2]) && is_well(&[]));
        assert!(doctor(&three()[..2], false).ends_with("\ntracing will work\n"));
        let twice = [three(), three()].concat();
        assert!(doctor(&twice, false).ends_with("\ntracing will not work: 2 checks failed\n"));
    }

    /// What was found in detail stands below, whatever is in it.
    #[test]
    fn details() {
        let details = vec!["/libc.so".into(), "  mal\nloc".into()];
        let check = Check { details, ..Check::warn("allocator", "one", "do it") };
        let want = "\
warn allocator         one
     -> do it
     /libc.so
       mal\\nloc
tracing will work
";
        assert_eq!(doctor(&[check], false), want);
    }

    /// Colors change nothing but the color.
    #[test]
    fn colors() {
        let want = "\
\x1b[32mok\x1b[0m   kernel            6.18.44, needs 5.15 or newer
\x1b[33mwarn\x1b[0m bpf_jit_enable    0
     -> `sysctl net.core.bpf_jit_enable=1`
\x1b[1;31mFAIL\x1b[0m BPF               refused\\x1b[2J
     -> try it with `sudo`
tracing will not work: one check failed
";
        assert_eq!(doctor(&three(), true), want);
    }
}
