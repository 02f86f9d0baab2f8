//! Reading a trace file, which anyone may have made or cut.

use std::{io, io::Read, ops::ControlFlow};

use bytes::Buf;
use thiserror::Error;

use super::{
    bounds::Bounds,
    file::{
        BLOCK_HEADER_BYTES, HEADER_BYTES, MAGIC, MAX_BLOCK_BYTES, RECORD_HEADER_BYTES, VERSION,
    },
    record::Record,
};

/// Why a file is not read at all.
#[derive(Debug, Error)]
pub enum ReadError {
    /// It could not be read.
    #[error("failed to read the trace: {0}")]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("it is not a memtrace trace")]
    Foreign,
    /// It is of a version that is not known.
    #[error("it was recorded in trace format {found}; this memtrace reads format {VERSION}")]
    Version {
        /// The file's version.
        found: u32,
    },
}

/// How the reading of a file ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Bytes of the file that were not understood: it was cut, or damaged, there.
    pub is_cut: bool,
    /// Why the rest was not read, though it may be sound: what the file has too much of.
    pub excess: Option<String>,
    /// Records of kinds that this memtrace doesn't know.
    pub n_unknown: u64,
}

/// Reads `input` to its end, or to where it is cut or has too much of something, and hands every record to `take`.
///
/// `look` is called for every block, whatever is in it; it and `take` may break the reading off and tell what there is too
/// much of.
pub fn read(
    mut input: impl Read,
    mut look: impl FnMut() -> ControlFlow<String>,
    mut take: impl FnMut(Record) -> ControlFlow<String>,
) -> Result<Outcome, ReadError> {
    check_header(&mut input)?;
    let mut outcome = Outcome::default();
    let mut bounds = Bounds::default();
    let mut packed = Vec::new();
    loop {
        let records = match next_block(&mut input, &mut packed)? {
            Block::End => return Ok(outcome),
            Block::Cut => Err(Stop::Damaged),
            Block::Records(records) => {
                take_records(&records, &mut take, &mut bounds, &mut outcome.n_unknown)
            }
        };
        let looked = records.and_then(|()| match look() {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(what) => Err(Stop::Excess(what)),
        });
        match looked {
            Ok(()) => {}
            Err(Stop::Damaged) => {
                outcome.is_cut = true;
                return Ok(outcome);
            }
            Err(Stop::Excess(what)) => {
                outcome.excess = Some(what);
                return Ok(outcome);
            }
        }
    }
}

/// Why no more is read.
enum Stop {
    Damaged,
    Excess(String),
}

enum Block {
    Records(Vec<u8>),
    Cut,
    End,
}

fn check_header(input: &mut impl Read) -> Result<(), ReadError> {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    input.take(HEADER_BYTES as u64).read_to_end(&mut header)?;
    let Some(mut version) = header.strip_prefix(&MAGIC).filter(|rest| rest.len() == 4) else {
        return Err(ReadError::Foreign);
    };
    match version.get_u32_le() {
        VERSION => Ok(()),
        found => Err(ReadError::Version { found }),
    }
}

fn next_block(input: &mut impl Read, packed: &mut Vec<u8>) -> io::Result<Block> {
    packed.clear();
    input.take(BLOCK_HEADER_BYTES as u64).read_to_end(packed)?;
    if packed.is_empty() {
        return Ok(Block::End);
    }
    if packed.len() < BLOCK_HEADER_BYTES {
        return Ok(Block::Cut);
    }
    let mut header = &packed[..];
    let (len, checksum) = (header.get_u32_le() as usize, header.get_u32_le());
    if len > MAX_BLOCK_BYTES {
        return Ok(Block::Cut);
    }
    packed.clear();
    input.take(len as u64).read_to_end(packed)?;
    if packed.len() < len || crc32fast::hash(packed) != checksum {
        return Ok(Block::Cut);
    }
    Ok(zstd::bulk::decompress(packed, MAX_BLOCK_BYTES).map_or(Block::Cut, Block::Records))
}

/// The records before the one where it stops were taken.
fn take_records(
    mut records: &[u8],
    take: &mut impl FnMut(Record) -> ControlFlow<String>,
    bounds: &mut Bounds,
    n_unknown: &mut u64,
) -> Result<(), Stop> {
    while !records.is_empty() {
        if records.len() < RECORD_HEADER_BYTES {
            return Err(Stop::Damaged);
        }
        let (number, len) = (records.get_u8(), records.get_u32_le() as usize);
        let body = records.get(..len).ok_or(Stop::Damaged)?;
        if let Some(record) = Record::decode(number, body) {
            let record = record.map_err(|_| Stop::Damaged)?;
            bounds.admit(&record).map_err(|what| Stop::Excess(what.to_owned()))?;
            if let ControlFlow::Break(what) = take(record) {
                return Err(Stop::Excess(what));
            }
        } else {
            *n_unknown += 1;
        }
        records.advance(len);
    }
    Ok(())
}
