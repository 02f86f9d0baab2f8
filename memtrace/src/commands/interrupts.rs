//! How often the user wants an end, for what works without a loop over inputs.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use anyhow::{Context, Result};
use tokio::{
    runtime,
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
        let mut kinds = vec![SignalKind::interrupt(), SignalKind::terminate()];
        // What was started so as to survive its terminal does.
        if !is_ignored(libc::SIGHUP) {
            kinds.push(SignalKind::hangup());
        }
        for kind in kinds {
            let _inside = runtime.enter();
            let (mut signal, shared) = (signal(kind).context(failed)?, counted.0.clone());
            runtime.spawn(async move {
                while signal.recv().await.is_some() {
                    shared.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let listen = move || runtime.block_on(pending::<()>());
        thread::Builder::new().name("signals".to_owned()).spawn(listen).context(failed)?;
        Ok(counted)
    }

    /// How often there was one.
    pub(super) fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether `signal` was to be ignored when memtrace was started, as `nohup` has it.
pub(super) fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: all zero is a valid `sigaction`.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: no new action is given, the old one is written to `action`.
    let result = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) };
    result == 0 && action.sa_sigaction == libc::SIG_IGN
}
