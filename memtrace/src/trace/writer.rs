//! Writing a trace file as the trace goes on.

use std::{io, io::Write};

use bytes::{BufMut, BytesMut};

use super::{
    file::{
        BLOCK_HEADER_BYTES, HEADER_BYTES, MAGIC, MAX_BLOCK_BYTES, RECORD_HEADER_BYTES, VERSION,
    },
    record::Record,
};

/// A block is written when it has become this large, or when its second is over.
const BLOCK_BYTES: usize = 1 << 20;

/// Fast, and good enough: events repeat.
const ZSTD_LEVEL: i32 = 1;

/// Writes records in blocks.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    block: BytesMut,
    scratch: Vec<u8>,
    written_bytes: u64,
    max_bytes: u64,
    is_full: bool,
    /// Whether what comes now is written whatever the size: how the trace ended.
    is_closing: bool,
}

/// What a trace file begins with.
pub fn header() -> BytesMut {
    let mut header = BytesMut::with_capacity(HEADER_BYTES);
    header.put_slice(&MAGIC);
    header.put_u32_le(VERSION);
    header
}

impl<W: Write> Writer<W> {
    /// Writes the header to `out`; at most `max_bytes` will be written in all.
    pub fn new(mut out: W, max_bytes: u64) -> io::Result<Self> {
        out.write_all(&header())?;
        Ok(Self::after_header(out, max_bytes))
    }

    /// The same for an `out` in which the header has its place already.
    pub fn after_header(out: W, max_bytes: u64) -> Self {
        Self {
            out,
            block: BytesMut::new(),
            scratch: Vec::new(),
            written_bytes: HEADER_BYTES as u64,
            max_bytes,
            is_full: false,
            is_closing: false,
        }
    }

    /// Adds `record` to the current block.
    pub fn write(&mut self, record: &Record) -> io::Result<()> {
        if self.is_full && !self.is_closing {
            return Ok(());
        }
        let mut body = std::mem::take(&mut self.scratch);
        body.clear();
        let body = record.encode(body).map_err(io::Error::other)?;
        if self.block.len() + body.len() + RECORD_HEADER_BYTES > MAX_BLOCK_BYTES {
            self.flush()?;
        }
        self.block.put_u8(record.number());
        self.block.put_u32_le(body.len() as u32);
        self.block.put_slice(&body);
        self.scratch = body;
        if self.block.len() >= BLOCK_BYTES { self.flush() } else { Ok(()) }
    }

    /// Writes the current block.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.block.is_empty() || (self.is_full && !self.is_closing) {
            return Ok(());
        }
        let packed = zstd::bulk::compress(&self.block, ZSTD_LEVEL)?;
        self.block.clear();
        let len = (packed.len() + BLOCK_HEADER_BYTES) as u64;
        if self.written_bytes + len > self.max_bytes && !self.is_closing {
            self.is_full = true;
            return Ok(());
        }
        let mut whole = BytesMut::with_capacity(packed.len() + BLOCK_HEADER_BYTES);
        whole.put_u32_le(packed.len() as u32);
        whole.put_u32_le(crc32fast::hash(&packed));
        whole.put_slice(&packed);
        self.out.write_all(&whole)?;
        self.out.flush()?;
        self.written_bytes += len;
        Ok(())
    }

    /// What comes now is how the trace ended, and belongs to every file, a full one too. It is a few kilobytes.
    pub fn begin_closing(&mut self) {
        self.is_closing = true;
    }

    /// Whether the file has reached its largest size; what came after that is not in it.
    pub fn is_full(&self) -> bool {
        self.is_full
    }
}
