//! The bytes of a heap dump: a file that is mapped.

use std::{fs::File, path::Path};

use anyhow::{Context, anyhow};
use memmap2::Mmap;

use super::super::failure::Failure;

/// How a compressed file begins, what it is called, and what unpacks it.
const COMPRESSED: [(&[u8], &str, &str); 3] = [
    (&[0x1f, 0x8b], "gzip", "gunzip"),
    (&[0xfd, b'7', b'z', b'X', b'Z'], "xz", "unxz"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "zstd", "unzstd"),
];

/// Maps the file.
pub(super) fn open(path: &Path) -> Result<Mmap, Failure> {
    let name = path.display();
    let file = File::open(path).with_context(|| format!("failed to open {name}"))?;
    let metadata = file.metadata().with_context(|| format!("failed to look at {name}"))?;
    if !metadata.is_file() {
        let what = if metadata.is_dir() { "a directory" } else { "no file" };
        return Err(anyhow!("{name} is {what}: a heap dump is a file").into());
    }
    if metadata.len() == 0 {
        return Err(anyhow!("failed to read {name}: the file is empty").into());
    }
    // SAFETY: the bytes are only read, and nothing relies on their staying the same: each is looked at within its bounds.
    // If someone cuts the file meanwhile, the kernel ends memtrace by SIGBUS, which harms nothing else.
    let dump = unsafe { Mmap::map(&file) }.with_context(|| format!("failed to map {name}"))?;
    if let Some((_, kind, tool)) = COMPRESSED.iter().find(|(begin, ..)| dump.starts_with(begin)) {
        let hint = format!("unpack it with `{tool}` first");
        return Err(Failure::new(anyhow!("{name} is compressed with {kind}"), Some(hint)));
    }
    Ok(dump)
}
