//! A fixture program that runs: begins and ends when told to, and says what it did.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
};

use crate::{
    java::{Jdk, classes},
    said::Said,
};

/// A fixture that was started with `--wait`.
#[derive(Debug)]
pub struct Subject {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    said: Said,
}

impl Subject {
    /// Starts a C fixture, up to the point where it waits to begin.
    pub fn ready(program: &Path, arguments: &[&str]) -> Self {
        Self::start(Command::new(program).args(arguments).arg("--wait"))
    }

    /// Starts a Java fixture, up to the point where it waits to begin.
    pub fn ready_java(jdk: &Jdk, options: &[&str], class: &str, arguments: &[&str]) -> Self {
        let mut java = Command::new(jdk.java());
        // A JVM in a root of its own sees the folder that it is started in, and no other.
        java.current_dir(classes()).args(options).args(["-cp", ".", class]);
        java.args(arguments).arg("--wait");
        Self::start(&mut java)
    }

    /// Starts any program that says `ready` and waits for a line.
    pub fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|e| panic!("failed to start {command:?}: {e}"));
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        let mut subject = Self { child, stdin, stdout, said: Said::default() };
        subject.hear_until("ready");
        subject
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it begin, and returns at once.
    pub fn begin(&mut self) {
        self.nod();
    }

    /// Lets it begin, and waits until it has done everything; it still runs then.
    pub fn finish(&mut self) -> Said {
        self.nod();
        self.done()
    }

    /// Waits until it has done everything; it still runs then.
    pub fn done(&mut self) -> Said {
        self.hear_until("done");
        self.said.clone()
    }

    /// Waits until it says `line`, for instance `ready` again after it has executed itself.
    pub fn hear_until(&mut self, line: &str) {
        loop {
            let mut heard = String::new();
            let length = self.stdout.read_line(&mut heard).expect("the fixture speaks UTF-8");
            assert_ne!(length, 0, "the fixture ended before it said `{line}`: {:?}", self.said);
            let heard = heard.trim_end_matches('\n');
            if heard == line {
                return;
            }
            self.said.add(heard);
        }
    }

    /// Lets it end, and says how it did.
    pub fn leave(mut self) -> ExitStatus {
        self.nod();
        self.child.wait().expect("it is our child")
    }

    /// Waits until it has ended by itself.
    pub fn wait(mut self) -> ExitStatus {
        self.child.wait().expect("it is our child")
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: libc::c_int) {
        send(self.pid(), signal);
    }

    /// One line to its stdin. It may have ended, then nobody reads it.
    fn nod(&mut self) {
        if let Some(stdin) = &mut self.stdin {
            stdin.write_all(b"\n").ok();
        }
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // It may have ended and been waited for: then there is nothing to kill.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Sends `signal` to process `pid`, a child that was not waited for yet.
pub fn send(pid: u32, signal: libc::c_int) {
    // SAFETY: kill takes numbers and touches no memory.
    let result = unsafe { libc::kill(pid.cast_signed(), signal) };
    assert_eq!(result, 0, "failed to send signal {signal} to process {pid}");
}
