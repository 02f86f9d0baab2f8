//! What comes from the kernel side: the ring buffer of events, and its debug messages.

use std::{
    ops::{ControlFlow, Deref},
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

use aya::maps::{MapData, RingBuf};
use aya_log::EbpfLogger;

/// The ring buffer of events. Its descriptor becomes readable when the kernel side wants it to be read.
pub struct Ring(pub(super) RingBuf<MapData>);

impl Ring {
    /// Hands records to `take` until it breaks or there is none; tells whether there was none.
    pub fn read(&mut self, mut take: impl FnMut(&[u8]) -> ControlFlow<()>) -> bool {
        while let Some(record) = self.0.next() {
            if take(record.deref()).is_break() {
                return false;
            }
        }
        true
    }
}

impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// The kernel side's debug messages. The descriptor becomes readable when there are some.
pub struct Messages(pub(super) EbpfLogger<&'static dyn log::Log>);

impl Messages {
    /// Logs the messages that there are.
    pub fn log(&mut self) {
        self.0.flush();
    }
}

impl AsFd for Messages {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Messages {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
