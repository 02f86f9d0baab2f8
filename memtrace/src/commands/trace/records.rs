//! Where every record goes: to the file, if there is one, and to the model, in the same order.

use std::{fs::File, io};

use crate::trace::{Record, Recording, Writer};

/// The records of a trace so far.
pub(super) struct Records {
    /// What they add up to.
    pub(super) recording: Recording,
    file: Option<Writer<File>>,
    error: Option<io::Error>,
}

impl Records {
    /// None yet; `file` takes them, too.
    pub(super) fn new(file: Option<Writer<File>>) -> Self {
        Self { recording: Recording::default(), file, error: None }
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
