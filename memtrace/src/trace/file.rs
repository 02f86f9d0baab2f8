//! The form of a trace file, for writer and reader alike.
//!
//! The magic and a version, then blocks. A block is its length and checksum (both 32 bits, little endian) and that
//! many bytes, which zstd unpacks to records: number (8 bits), length (32 bits), body (postcard).
//! A block is written at once, about one a second, so that a trace that is cut anywhere is whole up to the cut.

/// What every trace file begins with.
pub(super) const MAGIC: [u8; 8] = *b"memtrace";

/// The version of what follows. New kinds of records don't change it; a changed meaning does.
pub(super) const VERSION: u32 = 2;

/// Magic and version.
pub(super) const HEADER_BYTES: usize = MAGIC.len() + size_of::<u32>();

/// Length and checksum.
pub(super) const BLOCK_HEADER_BYTES: usize = 2 * size_of::<u32>();

/// Number and length.
pub(super) const RECORD_HEADER_BYTES: usize = 1 + size_of::<u32>();

/// The most that a block may unpack to. Writers stay below; a file that claims more is damaged.
pub(super) const MAX_BLOCK_BYTES: usize = 16 << 20;
