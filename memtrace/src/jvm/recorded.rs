//! The recorded JVMs, as memory for unit tests.

use std::{cell::Cell, fs, path::Path, rc::Rc};

use super::{Capture, Memory, Unreadable};

/// A recorded JVM that may end.
pub(super) struct Recorded {
    pub(super) capture: Capture,
    /// Whether nothing of it can be read any more.
    pub(super) is_over: Cell<bool>,
}

impl Memory for Recorded {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        if self.is_over.get() {
            return Err(Unreadable { address, len: bytes.len() });
        }
        self.capture.read(address, bytes)
    }
}

/// All that are recorded, and where their libraries begin.
pub(super) fn recorded() -> Vec<(Rc<Recorded>, u64)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/jvm_captures");
    let texts = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let texts = texts.filter(|path| path.extension().is_some_and(|end| end == "txt"));
    let all: Vec<_> = texts
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let start = text.lines().next().unwrap().strip_prefix("libjvm 0x").unwrap();
            let capture = Capture::unpack(&fs::read(path.with_extension("")).unwrap()).unwrap();
            let memory = Rc::new(Recorded { capture, is_over: Cell::new(false) });
            (memory, u64::from_str_radix(start, 16).unwrap())
        })
        .collect();
    assert!(all.len() >= 4, "only {} JVMs are recorded", all.len());
    all
}
