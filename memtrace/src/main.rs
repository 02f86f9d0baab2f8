//! The `memtrace` command.

fn main() -> std::process::ExitCode {
    memtrace::commands::run()
}
