//! Whether a process is frozen with its control group (`docker pause` does that).
//!
//! In: a pid. Out: what the files of control groups say, of both versions; what can't be read is not frozen.

use std::path::{Path, PathBuf};

use super::proc;

/// Whether the control group of `pid`, or one above it, is frozen, as far as control groups can be seen from here.
pub fn is_frozen(pid: u32) -> bool {
    let groups = proc::text(pid, "cgroup");
    groups.lines().filter_map(freezer_file).any(|path| says_frozen(&proc::text_of(&path)))
}

/// The file that tells whether a group is frozen, for a line of `/proc/PID/cgroup`: `0::/a/b` or `6:freezer:/a/b`.
fn freezer_file(line: &str) -> Option<PathBuf> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, group) = (fields.next()?, fields.next()?.trim_start_matches('/'));
    let base = Path::new("/sys/fs/cgroup");
    match controllers {
        "" => Some(base.join(group).join("cgroup.events")),
        "freezer" => Some(base.join("freezer").join(group).join("freezer.state")),
        _ => None,
    }
}

fn says_frozen(text: &str) -> bool {
    text.lines().any(|line| matches!(line, "frozen 1" | "FROZEN"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both versions of control groups are looked at.
    #[test]
    fn files() {
        let cases = [
            ("0::/a/b", Some("/sys/fs/cgroup/a/b/cgroup.events")),
            ("0::/a:b", Some("/sys/fs/cgroup/a:b/cgroup.events")),
            ("0::/", Some("/sys/fs/cgroup/cgroup.events")),
            ("6:freezer:/a:b", Some("/sys/fs/cgroup/freezer/a:b/freezer.state")),
            ("4:memory:/a", None),
            ("", None),
        ];
        for (line, want) in cases {
            assert_eq!(freezer_file(line).as_deref(), want.map(Path::new), "{line}");
        }
    }

    #[test]
    fn texts() {
        let cases = [
            ("populated 1\nfrozen 1\n", true),
            ("populated 1\nfrozen 0\n", false),
            ("FROZEN\n", true),
            ("THAWED\n", false),
            ("", false),
        ];
        for (text, want) in cases {
            assert_eq!(says_frozen(text), want, "{text:?}");
        }
    }
}
