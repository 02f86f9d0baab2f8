//! The bytes of a heap dump, and what the user is told while they are unpacked.

use std::{
    io::IsTerminal,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::anyhow;

use super::super::{failure::Failure, outputs};
use crate::{
    report::units,
    spool::{self, SpoolError, Spooled},
};

/// What takes no longer needs no word about how far it is.
const QUIET: Duration = Duration::from_secs(1);
/// How often it is told.
const EVERY: Duration = Duration::from_millis(200);

/// Maps the file; what is packed, or comes from a pipe, is unpacked into a temporary file first.
pub(super) fn open(path: &Path) -> Result<Spooled, Failure> {
    let mut told = Told::default();
    let spooled = spool::open(path, &mut |n, of| told.progress(n, of));
    told.end();
    let spooled = spooled.map_err(|error| {
        let hint = matches!(error, SpoolError::NoRoom { .. } | SpoolError::Write { .. })
            .then(|| "TMPDIR=FOLDER names a folder with more room".to_owned());
        Failure::new(anyhow!(error), hint)
    })?;
    if let Some(folder) = &spooled.folder {
        let from = spooled.packing.map_or("a pipe", |packing| packing.name());
        let size = units::bytes(spooled.bytes.len() as u64);
        let folder = folder.display();
        let note = format!("{size} from {from} are in a temporary file in {folder} meanwhile");
        outputs::to_stderr(&format!("memtrace: {note}\n"));
    }
    Ok(spooled)
}

/// The line about how far it is, on a terminal.
struct Told {
    began: Instant,
    last: Option<Instant>,
    is_terminal: bool,
}

impl Default for Told {
    fn default() -> Self {
        Self { began: Instant::now(), last: None, is_terminal: std::io::stderr().is_terminal() }
    }
}

impl Told {
    fn progress(&mut self, n: u64, of: u64) {
        let is_time = self.last.map_or(self.began.elapsed() > QUIET, |it| it.elapsed() > EVERY);
        if !self.is_terminal || !is_time {
            return;
        }
        self.last = Some(Instant::now());
        let part = units::share(n, of).map_or_else(|| units::bytes(n), |share| share.to_string());
        outputs::to_stderr(&format!("\rmemtrace: unpacking, {part} read\x1b[K"));
    }

    /// Leaves the line empty.
    fn end(&self) {
        if self.last.is_some() {
            outputs::to_stderr("\r\x1b[K");
        }
    }
}
