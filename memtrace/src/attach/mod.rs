//! Asking a running JVM for something, through HotSpot's attach protocol.
//!
//! A pid and a command go in, the JVM's answer comes out. This is the one room that acts on a
//! target: it may create one trigger file, send one SIGQUIT and connect to the JVM's socket, and it
//! does so only when [`command`] is called, which only a user's wish may cause.
//!
//! A SIGQUIT ends a process that does not catch it and makes a JVM that accepts no trigger file
//! print its threads into the application's output. So everything that can be known before is
//! looked at before, and the signal is sent at most once. The trigger file never stays behind. What
//! the JVM answers is hostile input: bounded in size and time, and decoded here as nothing but text.

use std::io;
use std::time::{Duration, Instant};

mod error;
mod exchange;
mod identity;
mod request;
mod sys;
mod target;
mod trigger;

pub use error::AttachError;

/// Has the JVM `pid` carry out `command` (`threaddump`, `jcmd`, …) and returns what it answers.
///
/// At most three arguments of 1024 bytes exist in the protocol; a whole `jcmd` line is one argument.
/// The calling thread waits for at most about `timeout`.
///
/// # Errors
///
/// An [`AttachError`] tells why there is no answer, and what can be done about it.
pub fn command(
    pid: u32,
    command: &str,
    args: &[&str],
    timeout: Duration,
) -> Result<String, AttachError> {
    let deadline = Instant::now() + timeout;
    let request = request::encode(command, args)?;
    let target = target::Target::open(pid)?;
    let answer = identity::run_as(&target.owner, || {
        exchange::exchange(&target, &request, exchange::Limit { deadline, timeout })
    })
    .map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => {
            AttachError::NotPermitted { pid, uid: target.owner.uid, source }
        }
        _ => AttachError::io(pid, "take the identity of", source),
    })??;
    request::decode(command, &answer)
}
