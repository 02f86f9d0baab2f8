//! Captures as files: a magic, then steps packed by zstd, each with its length before it.
//!
//! Files are anyone's: what is read is bounded, and what is no whole capture is refused.

use std::{
    collections::BTreeSet,
    io::{self, Read, Write},
};

use thiserror::Error;

use super::Step;
use crate::target::maps::Mapping;

/// The first bytes, with the version of what follows.
const MAGIC: &[u8; 8] = b"mtstks\x00\x01";
/// Bytes of a step: what was looked up in a large library.
const MAX_STEP_BYTES: usize = 32 << 20;
/// Bytes of all steps: several start-ups of a large application.
const MAX_BYTES: u64 = 4 << 30;
/// Steps of all kinds.
const MAX_STEPS: usize = 20_000_000;
/// What zstd may need to unpack, as a power of two.
const MAX_WINDOW_LOG: u32 = 24;

/// Why a file is no capture.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// It begins otherwise.
    #[error("not a capture of stacks, or one of another memtrace")]
    Foreign,
    /// It ends before its end.
    #[error("the capture is cut")]
    Cut,
    /// It holds something that no capture holds.
    #[error("the capture is damaged: {0}")]
    Damaged(String),
    /// More than is ever captured.
    #[error("the capture is too large")]
    TooLarge,
}

/// The steps of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    pub(super) steps: Vec<Step>,
}

/// Writes steps as they come.
pub(super) struct Writer {
    out: zstd::stream::write::Encoder<'static, Box<dyn Write>>,
}

impl Writer {
    /// Writes to `out`, packed as `level` says.
    pub(super) fn new(mut out: Box<dyn Write>, level: i32) -> io::Result<Self> {
        out.write_all(MAGIC)?;
        let mut out = zstd::stream::write::Encoder::new(out, level)?;
        out.include_checksum(true)?;
        Ok(Self { out })
    }

    pub(super) fn write(&mut self, step: &Step) -> io::Result<()> {
        let body = postcard::to_stdvec(step).map_err(io::Error::other)?;
        self.out.write_all(&(body.len() as u32).to_le_bytes())?;
        self.out.write_all(&body)
    }

    /// Nothing comes any more.
    pub(super) fn end(mut self) -> io::Result<()> {
        self.write(&Step::End)?;
        self.out.finish()?.flush()
    }
}

impl Capture {
    /// Reads a capture.
    ///
    /// # Errors
    ///
    /// What is no capture, or not a whole one.
    pub fn read(mut file: impl Read) -> Result<Self, CaptureError> {
        let mut magic = [0; MAGIC.len()];
        file.read_exact(&mut magic).map_err(|_| CaptureError::Foreign)?;
        if magic != *MAGIC {
            return Err(CaptureError::Foreign);
        }
        let mut packed = zstd::stream::read::Decoder::new(file).map_err(of_io)?;
        packed.window_log_max(MAX_WINDOW_LOG).map_err(of_io)?;
        let (mut steps, mut n_bytes) = (Vec::new(), 0);
        loop {
            let body = read_body(&mut packed)?;
            n_bytes += body.len() as u64;
            if n_bytes > MAX_BYTES || steps.len() >= MAX_STEPS {
                return Err(CaptureError::TooLarge);
            }
            let step = postcard::from_bytes(&body)
                .map_err(|error| CaptureError::Damaged(error.to_string()))?;
            check(&step)?;
            if step == Step::End {
                // The checksum stands behind it.
                return match packed.read(&mut [0]).map_err(of_io)? {
                    0 => Ok(Self { steps }),
                    _ => Err(CaptureError::Damaged("there is more behind its end".into())),
                };
            }
            steps.push(step);
        }
    }

    /// Writes it packed as tightly as possible.
    ///
    /// # Errors
    ///
    /// What `out` says.
    pub fn write(&self, out: Box<dyn Write>) -> io::Result<()> {
        let mut writer = Writer::new(out, 19)?;
        self.steps.iter().try_for_each(|step| writer.write(step))?;
        writer.end()
    }

    /// Paths of files that it names.
    pub fn paths(&self) -> BTreeSet<Vec<u8>> {
        let mappings = self.steps.iter().flat_map(mappings);
        mappings.map(|mapping| mapping.path.clone()).collect()
    }

    /// Everything in it that was memory of a process: pieces that were read, and stacks.
    pub fn memory(&self) -> impl Iterator<Item = &[u8]> {
        self.steps.iter().filter_map(|step| match step {
            Step::Memory { bytes, .. } | Step::Event(bytes) => Some(bytes.as_slice()),
            _ => None,
        })
    }
}

/// Everything else is taken for what it is; mappings are put in order by their addresses.
fn check(step: &Step) -> Result<(), CaptureError> {
    match mappings(step).iter().all(|mapping| mapping.start < mapping.end) {
        true => Ok(()),
        false => Err(CaptureError::Damaged("a mapping ends before it begins".into())),
    }
}

fn mappings(step: &Step) -> &[Mapping] {
    match step {
        Step::Maps { mappings, .. } => mappings,
        Step::MapCode { mapping, .. } => std::slice::from_ref(mapping),
        _ => &[],
    }
}

/// The bytes of the next step.
fn read_body(packed: &mut impl Read) -> Result<Vec<u8>, CaptureError> {
    let mut len = [0; 4];
    packed.read_exact(&mut len).map_err(of_io)?;
    let len = u32::from_le_bytes(len) as usize;
    if len > MAX_STEP_BYTES {
        return Err(CaptureError::Damaged(format!("a step of {len} bytes")));
    }
    // No room is made for what is only claimed.
    let mut body = Vec::new();
    packed.take(len as u64).read_to_end(&mut body).map_err(of_io)?;
    if body.len() == len { Ok(body) } else { Err(CaptureError::Cut) }
}

fn of_io(error: io::Error) -> CaptureError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => CaptureError::Cut,
        _ => CaptureError::Damaged(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, rc::Rc};

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Rc<RefCell<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn packed(capture: &Capture) -> Vec<u8> {
        let out = Shared::default();
        capture.write(Box::new(out.clone())).unwrap();
        out.0.take()
    }

    fn some() -> Capture {
        let bytes: Vec<u8> = (0..3000_u32).map(|n| ((n * n) >> 5) as u8).collect();
        let memory = Step::Memory { tgid: 7, address: 0x1000, bytes: bytes.clone() };
        Capture { steps: vec![memory, Step::Time(9), Step::Event(bytes), Step::Exit(7)] }
    }

    /// What is written is read; every prefix of it is refused, in a line.
    #[test]
    fn whole_or_refused() {
        let bytes = packed(&some());
        assert_eq!(Capture::read(&*bytes).unwrap(), some());
        for len in 0..bytes.len() {
            let error = Capture::read(&bytes[..len]).unwrap_err();
            assert!(!error.to_string().contains('\n'), "{len}: {error}");
        }
    }

    /// No damaged byte passes for what it was not.
    #[test]
    fn damaged() {
        let bytes = packed(&some());
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x10;
            if let Ok(read) = Capture::read(&*bytes) {
                assert_eq!(read, some(), "{at}");
            }
        }
        let foreign = Capture::read(&b"memtrace\x01\0\0\0"[..]).unwrap_err();
        assert!(matches!(foreign, CaptureError::Foreign), "{foreign}");
    }

    /// What a file only claims takes no memory.
    #[test]
    fn claims() {
        let of = |plain: &[u8]| {
            let mut file = MAGIC.to_vec();
            file.extend(zstd::bulk::compress(plain, 1).unwrap());
            Capture::read(&*file).unwrap_err().to_string()
        };
        assert_eq!(of(&[0xff; 4]), "the capture is damaged: a step of 4294967295 bytes");
        assert_eq!(of(&(MAX_STEP_BYTES as u32).to_le_bytes()), "the capture is cut");
        assert_eq!(of(&[]), "the capture is cut");
        let mapping = Mapping {
            start: 2,
            end: 1,
            access: true,
            exec: true,
            offset: 0,
            device: 0,
            inode: 0,
            path: Vec::new(),
        };
        let backwards = Capture { steps: vec![Step::MapCode { tgid: 1, mapping }] };
        let refused = Capture::read(&*packed(&backwards)).unwrap_err().to_string();
        assert_eq!(refused, "the capture is damaged: a mapping ends before it begins");
        // A list that claims to have more than there is.
        assert!(of(&[6, 0, 0, 0, 9, 0xff, 0xff, 0xff, 0xff, 0x0f]).contains("damaged"));
    }
}
