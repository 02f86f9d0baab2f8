//! The process to attach to, and whether it can be attached to without harm.
//!
//! A pid goes in; handles come out that mean this process and its directories and no other, with
//! the identity to use. Everything here only reads.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::AttachError;
use super::identity::Owner;
use crate::target::{self, Root, pidfd::PidFd, proc};

/// More than exec allows for arguments and environment: a switch in them is not passed over.
const MAX_OPTIONS_BYTES: u64 = 8 << 20;

/// What is read of the list of sockets, which are those of all processes.
const MAX_SOCKETS_BYTES: u64 = 64 << 20;

/// A HotSpot JVM that can be attached to.
pub(super) struct Target {
    pub(super) pid: u32,
    /// Its id in its own pid namespace, which the names of its files hold.
    pub(super) ns_pid: u32,
    /// Its effective user and group.
    pub(super) owner: Owner,
    pub(super) pidfd: PidFd,
    /// Its `/tmp`, wherever that is on the host.
    pub(super) tmp: File,
    /// Its working directory, if that can be opened.
    pub(super) cwd: Option<File>,
}

/// What `/proc/PID/status` says.
#[derive(Debug, PartialEq, Eq)]
struct Status {
    state: char,
    owner: Owner,
    ns_pid: u32,
    catches_sigquit: bool,
}

impl Target {
    /// Looks at process `pid`, and refuses what would not work or do harm.
    pub(super) fn open(pid: u32) -> Result<Self, AttachError> {
        let gone = |_| AttachError::NoSuchProcess { pid };
        let pidfd = PidFd::open(pid).map_err(gone)?;
        let status = read_status(pid)?;
        let denied = |source: io::Error| match source.kind() {
            io::ErrorKind::PermissionDenied => {
                AttachError::NotPermitted { pid, uid: status.owner.uid, source }
            }
            _ => AttachError::io(pid, "look into", source),
        };
        let folder = proc::folder(pid);
        check_hotspot(pid, || File::open(folder.join("maps")).map_err(denied))?;
        check_running(pid, &status)?;
        if disables_attach(&options(pid)) {
            return Err(AttachError::Disabled { pid });
        }
        if !status.catches_sigquit {
            return Err(AttachError::SigquitNotHandled { pid });
        }
        let root = Root::of_process(pid).map_err(denied)?;
        let tmp = root
            .folder(Path::new("tmp"))
            .map_err(|source| AttachError::TmpNotWritable { pid, source })?;
        let cwd = open_path(&folder.join("cwd")).ok();
        // What was read belongs to the process of `pidfd` only if that still lives.
        if pidfd.has_ended().map_err(|source| AttachError::io(pid, "watch", source))? {
            return Err(AttachError::NoSuchProcess { pid });
        }
        Ok(Self { pid, ns_pid: status.ns_pid, owner: status.owner, pidfd, tmp, cwd })
    }

    /// Tells why the process did not answer, if that is known by now.
    pub(super) fn why_silent(&self) -> Option<AttachError> {
        let Self { pid, ns_pid, .. } = *self;
        if self.pidfd.has_ended().unwrap_or(false) {
            return Some(AttachError::NoSuchProcess { pid });
        }
        if let Err(error) = read_status(pid).and_then(|status| check_running(pid, &status)) {
            return Some(error);
        }
        // HotSpot binds its socket under a first name and then renames it.
        let sockets = proc::read_up_to(pid, "net/unix", MAX_SOCKETS_BYTES).unwrap_or_default();
        let sockets = String::from_utf8_lossy(&sockets);
        let name = format!("/tmp/.java_pid{ns_pid}");
        let listens = sockets
            .lines()
            .filter_map(|line| line.split_ascii_whitespace().next_back())
            .any(|path| path.strip_suffix(".tmp").unwrap_or(path) == name);
        listens.then_some(AttachError::SocketDeleted { pid })
    }
}

/// Opens `path` as a place, without the right to read it.
fn open_path(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(path)
}

fn read_status(pid: u32) -> Result<Status, AttachError> {
    let gone = |_| AttachError::NoSuchProcess { pid };
    let text = proc::read(pid, "status").map_err(gone)?;
    // The process's name is in there, and may be any bytes.
    parse_status(&String::from_utf8_lossy(&text)).ok_or_else(|| {
        AttachError::io(pid, "read the status of", io::ErrorKind::InvalidData.into())
    })
}

fn parse_status(text: &str) -> Option<Status> {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.split_ascii_whitespace())
    };
    // Of real, effective, saved and file system id, the second.
    let effective = |name| field(name)?.nth(1)?.parse().ok();
    let caught = u64::from_str_radix(field("SigCgt")?.next()?, 16).ok()?;
    Some(Status {
        state: field("State")?.next()?.chars().next()?,
        owner: Owner { uid: effective("Uid")?, gid: effective("Gid")? },
        ns_pid: field("NSpid")?.next_back()?.parse().ok()?,
        catches_sigquit: caught & (1 << (libc::SIGQUIT - 1)) != 0,
    })
}

/// Refuses a process that is over, stopped or frozen: it would not answer until it runs again.
fn check_running(pid: u32, status: &Status) -> Result<(), AttachError> {
    match status.state {
        'Z' | 'X' => Err(AttachError::NoSuchProcess { pid }),
        'T' | 't' => Err(AttachError::NotRunning { pid, state: "stopped" }),
        _ if target::is_frozen(pid) => {
            Err(AttachError::NotRunning { pid, state: "frozen by its control group" })
        }
        _ => Ok(()),
    }
}

/// Refuses a process that has not mapped HotSpot.
fn check_hotspot(
    pid: u32,
    open_maps: impl FnOnce() -> Result<File, AttachError>,
) -> Result<(), AttachError> {
    let mut maps = BufReader::new(open_maps()?);
    let (mut line, mut is_hotspot) = (Vec::new(), false);
    loop {
        line.clear();
        match maps.read_until(b'\n', &mut line) {
            Ok(0) if is_hotspot => return Ok(()),
            Ok(0) => return Err(AttachError::NotHotSpot { pid }),
            Ok(_) => {}
            Err(source) => return Err(AttachError::io(pid, "read the memory map of", source)),
        }
        match library(&line) {
            // OpenJ9 has a libjvm.so too, but HotSpot no libj9vm.
            name if name.starts_with(b"libj9vm") => return Err(AttachError::OpenJ9 { pid }),
            name => is_hotspot |= name.starts_with(b"libjvm.so"),
        }
    }
}

/// The file name at the end of a line of `/proc/PID/maps`.
fn library(line: &[u8]) -> &[u8] {
    line.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

/// The options the JVM was started with, in the order in which it reads them.
fn options(pid: u32) -> Vec<u8> {
    let read = |name| proc::read_up_to(pid, name, MAX_OPTIONS_BYTES).unwrap_or_default();
    let environ = read("environ");
    let variable = |name: &str| {
        let mut variables = environ.split(|byte| *byte == 0);
        let value = variables.find_map(|v| v.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
        value.unwrap_or_default().to_vec()
    };
    let sources = [
        variable("JAVA_TOOL_OPTIONS"),
        variable("JDK_JAVA_OPTIONS"),
        read("cmdline"),
        variable("_JAVA_OPTIONS"),
    ];
    sources.join(&0)
}

/// Whether `options`, ended by zero bytes or blanks, turn attaching off; of several, the last holds.
fn disables_attach(options: &[u8]) -> bool {
    let words = options.split(|byte| *byte == 0 || byte.is_ascii_whitespace());
    let mut switches = words.filter_map(|word| match word {
        b"-XX:+DisableAttachMechanism" => Some(true),
        b"-XX:-DisableAttachMechanism" => Some(false),
        _ => None,
    });
    switches.next_back().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attach::{identity, sys};

    /// A process of root is not looked into by another user, and that is said.
    #[test]
    fn not_permitted() {
        let nobody = Owner { uid: 65534, gid: 65534 };
        let current = sys::effective_owner();
        let owner = if current.uid == 0 { nobody } else { current };
        let error = identity::run_as(&owner, || Target::open(1).err()).unwrap().unwrap();
        let expected = "failed to attach to process 1 of user 0: Permission denied (os error 13)";
        assert_eq!(error.to_string(), expected);
    }

    /// The effective ids, the innermost pid and SIGQUIT's bit are taken; a name cannot forge them.
    #[test]
    fn status() {
        let text = "Name:\tx\\nUid: 1\nState:\tS (sleeping)\nPid:\t4711\nUid:\t0\t101\t102\t103\n\
                    Gid:\t0\t201\t202\t203\nNSpid:\t4711\t17\t1\nSigCgt:\t0000000181005ccf\n";
        let expected = Status {
            state: 'S',
            owner: Owner { uid: 101, gid: 201 },
            ns_pid: 1,
            catches_sigquit: true,
        };
        assert_eq!(parse_status(text), Some(expected));
        let uncaught = text.replace("5ccf", "5cc8"); // 1, 2 and 3 are SIGHUP, SIGINT and SIGQUIT
        assert!(!parse_status(&uncaught).unwrap().catches_sigquit);
        assert_eq!(parse_status("Name:\tx\n"), None);
        assert_eq!(parse_status(&text.replace("NSpid:\t4711\t17\t1", "NSpid:")), None);
    }

    /// The last switch counts, and only a whole word is one.
    #[test]
    fn disabled() {
        let cases: [(&[u8], bool); 6] = [
            (b"java\0-jar\0app.jar\0", false),
            (b"java\0-XX:+DisableAttachMechanism\0-jar\0app.jar\0", true),
            (b"-Da=b -XX:+DisableAttachMechanism\0java\0", true),
            (b"-XX:+DisableAttachMechanism\0java\0-XX:-DisableAttachMechanism\0", false),
            (b"java\0-Dx=-XX:+DisableAttachMechanism\0", false),
            (b"", false),
        ];
        for (options, expected) in cases {
            assert_eq!(disables_attach(options), expected, "{}", options.escape_ascii());
        }
    }

    /// A library is known by its file name, deleted or not.
    #[test]
    fn libraries() {
        let line = b"7f00-7f01 r-xp 0 08:01 1  /usr/lib/jvm/lib/server/libjvm.so (deleted)\n";
        assert_eq!(library(line), b"libjvm.so (deleted)\n");
        assert_eq!(library(b"7f00-7f01 rw-p 0 00:00 0 \n"), b"7f00-7f01 rw-p 0 00:00 0 \n");
    }
}
