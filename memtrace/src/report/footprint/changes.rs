//! What changed between two footprints.

use std::io::{self, Write};

use super::short_name;
use crate::report::units;

/// A row at two moments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The row's name for programs.
    pub kind: String,
    /// Its resident bytes before.
    pub before_bytes: u64,
    /// Its resident bytes after.
    pub after_bytes: u64,
}

impl Change {
    /// What it has more.
    pub(in crate::report) fn grown_by(&self) -> i128 {
        i128::from(self.after_bytes) - i128::from(self.before_bytes)
    }

    /// The same as text.
    pub(in crate::report) fn signed(&self) -> String {
        let grown_by = self.grown_by();
        let size = units::bytes(u64::try_from(grown_by.unsigned_abs()).unwrap_or(u64::MAX));
        let sign = match grown_by {
            0 => "",
            1.. => "+",
            _ => "-",
        };
        format!("{sign}{size}")
    }
}

/// All rows of both, in the order of `after`, those that are gone last.
#[must_use]
pub fn changes(before: &[(String, u64)], after: &[(String, u64)]) -> Vec<Change> {
    let bytes = |rows: &[(String, u64)], kind: &str| {
        rows.iter().find(|(name, _)| name == kind).map_or(0, |row| row.1)
    };
    let gone = before.iter().filter(|(kind, _)| !after.iter().any(|(name, _)| name == kind));
    let all = after.iter().chain(gone).map(|(kind, _)| kind.clone());
    all.map(|kind| Change {
        before_bytes: bytes(before, &kind),
        after_bytes: bytes(after, &kind),
        kind,
    })
    .collect()
}

/// Writes a line for each row that changed, and one for the sum.
///
/// # Errors
///
/// Only those of `out`.
pub fn write_changes(changes: &[Change], rss: (u64, u64), out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "      change      before       after  what")?;
    let changed = changes.iter().filter(|change| change.grown_by() != 0);
    for change in changed {
        write_line(change, &short_name(&change.kind), out)?;
    }
    let (before_bytes, after_bytes) = rss;
    let sum = Change { kind: String::new(), before_bytes, after_bytes };
    write_line(&sum, "resident in all", out)
}

fn write_line(change: &Change, what: &str, out: &mut dyn Write) -> io::Result<()> {
    let (before, after) = (units::bytes(change.before_bytes), units::bytes(change.after_bytes));
    writeln!(out, "  {:>10}  {before:>10}  {after:>10}  {what}", change.signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows that came, went, grew, shrank and stayed, and one that a later version has made.
    #[test]
    fn between_two() {
        let rows = |rows: &[(&str, u64)]| -> Vec<(String, u64)> {
            rows.iter().map(|&(kind, kib)| (kind.to_owned(), kib << 10)).collect()
        };
        let before = rows(&[("metaspace", 10), ("gc", 5), ("file", 7), ("later\x1b", 1)]);
        let after = rows(&[("metaspace", 30), ("gc", 4), ("file", 7), ("shared", 2)]);
        let mut out = Vec::new();
        write_changes(&changes(&before, &after), (23 << 10, 43 << 10), &mut out).unwrap();
        let expected = "      change      before       after  what
   +20.0 KiB    10.0 KiB    30.0 KiB  metaspace
    -1.0 KiB     5.0 KiB     4.0 KiB  garbage collector's tables
    +2.0 KiB         0 B     2.0 KiB  shared memory
    -1.0 KiB     1.0 KiB         0 B  later\\x1b
   +20.0 KiB    23.0 KiB    43.0 KiB  resident in all
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
