//! Which allocator a process uses, as its mapped files tell.

use std::{fs::File, io, io::Read};

use super::{
    maps::{self, Mapping},
    proc,
};

/// Libraries that replace malloc, by how their file names begin.
const REPLACEMENTS: [(&str, &str); 4] = [
    ("libjemalloc", "jemalloc"),
    ("libtcmalloc", "tcmalloc"),
    ("libmimalloc", "mimalloc"),
    ("libhoard", "hoard"),
];

/// How glibc's own version text begins: "GNU C Library (…) stable release version 2.36.".
const GLIBC: &[u8] = b"GNU C Library";
const MAX_LIBC_BYTES: u64 = 16 << 20;

/// The allocator of process `pid`, such as `glibc 2.36` or `jemalloc`; `None` where it can't be told.
pub fn allocator(pid: u32) -> Option<String> {
    let mappings = maps::read(pid).ok()?;
    let named = |mapping: &Mapping| {
        let name = mapping.file_name();
        REPLACEMENTS
            .iter()
            .find(|(start, _)| name.starts_with(start))
            .map(|&(_, allocator)| allocator.to_owned())
    };
    if let Some(replacement) = mappings.iter().find_map(named) {
        return Some(replacement);
    }
    if mappings.iter().any(|mapping| is_musl(&mapping.file_name())) {
        return Some("musl".into());
    }
    let libc = mappings.iter().find(|mapping| mapping.exec && is_glibc(&mapping.file_name()))?;
    Some(
        glibc_version(pid, libc)
            .ok()
            .flatten()
            .map_or("glibc".into(), |version| format!("glibc {version}")),
    )
}

/// Its loader is the library itself; one of both names is a link (musl 1.2, Makefile).
fn is_musl(name: &str) -> bool {
    name.starts_with("ld-musl-") || name == "libc.so"
}

fn is_glibc(name: &str) -> bool {
    name.starts_with("libc.so.6") || name.starts_with("libc-2.")
}

fn glibc_version(pid: u32, libc: &Mapping) -> io::Result<Option<String>> {
    let mapping = format!("map_files/{:x}-{:x}", libc.start, libc.end);
    let file = File::open(proc::folder(pid).join(mapping))?;
    let mut bytes = Vec::new();
    file.take(MAX_LIBC_BYTES).read_to_end(&mut bytes)?;
    Ok(version_in(&bytes))
}

fn version_in(bytes: &[u8]) -> Option<String> {
    let at = bytes.windows(GLIBC.len()).position(|window| window == GLIBC)?;
    let text = String::from_utf8_lossy(&bytes[at..bytes.len().min(at + 200)]).into_owned();
    let version = text.split("release version ").nth(1)?;
    let end = version.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(version.len());
    Some(version[..end].trim_end_matches('.').to_owned()).filter(|version| !version.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let cases: [(&[u8], Option<&str>); 4] = [
            (b"..\0GNU C Library (Debian GLIBC 2.36-9+deb12u10) stable release version 2.36.\nCopy", Some("2.36")),
            (b"GNU C Library (Ubuntu) development release version 2.41.9000.\n", Some("2.41.9000")),
            (b"GNU C Library", None),
            (b"", None),
        ];
        for (bytes, want) in cases {
            assert_eq!(version_in(bytes).as_deref(), want);
        }
    }
}
