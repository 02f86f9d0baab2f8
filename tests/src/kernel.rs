//! Other kernels: a command is run on one of them, with this machine's files.
//!
//! A folder that `cargo xtask kernels` made and a command go in; what the command printed and how it ended come out.
//! qemu emulates the machine in software, whatever the processor could do: where virtualization is itself emulated, a
//! guest can hang without a word. The machine's root is shared through virtiofs and cannot be written to; `/tmp`, `/run`
//! and `/dev/shm` are the guest's own and empty, and so a target directory there can't be seen.

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt::{self, Display},
    fs, io,
    os::unix::{ffi::OsStrExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::fixtures::built;

/// How long the daemon that shares the files may take to listen.
const PATIENCE: Duration = Duration::from_secs(20);
/// Where Debian has that daemon.
const VIRTIOFSD: [&str; 2] = ["/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd"];
const MEMORY: &str = "2G";
/// An oops is a panic, and that ends qemu. Under emulation only the processor's own clock is fast, its randomness is as
/// good as any, and on a busy machine the timer does not stand the check of it.
const COMMAND_LINE: &str = "console=ttyS0 quiet oops=panic panic=-1 no_timer_check mitigations=off random.trust_cpu=on tsc=reliable clocksource=tsc";

/// A kernel that was fetched.
#[derive(Clone, Debug)]
pub struct Kernel {
    folder: PathBuf,
    command_line: String,
}

/// What came out of a kernel.
#[derive(Debug)]
pub struct Ran {
    /// How the command ended; `None` if the kernel did before it or had no time left.
    pub status: Option<ExitStatus>,
    /// What it printed, on stdout and stderr.
    pub printed: String,
    /// What the kernel printed.
    pub console: String,
}

impl Kernel {
    /// The kernel in a folder.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), command_line: COMMAND_LINE.to_owned() }
    }

    /// Those of `MEMTRACE_TEST_KERNELS`, separated by colons.
    pub fn all() -> Vec<Self> {
        let folders = env::var_os("MEMTRACE_TEST_KERNELS").unwrap_or_default();
        let folders = env::split_paths(&folders).filter(|folder| !folder.as_os_str().is_empty());
        folders.map(|folder| Self::new(&folder)).collect()
    }

    /// Its version, for instance `6.1`.
    pub fn version(&self) -> &str {
        self.folder.file_name().and_then(OsStr::to_str).unwrap_or_default()
    }

    /// The same kernel with one more parameter.
    #[must_use]
    pub fn with(mut self, parameter: &str) -> Self {
        self.command_line = format!("{} {parameter}", self.command_line);
        self
    }

    /// Boots it and runs `command` with its arguments and the variables that it sets, for `limit` at most.
    ///
    /// # Errors
    ///
    /// Something that is needed to boot it is missing.
    pub fn run(&self, command: &Command, limit: Duration) -> io::Result<Ran> {
        let folder = TempDir::with_prefix("memtrace-kernel-")?;
        let path = |name: &str| folder.path().join(name);
        fs::write(path("initrd"), self.initrd(command)?)?;
        let _files = share_files(&path("socket"))?;
        let mut qemu = self.qemu(folder.path());
        let mut qemu = Ended(qemu.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?);
        let deadline = Instant::now() + limit;
        while qemu.0.try_wait()?.is_none() && Instant::now() < deadline {
            sleep(Duration::from_millis(20));
        }
        drop(qemu);
        let printed = fs::read(path("results")).unwrap_or_default();
        let console = fs::read(path("console")).unwrap_or_default();
        Ok(Ran::new(&printed, &console))
    }

    /// The files that the kernel starts with.
    fn initrd(&self, command: &Command) -> io::Result<Vec<u8>> {
        let mut archive = Archive::default();
        // The kernel opens it for the first process.
        archive.folder("dev");
        archive.console();
        archive.folder("modules");
        archive.file("init", 0o755, &fs::read(built("kernel_init"))?);
        for module in fs::read_dir(self.folder.join("modules"))? {
            let module = module?;
            let name = format!("modules/{}", module.file_name().to_string_lossy());
            archive.file(&name, 0o644, &fs::read(module.path())?);
        }
        let path = env::var_os("PATH").unwrap_or_default();
        let mut variables = vec![variable(OsStr::new("PATH"), &path)];
        variables.push(variable(OsStr::new("HOME"), OsStr::new("/tmp")));
        let set = command.get_envs().filter_map(|(name, value)| Some(variable(name, value?)));
        variables.extend(set);
        let words: Vec<&OsStr> =
            [command.get_program()].into_iter().chain(command.get_args()).collect();
        archive.file("arguments", 0o644, &zero_ended(&words));
        archive.file("environment", 0o644, &zero_ended(&variables));
        Ok(archive.finished())
    }

    fn qemu(&self, folder: &Path) -> Command {
        let of = |prefix: &str, name: &str| {
            let mut word = OsString::from(prefix);
            word.push(folder.join(name));
            word
        };
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
        qemu.args(["-monitor", "none", "-M", "q35", "-cpu", "max,la57=off", "-smp", "2"]);
        // One thread for both processors: with one each, a processor may run into a kernel's code while another changes it.
        qemu.args(["-accel", "tcg,thread=single,tb-size=512", "-m", MEMORY]);
        qemu.arg("-kernel").arg(self.folder.join("vmlinuz"));
        qemu.arg("-initrd").arg(folder.join("initrd")).args(["-append", &self.command_line]);
        qemu.arg("-serial").arg(of("file:", "console"));
        qemu.arg("-serial").arg(of("file:", "results"));
        // The daemon writes what it reads to the guest's memory.
        let memory = format!("memory-backend-memfd,id=memory,size={MEMORY},share=on");
        qemu.args(["-object", &memory, "-numa", "node,memdev=memory"]);
        qemu.arg("-chardev").arg(of("socket,id=files,path=", "socket"));
        qemu.args(["-device", "vhost-user-fs-pci,queue-size=1024,chardev=files,tag=root"]);
        qemu
    }
}

impl Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.version())
    }
}

impl Ran {
    fn new(printed: &[u8], console: &[u8]) -> Self {
        // What the command printed may hold zeros, too: the last one is ours.
        let end = printed.iter().rposition(|&byte| byte == 0);
        let (printed, end) = printed.split_at(end.unwrap_or(printed.len()));
        let status = String::from_utf8_lossy(end);
        let status = status.trim_start_matches('\0').trim_end().strip_prefix("status ");
        let status = status.and_then(|status| status.parse().ok()).map(ExitStatus::from_raw);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { status, printed: text(printed), console: text(console) }
    }

    /// The exit code of a command that ended by itself.
    pub fn code(&self) -> Option<i32> {
        self.status?.code()
    }
}

/// A process that ends here, if not before.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended, and then there is nothing to end.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Starts the daemon that shares this machine's files, and waits until it listens.
fn share_files(socket: &Path) -> io::Result<Ended> {
    let daemon = VIRTIOFSD.into_iter().find(|path| Path::new(path).exists());
    let daemon = daemon.ok_or_else(|| io::Error::other("there is no virtiofsd"))?;
    let mut command = Command::new(daemon);
    let mut path = OsString::from("--socket-path=");
    path.push(socket);
    command.arg(path).args(["-o", "source=/", "-o", "cache=always", "-o", "sandbox=chroot"]);
    command.args(["-o", "no_writeback", "--thread-pool-size=4"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut daemon = Ended(command.spawn()?);
    let deadline = Instant::now() + PATIENCE;
    while !socket.exists() {
        if daemon.0.try_wait()?.is_some() || Instant::now() > deadline {
            return Err(io::Error::other(format!("{command:?} does not listen")));
        }
        sleep(Duration::from_millis(10));
    }
    Ok(daemon)
}

fn variable(name: &OsStr, value: &OsStr) -> OsString {
    let mut variable = name.to_owned();
    variable.push("=");
    variable.push(value);
    variable
}

fn zero_ended<S: AsRef<OsStr>>(words: &[S]) -> Vec<u8> {
    words.iter().flat_map(|word| [word.as_ref().as_bytes(), b"\0"].concat()).collect()
}

/// An archive of the kind that the kernel unpacks (Documentation/driver-api/early-userspace/buffer-format.rst, "newc").
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    n_entries: u32,
}

impl Archive {
    fn folder(&mut self, name: &str) {
        self.entry(name, libc::S_IFDIR | 0o755, (0, 0), &[]);
    }

    fn file(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entry(name, libc::S_IFREG | mode, (0, 0), content);
    }

    fn console(&mut self) {
        self.entry("dev/console", libc::S_IFCHR | 0o600, (5, 1), &[]);
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.n_entries += 1;
        let n_bytes = u32::try_from(content.len()).expect("no file has 4 GiB");
        let n_name = u32::try_from(name.len()).expect("no name has 4 GiB") + 1;
        self.bytes.extend(b"070701");
        // inode, mode, uid, gid, links, time, size, device of the file, device that it is, name, check
        for field in
            [self.n_entries, mode, 0, 0, 1, 0, n_bytes, 0, 0, device.0, device.1, n_name, 0]
        {
            self.bytes.extend(format!("{field:08x}").into_bytes());
        }
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finished(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An exit, a signal and no end at all are told apart; zeros that the command prints are its own.
    #[test]
    fn ends() {
        // (what came through the line, exit code, signal, what was printed)
        type Case = (&'static [u8], Option<i32>, Option<i32>, &'static str);
        let cases: [Case; 5] = [
            (b"a\n\0status 0\n", Some(0), None, "a\n"),
            (b"a\0b\0status 768\n", Some(3), None, "a\0b"),
            (b"\0status 9\n", None, Some(9), ""),
            (b"a\n", None, None, "a\n"),
            (b"", None, None, ""),
        ];
        for (bytes, code, signal, printed) in cases {
            let ran = Ran::new(bytes, b"");
            assert_eq!(ran.code(), code, "{bytes:?}");
            assert_eq!(ran.status.and_then(|status| status.signal()), signal, "{bytes:?}");
            assert_eq!(ran.printed, printed, "{bytes:?}");
        }
    }

    /// Each part of an archive begins at a multiple of four, and says how long it is.
    #[test]
    fn archives() {
        let mut archive = Archive::default();
        archive.file("ab", 0o644, b"content");
        let bytes = archive.finished();
        assert_eq!(&bytes[..14], b"07070100000001");
        assert_eq!(&bytes[110..], [b"ab\0\0\0\0content\0".as_slice(), &bytes[124..]].concat());
        assert_eq!(&bytes[124..130], b"070701");
        assert_eq!(bytes.len() % 4, 0);
    }
}
