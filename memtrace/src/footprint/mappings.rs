//! What a mapping is, by what the map says of it alone.

use rustc_hash::FxHashSet;

use super::snapshot::RowKind;
use crate::target::maps::Mapping;

/// What is memory that the kernel provides, by how its name begins.
const KERNEL: [&[u8]; 4] = [b"[vdso", b"[vvar", b"[vsyscall", b"[uprobes"];
/// Files that are no files of a disk (mm/shmem.c, mm/memfd.c, ipc/shm.c).
const SHARED: [&[u8]; 5] = [b"/memfd:", b"/SYSV", b"/dev/zero", b"/dev/shm/", b"[anon_shmem"];

/// Files of which some mapping can be executed: by device and inode.
#[derive(Debug, Default)]
pub(super) struct CodeFiles(FxHashSet<(u64, u64)>);

impl CodeFiles {
    pub(super) fn of(maps: &[Mapping]) -> Self {
        let code = maps.iter().filter(|mapping| mapping.exec && mapping.inode != 0);
        Self(code.map(|mapping| (mapping.device, mapping.inode)).collect())
    }

    /// Whether it is a mapping of one of them.
    pub(super) fn has(&self, mapping: &Mapping) -> bool {
        mapping.inode != 0 && self.0.contains(&(mapping.device, mapping.inode))
    }
}

/// The row of a mapping that nobody knows more about; `None` for anonymous memory, which may be anything.
pub(super) fn row(mapping: &Mapping, code: &CodeFiles) -> Option<RowKind> {
    let begins = |names: &[&[u8]]| names.iter().any(|name| mapping.path.starts_with(name));
    if begins(&KERNEL) {
        return Some(RowKind::Kernel);
    }
    if mapping.path == b"[stack]" {
        return Some(RowKind::ThreadStacks);
    }
    if begins(&SHARED) {
        return Some(RowKind::Shared);
    }
    if mapping.inode == 0 {
        return None;
    }
    Some(if code.has(mapping) { RowKind::Library } else { RowKind::File })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::maps::parse;

    /// Each kind of line.
    #[test]
    fn kinds_of_mappings() {
        // (what stands behind the addresses, row)
        let cases: [(&str, Option<RowKind>); 13] = [
            ("rw-p 0 00:00 0", None),
            ("rw-p 0 00:00 0 [heap]", None),
            ("rw-p 0 00:00 0 [anon:x]", None),
            ("rw-p 0 00:00 0 [stack]", Some(RowKind::ThreadStacks)),
            ("r-xp 0 00:00 0 [vdso]", Some(RowKind::Kernel)),
            ("r--p 0 00:00 0 [vvar_vclock]", Some(RowKind::Kernel)),
            ("--xp 0 00:00 0 [uprobes]", Some(RowKind::Kernel)),
            ("rw-s 0 00:01 7 /memfd:x (deleted)", Some(RowKind::Shared)),
            ("rw-s 0 00:01 8 /dev/zero (deleted)", Some(RowKind::Shared)),
            ("rw-s 0 00:01 9 /SYSV00000000 (deleted)", Some(RowKind::Shared)),
            ("r-xp 0 fe:00 10 /lib/a.so", Some(RowKind::Library)),
            ("rw-p 2000 fe:00 10 /lib/a.so", Some(RowKind::Library)),
            ("r--s 0 fe:00 11 /app/a.jar", Some(RowKind::File)),
        ];
        let text: String =
            (1..).zip(cases).map(|(n, (line, _))| format!("{n}000-{n}800 {line}\n")).collect();
        let maps = parse(text.as_bytes());
        let code = CodeFiles::of(&maps);
        for (mapping, (line, want)) in maps.iter().zip(cases) {
            assert_eq!(row(mapping, &code), want, "{line}");
        }
        assert_eq!(maps.len(), cases.len());
    }
}
