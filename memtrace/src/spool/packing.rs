//! What a file is packed with, told by how it begins, and what comes out of it.

use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;
use liblzma::{bufread::XzDecoder, stream::Stream};

/// Memory that unpacking xz may take: its format allows for 4 GiB.
const MAX_XZ_BYTES: u64 = 256 << 20;
/// zstd's window, as a power of two: more has to be asked for by name of the `zstd` tool, too.
const MAX_ZSTD_WINDOW_LOG: u32 = 27;
/// What HotSpot writes into the comment of a dump's first gzip member (heapDumperCompression.cpp, JDK 17 to 25).
const BLOCK_COMMENT: &[u8] = b"HPROF BLOCKSIZE=";

/// How a file is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// gzip.
    Gzip,
    /// gzip in members of a block each, as `jcmd PID GC.heap_dump -gz` writes it.
    GzipBlocks,
    /// xz.
    Xz,
    /// Zstandard.
    Zstd,
}

impl Packing {
    /// Bytes at the beginning that tell it.
    pub(super) const BEGIN_BYTES: u64 = 64;

    /// How a file that begins like this is packed; `None` where it is not.
    pub(super) fn of(begin: &[u8]) -> Option<Self> {
        let head = &begin[..begin.len().min(Self::BEGIN_BYTES as usize)];
        if head.starts_with(&[0x1f, 0x8b]) {
            let is_blocks = head.windows(BLOCK_COMMENT.len()).any(|part| part == BLOCK_COMMENT);
            Some(if is_blocks { Self::GzipBlocks } else { Self::Gzip })
        } else if head.starts_with(&[0xfd, b'7', b'z', b'X', b'Z', 0]) {
            Some(Self::Xz)
        } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            Some(Self::Zstd)
        } else {
            None
        }
    }

    /// How it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip | Self::GzipBlocks => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
        }
    }
}

/// What comes out of `packed`.
pub(super) fn unpacked<'p>(
    packing: Option<Packing>,
    packed: impl BufRead + 'p,
) -> io::Result<Box<dyn Read + 'p>> {
    Ok(match packing {
        None => Box::new(packed),
        Some(Packing::Gzip | Packing::GzipBlocks) => Box::new(MultiGzDecoder::new(packed)),
        Some(Packing::Xz) => {
            let stream = Stream::new_stream_decoder(MAX_XZ_BYTES, liblzma::stream::CONCATENATED)?;
            Box::new(XzDecoder::new_stream(packed, stream))
        }
        Some(Packing::Zstd) => {
            let mut unpacked = zstd::Decoder::with_buffer(packed)?;
            unpacked.window_log_max(MAX_ZSTD_WINDOW_LOG)?;
            Box::new(unpacked)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn told_by_the_beginning() {
        let blocks = [&[0x1f, 0x8b, 8, 0x10, 0, 0, 0, 0, 0, 0][..], b"HPROF BLOCKSIZE=1048576\0"];
        // (bytes, packing)
        let cases: [(&[u8], Option<Packing>); 7] = [
            (b"", None),
            (b"JAVA PROFILE 1.0.2", None),
            (&[0x1f], None),
            (&[0x1f, 0x8b], Some(Packing::Gzip)),
            (&blocks.concat(), Some(Packing::GzipBlocks)),
            (b"\xfd7zXZ\0", Some(Packing::Xz)),
            (&[0x28, 0xb5, 0x2f, 0xfd], Some(Packing::Zstd)),
        ];
        for (bytes, packing) in cases {
            assert_eq!(Packing::of(bytes), packing, "{bytes:x?}");
        }
    }
}
