//! Everything that tracing waits for, as one closed list.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use tokio::{
    io::{Interest, unix::AsyncFd},
    select,
    signal::unix::{Signal, SignalKind, signal},
    sync::{Mutex, OwnedMutexGuard, mpsc},
    task,
    time::{Instant, Interval, MissedTickBehavior, interval, interval_at, sleep_until},
};

use super::super::{args::TraceArgs, failure::Failure, interrupts::is_ignored, jstack};
use crate::{
    probes::{Messages, Probes, Ring},
    trace::ThreadName,
};

/// The ring buffer wakes nobody for a single event; it is looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(40);
/// A thread dump costs the JVM a safepoint.
const ASK_EVERY: Duration = Duration::from_secs(5);
const FAR_AWAY: Duration = Duration::from_secs(100 * 365 * 86_400);

/// What can happen while tracing.
#[derive(Debug)]
pub(super) enum Input {
    /// There may be events.
    Events,
    /// A second is over.
    Second,
    /// The user wants the trace to end.
    Asked,
    /// The user wants to see the report of the moment.
    Report,
    /// The time is over.
    TimeOver,
    /// The JVM has told its threads' names, or has not.
    Named(Result<Vec<ThreadName>, Failure>),
}

/// Where inputs come from.
pub(super) struct Inputs {
    ring: AsyncFd<Ring>,
    messages: Option<AsyncFd<Messages>>,
    look: Interval,
    second: Interval,
    end: Instant,
    interrupt: Signal,
    terminate: Signal,
    /// None where memtrace was started so as to survive its terminal.
    hang_up: Option<Signal>,
    report: Signal,
    named: mpsc::Receiver<Result<Vec<ThreadName>, Failure>>,
    /// Held while the JVM is asked: a second question at that time may make it print its threads.
    asking: Arc<Mutex<()>>,
}

impl Inputs {
    /// Must be called inside a runtime.
    pub(super) fn new(probes: &mut Probes, args: &TraceArgs, pid: u32) -> Result<Self> {
        // SAFETY: the ring buffer owns its descriptor and keeps it until it is dropped.
        let ring =
            unsafe { AsyncFd::register_with_interest(probes.take_ring()?, Interest::READABLE) };
        let ring = ring.context("failed to wait for the ring buffer")?;
        let messages = if args.outputs.verbose >= 2 {
            // SAFETY: they own their ring buffer's descriptor and keep it until they are dropped.
            let messages =
                unsafe { AsyncFd::register_with_interest(probes.messages()?, Interest::READABLE) };
            Some(messages.context("failed to wait for the kernel side's messages")?)
        } else {
            None
        };
        let listen = |kind| signal(kind).context("failed to listen for signals");
        let asking = Arc::new(Mutex::new(()));
        let asks = args.outputs.jstack.as_deref().is_some_and(jstack::is_attach);
        Ok(Self {
            ring,
            messages,
            look: every(LOOK_EVERY),
            second: every(Duration::from_secs(1)),
            end: Instant::now() + args.duration.unwrap_or(FAR_AWAY),
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: if is_ignored(libc::SIGHUP) {
                None
            } else {
                Some(listen(SignalKind::hangup())?)
            },
            report: listen(SignalKind::user_defined1())?,
            named: if asks { ask_now_and_then(pid, asking.clone()) } else { mpsc::channel(1).1 },
            asking,
        })
    }

    /// The next thing that happens. What ends the trace comes first, events come last: they never stop in a storm.
    pub(super) async fn next(&mut self) -> Input {
        let Self {
            ring,
            messages,
            look,
            second,
            end,
            interrupt,
            terminate,
            hang_up,
            report,
            named,
            asking: _,
        } = self;
        select! {
            biased;
            _ = interrupt.recv() => Input::Asked,
            _ = terminate.recv() => Input::Asked,
            () = hung_up(hang_up.as_mut()), if hang_up.is_some() => Input::Asked,
            () = sleep_until(*end) => Input::TimeOver,
            _ = report.recv() => Input::Report,
            Some(names) = named.recv() => Input::Named(names),
            _ = second.tick() => Input::Second,
            () = flush(messages.as_mut()), if messages.is_some() => Input::Events,
            _ = look.tick() => Input::Events,
            guard = ring.readable() => {
                if let Ok(mut guard) = guard {
                    guard.clear_ready();
                }
                Input::Events
            }
        }
    }

    /// Waits until the JVM is not being asked; it is not asked again as long as what is returned lives.
    pub(super) async fn ask_no_more(&self) -> OwnedMutexGuard<()> {
        self.asking.clone().lock_owned().await
    }

    /// The ring buffer.
    pub(super) fn ring(&mut self) -> &mut Ring {
        self.ring.get_mut()
    }
}

async fn flush(messages: Option<&mut AsyncFd<Messages>>) {
    let Some(messages) = messages else { return };
    if let Ok(mut guard) = messages.readable_mut().await {
        guard.get_inner_mut().log();
        guard.clear_ready();
    }
}

async fn hung_up(signal: Option<&mut Signal>) {
    if let Some(signal) = signal {
        signal.recv().await;
    }
}

fn every(period: Duration) -> Interval {
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Asks the JVM for its threads' names at once and every few seconds, so that threads that end are named, too.
fn ask_now_and_then(
    pid: u32,
    asking: Arc<Mutex<()>>,
) -> mpsc::Receiver<Result<Vec<ThreadName>, Failure>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut ticks = interval(ASK_EVERY);
        loop {
            ticks.tick().await;
            let alone = asking.clone().lock_owned().await;
            let names = task::spawn_blocking(move || {
                let _alone = alone;
                jstack::ask(pid)
            });
            let Ok(names) = names.await else { return };
            if sender.send(names).await.is_err() {
                return;
            }
        }
    });
    receiver
}

/// Whether `path` means that the JVM is asked.
pub(super) fn asks(path: Option<&Path>) -> bool {
    path.is_some_and(jstack::is_attach)
}
