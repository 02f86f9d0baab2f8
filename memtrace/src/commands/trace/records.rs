//! Where every record goes: to the file, if there is one, and to the model, in the same order.

use std::{fs::File, io};

use anyhow::{Context, Result};

use super::super::{
    args::TraceArgs,
    outputs::{self, Beginning},
};
use crate::trace::{self, Record, Recording, Writer};

/// The records of a trace so far.
#[derive(Default)]
pub(super) struct Records {
    /// What they add up to.
    pub(super) recording: Recording,
    file: Option<Writer<File>>,
    /// The file's first bytes, if they are to be written later.
    beginning: Option<Beginning>,
    error: Option<io::Error>,
}

impl Records {
    /// None yet; the file that was asked for takes them, too.
    pub(super) fn open(args: &TraceArgs) -> Result<Self> {
        let Some(path) = &args.output else { return Ok(Self::default()) };
        let mut file = outputs::create(path)?;
        let beginning = Beginning::of(&mut file, path, &trace::header())
            .with_context(|| format!("failed to write {}", path.display()))?;
        let writer = Writer::after_header(file, args.max_size.unwrap_or(u64::MAX));
        Ok(Self { file: Some(writer), beginning, ..Self::default() })
    }

    /// The trace has begun: what was in the file before is gone.
    pub(super) fn begin(&mut self) {
        if let Some(Err(error)) = self.beginning.take().map(Beginning::write) {
            self.stop_file(error);
        }
    }

    /// Takes a record.
    pub(super) fn put(&mut self, record: Record) {
        if let Some(Err(error)) = self.file.as_mut().map(|file| file.write(&record)) {
            self.stop_file(error);
        }
        self.recording.apply(record);
    }

    /// Writes what the file has not got yet.
    pub(super) fn flush(&mut self) {
        if let Some(Err(error)) = self.file.as_mut().map(Writer::flush) {
            self.stop_file(error);
        }
    }

    /// From now on come the records that end the trace: they fit in the file, however full it is.
    pub(super) fn begin_closing(&mut self) {
        if let Some(file) = &mut self.file {
            file.begin_closing();
        }
    }

    /// Whether the file has reached its largest size.
    pub(super) fn is_full(&self) -> bool {
        self.file.as_ref().is_some_and(Writer::is_full)
    }

    /// Why the file is not written any more, once it is not.
    pub(super) fn take_error(&mut self) -> Option<io::Error> {
        self.error.take()
    }

    fn stop_file(&mut self, error: io::Error) {
        self.file = None;
        self.error = Some(error);
    }
}
