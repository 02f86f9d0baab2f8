//! `in_kernel FOLDER COMMAND...`: runs a command on another kernel; `cargo xtask kernels VERSION -- COMMAND` starts this.

use std::{
    env,
    ffi::OsString,
    io::{self, Write},
    path::Path,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use memtrace_tests::kernel::Kernel;

const LIMIT: Duration = Duration::from_secs(600);

fn main() -> io::Result<ExitCode> {
    let words: Vec<OsString> = env::args_os().skip(1).collect();
    let [folder, program, arguments @ ..] = &words[..] else {
        return Err(io::Error::other("usage: in_kernel FOLDER COMMAND..."));
    };
    let mut command = Command::new(program);
    command.args(arguments);
    // What the tests look at is told on.
    command.envs(env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MEMTRACE")));
    let kernel = Kernel::new(Path::new(folder));
    let begin = Instant::now();
    let ran = kernel.run(&command, LIMIT)?;
    io::stdout().write_all(ran.printed.as_bytes())?;
    let took = begin.elapsed().as_secs_f32();
    match ran.status {
        Some(status) => writeln!(io::stderr(), "kernel {kernel}: {status}, after {took:.1} s")?,
        None => {
            writeln!(io::stderr(), "kernel {kernel} ended, after {took:.1} s:\n{}", ran.console)?
        }
    }
    let code = ran.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
