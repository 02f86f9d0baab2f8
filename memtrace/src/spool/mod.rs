//! The bytes of a large file as they can be mapped, also where the file is packed, or is a pipe.
//!
//! In: a path, or standard input. Out: a mapping. What is packed or comes from a pipe is written to a temporary file that
//! has no name, so nothing stays behind however memtrace ends. It may fill so much of the room that there is, and no more:
//! a packed file may announce anything.

mod gzip_blocks;
mod packing;
mod sink;

use std::{
    cell::Cell,
    fs::File,
    io::{self, BufReader, Read},
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use memmap2::Mmap;
use thiserror::Error;

pub use packing::Packing;
use sink::Sink;

/// What is told while it goes on: bytes that were read, and how many there are, 0 where nobody knows.
pub type Progress<'p> = &'p mut dyn FnMut(u64, u64);

/// Bytes that are asked of a packed file or a pipe at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// Bytes, and where they come from.
#[derive(Debug)]
pub struct Spooled {
    /// All of them.
    pub bytes: Mmap,
    /// How they were packed.
    pub packing: Option<Packing>,
    /// The folder of the temporary file, where there is one.
    pub folder: Option<PathBuf>,
    /// Why there are no more than these, where there should be.
    pub cut: Option<String>,
}

/// Why there are no bytes.
#[derive(Debug, Error)]
pub enum SpoolError {
    /// It can't be opened or looked at.
    #[error("failed to open {0}: {1}")]
    Open(String, io::Error),
    /// It is something else than a file or a pipe.
    #[error("{0} is {1}: a file or a pipe is wanted")]
    NoFile(String, &'static str),
    /// There is nothing in it.
    #[error("failed to read {0}: the file is empty")]
    Empty(String),
    /// Reading, or unpacking, fails from the first byte on.
    #[error("failed to read {0}: {1}")]
    Read(String, String),
    /// What comes out of it has no room.
    #[error(
        "{name} has more than {limit_bytes} bytes in it, and no more are free for it in {}",
        folder.display()
    )]
    NoRoom {
        /// What is read.
        name: String,
        /// The bytes that there was room for.
        limit_bytes: u64,
        /// Where.
        folder: PathBuf,
    },
    /// The temporary file fails.
    #[error("failed to write a temporary file in {}: {source}", folder.display())]
    Write {
        /// Where.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Maps `path`, `-` for standard input; what is packed is unpacked first.
///
/// # Errors
///
/// Where there is nothing to map.
pub fn open(path: &Path, progress: Progress<'_>) -> Result<Spooled, SpoolError> {
    if path.as_os_str() == "-" {
        return from_stream(io::stdin().lock(), "standard input", 0, progress);
    }
    let name = path.display().to_string();
    let open = |error| SpoolError::Open(name.clone(), error);
    let file = File::open(path).map_err(open)?;
    let metadata = file.metadata().map_err(open)?;
    if metadata.is_dir() {
        return Err(SpoolError::NoFile(name, "a directory"));
    }
    if is_pipe(&metadata) {
        return from_stream(file, &name, 0, progress);
    }
    if !metadata.is_file() {
        return Err(SpoolError::NoFile(name, "a device or a socket"));
    }
    if metadata.len() == 0 {
        return Err(SpoolError::Empty(name));
    }
    let bytes = map(&file).map_err(|error| SpoolError::Read(name.clone(), error.to_string()))?;
    match Packing::of(&bytes) {
        None => Ok(Spooled { bytes, packing: None, folder: None, cut: None }),
        Some(Packing::GzipBlocks) => from_blocks(&bytes, &name, progress),
        Some(_) => from_stream(file, &name, metadata.len(), progress),
    }
}

fn is_pipe(metadata: &std::fs::Metadata) -> bool {
    let kind = metadata.file_type();
    kind.is_fifo() || kind.is_socket()
}

fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the bytes are only read, and nothing relies on their staying the same: each is looked at within its bounds.
    // If someone cuts the file meanwhile, the kernel ends memtrace by SIGBUS, which harms nothing else.
    unsafe { Mmap::map(file) }
}

/// Writes down what comes out of `stream`, of which there are `len` bytes, 0 if that is not known.
fn from_stream(
    stream: impl Read,
    name: &str,
    len: u64,
    progress: Progress<'_>,
) -> Result<Spooled, SpoolError> {
    let read = |error: io::Error| SpoolError::Read(name.to_owned(), error.to_string());
    let n_read = Cell::new(0);
    let mut stream = Counted { stream, n_read: &n_read };
    let mut begin = Vec::new();
    stream.by_ref().take(Packing::BEGIN_BYTES).read_to_end(&mut begin).map_err(read)?;
    if begin.is_empty() {
        return Err(SpoolError::Empty(name.to_owned()));
    }
    let packing = Packing::of(&begin);
    let whole = BufReader::with_capacity(CHUNK_BYTES, begin.as_slice().chain(stream));
    let mut unpacked = packing::unpacked(packing, whole).map_err(read)?;
    let mut sink = Sink::new(name)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let cut = loop {
        match unpacked.read(&mut chunk) {
            Ok(0) => break None,
            Ok(n) => sink.write(&chunk[..n])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Some(error.to_string()),
        }
        progress(n_read.get(), len);
    };
    sink.finish(packing, cut)
}

/// A stream, and how much of it was read.
struct Counted<'n, R> {
    stream: R,
    n_read: &'n Cell<u64>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.stream.read(into)?;
        self.n_read.set(self.n_read.get() + n as u64);
        Ok(n)
    }
}

fn from_blocks(packed: &[u8], name: &str, progress: Progress<'_>) -> Result<Spooled, SpoolError> {
    let mut sink = Sink::new(name)?;
    let cut = gzip_blocks::unpack(packed, &mut sink, progress)?;
    sink.finish(Some(Packing::GzipBlocks), cut)
}
