//! How often the user wants an end, for what works without a loop over inputs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use anyhow::{Context, Result};
use tokio::{
    runtime, select,
    signal::unix::{SignalKind, signal},
};

/// Counts SIGINT, SIGTERM and SIGHUP, which end memtrace no more.
#[derive(Clone, Debug, Default)]
pub(super) struct Interrupts(Arc<AtomicU32>);

impl Interrupts {
    /// Begins to count.
    pub(super) fn listen() -> Result<Self> {
        let failed = "failed to listen for signals";
        let runtime =
            runtime::Builder::new_current_thread().enable_all().build().context(failed)?;
        let counted = Self::default();
        let shared = counted.0.clone();
        let (mut interrupt, mut terminate, mut hang_up) = {
            let _inside = runtime.enter();
            let listen = |kind| signal(kind).context(failed);
            (
                listen(SignalKind::interrupt())?,
                listen(SignalKind::terminate())?,
                listen(SignalKind::hangup())?,
            )
        };
        let listen = move || {
            runtime.block_on(async {
                loop {
                    select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                        _ = hang_up.recv() => {}
                    }
                    shared.fetch_add(1, Ordering::Relaxed);
                }
            });
        };
        thread::Builder::new().name("signals".to_owned()).spawn(listen).context(failed)?;
        Ok(counted)
    }

    /// How often there was one.
    pub(super) fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}
