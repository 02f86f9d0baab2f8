//! Running other programs.
//!
//! In: a command. Out: nothing, or an error that names the program and how it ended.

use std::{
    env,
    ffi::{OsStr, OsString},
    io,
    process::{Command, Stdio},
};

use anyhow::{Context, bail};

/// Runs `command` and waits for it; anything but success is an error.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("failed to start {program}"))?;
    if !status.success() {
        bail!("failed to run `{}`: {status}", line(command));
    }
    Ok(())
}

/// Runs `command` and returns what it printed.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("failed to start {program}"))?;
    if !output.status.success() {
        bail!("failed to run `{}`: {}", line(command), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("failed to read what {program} said"))
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    // SAFETY: geteuid takes nothing, touches no memory and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// `program` with root's rights: itself if we have them, else through sudo.
pub(crate) fn as_root(program: impl AsRef<OsStr>) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let [sudo, options @ ..] = sudo();
    let mut command = Command::new(sudo);
    command.args(options).arg(program);
    command
}

/// What makes the command line behind it root's, with the user's environment: sudo alone would give it another PATH
/// than the one on which programs were looked for.
pub(crate) fn sudo() -> [OsString; 4] {
    let mut path = OsString::from("PATH=");
    path.push(env::var_os("PATH").unwrap_or_default());
    ["sudo".into(), "-E".into(), "env".into(), path]
}

/// Maven, which talks only of errors, and on stderr: stdout is for results.
pub(crate) fn maven() -> Command {
    let mut command = Command::new("mvn");
    command.args(["-q", "-B", "-Dstyle.color=never"]).stdout(io::stderr());
    command
}

/// The command as one types it.
fn line(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(command.get_args().map(OsStr::to_string_lossy));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A failure names the command line and the exit status, a missing program its name.
    #[test]
    fn errors_name_the_command() {
        let error = run(Command::new("sh").args(["-c", "exit 3"])).unwrap_err();
        assert_eq!(format!("{error:#}"), "failed to run `sh -c exit 3`: exit status: 3");
        let error = run(&mut Command::new("no-such-program")).unwrap_err();
        assert!(format!("{error:#}").starts_with("failed to start no-such-program: "), "{error:#}");
    }

    #[test]
    fn output_is_what_was_printed() {
        assert_eq!(output(Command::new("echo").arg("one two")).unwrap(), "one two\n");
    }
}
