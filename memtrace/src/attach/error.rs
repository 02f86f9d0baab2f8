//! Why a JVM could not be asked, each with one line of text and, where there is one, a next step.

use std::io;

/// Why a JVM gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// There is no process of this id, or it ended meanwhile.
    #[error("failed to attach to process {pid}: it does not exist")]
    NoSuchProcess {
        /// The process asked for.
        pid: u32,
    },
    /// No `libjvm.so` is mapped.
    #[error("failed to attach to process {pid}: it is not a HotSpot JVM")]
    NotHotSpot {
        /// The process asked for.
        pid: u32,
    },
    /// The JVM is OpenJ9, whose protocol is another.
    #[error("failed to attach to process {pid}: it is an OpenJ9 JVM")]
    OpenJ9 {
        /// The process asked for.
        pid: u32,
    },
    /// SIGQUIT would end the process.
    #[error("failed to attach to process {pid}: it does not handle SIGQUIT")]
    SigquitNotHandled {
        /// The process asked for.
        pid: u32,
    },
    /// The JVM was started so that it refuses.
    #[error("failed to attach to process {pid}: it runs with -XX:+DisableAttachMechanism")]
    Disabled {
        /// The process asked for.
        pid: u32,
    },
    /// The process does not run at the moment.
    #[error("failed to attach to process {pid}: it is {state}")]
    NotRunning {
        /// The process asked for.
        pid: u32,
        /// `stopped`, or `frozen by its control group`.
        state: &'static str,
    },
    /// The process is another user's.
    #[error("failed to attach to process {pid} of user {uid}: {source}")]
    NotPermitted {
        /// The process asked for.
        pid: u32,
        /// Its effective user.
        uid: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// The JVM could not create its socket.
    #[error("failed to attach to process {pid}: it cannot write to its /tmp: {source}")]
    TmpNotWritable {
        /// The process asked for.
        pid: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// The trigger file is there with another owner, or cannot be created.
    #[error("failed to create the trigger file of process {pid}: {source}")]
    Trigger {
        /// The process asked for.
        pid: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// What has the name of the JVM's socket is not its socket.
    #[error("failed to trust the attach socket of process {pid}: it belongs to user {uid}")]
    ForeignSocket {
        /// The process asked for.
        pid: u32,
        /// Who made the socket.
        uid: u32,
    },
    /// Nobody listens on the socket, or it may not be used.
    #[error("failed to connect to the attach socket of process {pid}: {source}")]
    SocketRefused {
        /// The process asked for.
        pid: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// The JVM listens on a socket whose file is gone, and does not make another.
    #[error("failed to attach to process {pid}: its attach socket was deleted from /tmp")]
    SocketDeleted {
        /// The process asked for.
        pid: u32,
    },
    /// The JVM did not do its part in time.
    #[error("failed to {action} process {pid} within {seconds} s")]
    Timeout {
        /// The process asked for.
        pid: u32,
        /// What was waited for.
        action: &'static str,
        /// How long.
        seconds: f32,
    },
    /// The JVM closed the connection, which is how it refuses a peer or a request it cannot read.
    #[error("failed to get an answer: the JVM closed the connection")]
    NoAnswer,
    /// The answer goes on and on.
    #[error("failed to read the JVM's answer: it is larger than {limit} bytes")]
    AnswerTooLarge {
        /// The largest answer that is read.
        limit: usize,
    },
    /// The answer does not begin with a status.
    #[error("failed to read the JVM's answer: it does not begin with a status")]
    Malformed,
    /// The JVM answered that it failed.
    #[error("failed to carry out `{command}`: the JVM says {status}: {message}")]
    CommandFailed {
        /// The command asked for.
        command: String,
        /// The JVM's status, not 0.
        status: i32,
        /// The first line of what it said; one line, without control characters.
        message: String,
    },
    /// The protocol cannot carry the command.
    #[error("failed to send `{command}`: {reason}")]
    BadRequest {
        /// The command asked for.
        command: String,
        /// What the protocol cannot carry.
        reason: &'static str,
    },
    /// Something else that the kernel refused.
    #[error("failed to {action} process {pid}: {source}")]
    Io {
        /// The process asked for.
        pid: u32,
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl AttachError {
    pub(super) fn io(pid: u32, action: &'static str, source: io::Error) -> Self {
        Self::Io { pid, action, source }
    }

    /// What the user can do about it, in one line.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::NotHotSpot { .. } => "only a HotSpot JVM (OpenJDK and its builds) can be asked",
            Self::OpenJ9 { .. } => "use OpenJ9's own tools: its `jcmd` or `jstack`",
            Self::SigquitNotHandled { .. } => {
                "the JVM is still starting, or runs with -Xrs (-XX:+ReduceSignalUsage); \
                 a SIGQUIT would end it, so none was sent"
            }
            Self::Disabled { .. } => "restart it without -XX:+DisableAttachMechanism",
            Self::NotRunning { .. } => {
                "let it run again: `kill -CONT PID`, or thaw its control group"
            }
            Self::NotPermitted { .. } => {
                "only root and the JVM's own user and group may ask it; try with sudo"
            }
            Self::TmpNotWritable { .. } => {
                "the JVM makes its attach socket in /tmp, whatever java.io.tmpdir says: \
                 give it a writable /tmp"
            }
            Self::Trigger { .. } => {
                "remove a `.attach_pid` file of another user from the JVM's working directory and /tmp"
            }
            Self::ForeignSocket { .. } => "remove the file `.java_pid` from the JVM's /tmp",
            Self::SocketRefused { .. } => {
                "the file `.java_pid` in the JVM's /tmp may be left from another process: remove it"
            }
            Self::SocketDeleted { .. } => {
                "the JVM must be restarted; keep /tmp/.java_pid* out of what cleans /tmp"
            }
            Self::Timeout { .. } => {
                "the JVM may wait for a safepoint, or for the CPU; try again with more time"
            }
            Self::NoSuchProcess { .. }
            | Self::NoAnswer
            | Self::AnswerTooLarge { .. }
            | Self::Malformed
            | Self::CommandFailed { .. }
            | Self::BadRequest { .. }
            | Self::Io { .. } => return None,
        })
    }
}
