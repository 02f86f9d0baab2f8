//! One question to the JVM and its answer, in the target's name.
//!
//! Uses the socket that is there, or has the JVM make one: trigger file, one SIGQUIT, wait.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use super::AttachError;
use super::sys;
use super::target::Target;
use super::trigger::Trigger;

/// The largest answer that is read: a thread dump of tens of thousands of deep stacks.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// How long the JVM is given between two looks for its socket.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Until when the exchange may last.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    pub(super) deadline: Instant,
    /// What the user allowed, for the message.
    pub(super) timeout: Duration,
}

impl Limit {
    /// What is left; never the zero that a socket would take for "for ever".
    fn remaining(self) -> Option<Duration> {
        let remaining = self.deadline.checked_duration_since(Instant::now())?;
        (!remaining.is_zero()).then_some(remaining)
    }

    /// The error for a target that did not do `action` in time.
    fn expired(self, target: &Target, action: &'static str) -> AttachError {
        target.why_silent().unwrap_or(AttachError::Timeout {
            pid: target.pid,
            action,
            seconds: self.timeout.as_secs_f32(),
        })
    }
}

/// Sends `request` to the JVM and returns its whole answer.
///
/// The calling thread has the target's effective user and group.
pub(super) fn exchange(
    target: &Target,
    request: &[u8],
    limit: Limit,
) -> Result<Vec<u8>, AttachError> {
    let socket = match find_socket(target)? {
        Some(socket) => socket,
        None => have_socket_made(target, limit)?,
    };
    let mut stream = connect(target, &socket, limit)?;
    let result = ask(&mut stream, request, limit);
    result.map_err(|error| match error {
        AskError::Io(error) if is_timeout(&error) => limit.expired(target, "hear from"),
        AskError::Io(source) => AttachError::io(target.pid, "talk to", source),
        AskError::TooLarge => AttachError::AnswerTooLarge { limit: MAX_ANSWER_BYTES },
    })
}

/// The JVM's socket as a place, if it is there.
fn find_socket(target: &Target) -> Result<Option<File>, AttachError> {
    let Target { pid, ns_pid, owner, .. } = *target;
    let path = format!("/proc/self/fd/{}/.java_pid{ns_pid}", target.tmp.as_raw_fd());
    let flags = libc::O_PATH | libc::O_NOFOLLOW;
    let socket = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(socket) => socket,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(AttachError::SocketRefused { pid, source }),
    };
    let metadata =
        socket.metadata().map_err(|source| AttachError::SocketRefused { pid, source })?;
    if !metadata.file_type().is_socket() || metadata.uid() != owner.uid {
        // /tmp is everybody's: who made this may not be the JVM.
        return Err(AttachError::ForeignSocket { pid, uid: metadata.uid() });
    }
    Ok(Some(socket))
}

/// Has the JVM make its socket, with one SIGQUIT.
fn have_socket_made(target: &Target, limit: Limit) -> Result<File, AttachError> {
    let pid = target.pid;
    sys::check_writable(&target.tmp)
        .map_err(|source| AttachError::TmpNotWritable { pid, source })?;
    let trigger = Trigger::create(target).map_err(|source| AttachError::Trigger { pid, source })?;
    if trigger.is_of_another() {
        // Who made it sends the signal, and a second one makes the JVM print its threads. Only one that was left behind
        // has nobody: then there is no socket after a time.
        let until = Instant::now() + limit.remaining().unwrap_or_default() / 2;
        if let Some(socket) = wait_for_socket(target, until)? {
            return Ok(socket);
        }
    }
    target.pidfd.send(libc::SIGQUIT).map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => {
            AttachError::NotPermitted { pid, uid: target.owner.uid, source }
        }
        _ => AttachError::NoSuchProcess { pid },
    })?;
    let socket = wait_for_socket(target, limit.deadline)?;
    socket.ok_or_else(|| limit.expired(target, "get an attach socket from"))
}

/// Looks for the socket until it is there, or the time is over.
fn wait_for_socket(target: &Target, until: Instant) -> Result<Option<File>, AttachError> {
    loop {
        if let Some(socket) = find_socket(target)? {
            return Ok(Some(socket));
        }
        if target.pidfd.has_ended().unwrap_or(false) {
            return Err(AttachError::NoSuchProcess { pid: target.pid });
        }
        let remaining = until.saturating_duration_since(Instant::now());
        if remaining.is_zero() {
            return Ok(None);
        }
        thread::sleep(POLL_INTERVAL.min(remaining));
    }
}

/// Connects to `socket` itself, not to what has its name by now.
fn connect(target: &Target, socket: &File, limit: Limit) -> Result<UnixStream, AttachError> {
    let expired = || limit.expired(target, "connect to");
    let remaining = limit.remaining().ok_or_else(expired)?;
    let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
    sys::connect(&path, remaining).map_err(|source| {
        if is_timeout(&source) {
            expired()
        } else {
            AttachError::SocketRefused { pid: target.pid, source }
        }
    })
}

/// Why there is no whole answer.
#[derive(Debug)]
enum AskError {
    Io(io::Error),
    TooLarge,
}

impl From<io::Error> for AskError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Writes `request` and reads up to the end of the stream.
fn ask(stream: &mut UnixStream, request: &[u8], limit: Limit) -> Result<Vec<u8>, AskError> {
    let remaining = || limit.remaining().ok_or(io::Error::from(io::ErrorKind::TimedOut));
    stream.set_write_timeout(Some(remaining()?))?;
    match stream.write_all(request) {
        // A JVM that refuses the peer closes at once; what it said, if anything, is still there.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        result => result?,
    }
    let mut answer = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        stream.set_read_timeout(Some(remaining()?))?;
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(answer),
            Ok(n) if answer.len() + n > MAX_ANSWER_BYTES => return Err(AskError::TooLarge),
            Ok(n) => answer.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Closed with our request unread: a refusal.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(answer),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether `error` is a socket's way to say that its time is over.
fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(timeout: Duration) -> Limit {
        Limit { deadline: Instant::now() + timeout, timeout }
    }

    /// Runs `answer` as the JVM at the other end and asks it.
    fn ask_a_jvm(
        timeout: Duration,
        answer: impl FnOnce(UnixStream) + Send + 'static,
    ) -> Result<Vec<u8>, AskError> {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let jvm = thread::spawn(move || answer(theirs));
        let result = ask(&mut ours, b"1\0x\0\0\0\0", limit(timeout));
        drop(ours);
        jvm.join().unwrap();
        result
    }

    /// The answer is read to its end, whatever pieces it comes in.
    #[test]
    fn whole_answer() {
        let answer = ask_a_jvm(Duration::from_secs(10), |mut stream| {
            let mut request = [0; 7];
            stream.read_exact(&mut request).unwrap();
            assert_eq!(&request, b"1\0x\0\0\0\0");
            for piece in [&b"0"[..], b"\nab", b"c"] {
                stream.write_all(piece).unwrap();
                thread::sleep(Duration::from_millis(5));
            }
        });
        assert_eq!(answer.unwrap(), b"0\nabc");
    }

    /// A JVM that hangs up gives an empty answer, not a failure of the socket.
    #[test]
    fn hangs_up() {
        assert_eq!(ask_a_jvm(Duration::from_secs(10), drop).unwrap(), b"");
    }

    /// A JVM that says nothing, or never stops, is left in the end.
    #[test]
    fn bounded() {
        let error = ask_a_jvm(Duration::from_millis(50), |mut stream| {
            let _ = stream.read_to_end(&mut Vec::new());
        });
        assert!(matches!(error, Err(AskError::Io(error)) if is_timeout(&error)));
        let error =
            ask_a_jvm(
                Duration::from_secs(60),
                |mut stream| {
                    while stream.write_all(&[b'x'; 1 << 20]).is_ok() {}
                },
            );
        assert!(matches!(error, Err(AskError::TooLarge)));
    }
}
