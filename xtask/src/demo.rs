//! `cargo xtask demo`: the start-up of a real application, traced.
//!
//! In: the demo application, built by Maven. Out: in `target/demo/`, the report in each of its
//! forms. The files are replaced by each run.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, SystemTime},
};

use anyhow::{Context, bail};

use crate::{
    build,
    needs::Part,
    repository::Repository,
    run,
    setup::{self, Policy},
};

/// How the demo application is started, by demo, tests and benchmark alike.
pub(crate) const JAVA: [&str; 7] = [
    "java",
    "-Xms1g",
    "-Xmx1g",
    "--add-opens",
    "java.base/java.lang=ALL-UNNAMED",
    "-Ddemo.once=true",
    "-jar",
];

/// What the application says when its start-up and its scan are over, however slow the machine is.
const IS_OVER: &str = "demo: scan finished";
/// How long it is traced then, and how long it goes on, so that it is looked at while it still runs.
const AFTERWARDS: Duration = Duration::from_secs(6);
const LINGER_SECONDS: u32 = 30;
/// The status of a command that SIGTERM has ended.
const ASKED_TO_END: i32 = 128 + libc::SIGTERM;

/// What the demo leaves, and what it is.
const FILES: [(&str, &str); 5] = [
    ("report.txt", "the report, as `memtrace report demo.mt` prints it"),
    ("demo.folded", "folded stacks"),
    ("demo.svg", "flame graph"),
    ("demo.json", "the whole report as JSON"),
    ("demo.mt", "the trace itself"),
];

/// Builds everything, traces the application and says where the results are.
pub(crate) fn run(repository: &Repository, policy: Policy) -> anyhow::Result<()> {
    setup::ensure(policy, &[Part::Build, Part::Demo])?;
    let memtrace = build::run(repository, policy)?;
    let jar = build(repository)?;
    let folder = repository.target.join("demo");
    fs::create_dir_all(&folder)
        .with_context(|| format!("failed to create {}", folder.display()))?;

    eprintln!("Tracing the start-up of {}.", jar.display());
    let mut trace = run::as_root(&memtrace);
    trace.arg("--folded").arg(folder.join("demo.folded"));
    trace.arg("--flamegraph").arg(folder.join("demo.svg"));
    trace.arg("--json").arg(folder.join("demo.json"));
    trace.arg("-o").arg(folder.join("demo.mt"));
    let (jar_option, java) = JAVA.split_last().context("a command has words")?;
    let linger = format!("-Ddemo.linger={LINGER_SECONDS}");
    follow(trace.arg("--").args(java).arg(linger).arg(jar_option).arg(&jar))?;
    save_report(&memtrace, &folder)?;
    list_files(&folder)
}

/// Runs memtrace, and ends the trace as Ctrl-C does when the start-up is over.
#[expect(clippy::print_stdout, reason = "what memtrace prints, passed on")]
fn follow(trace: &mut Command) -> anyhow::Result<()> {
    let mut memtrace = trace.stdout(Stdio::piped()).spawn().context("failed to start memtrace")?;
    let stdout = memtrace.stdout.take().context("memtrace's stdout is a pipe")?;
    for line in BufReader::new(stdout).lines() {
        let line = line.context("failed to read what memtrace printed")?;
        println!("{line}");
        if line == IS_OVER {
            thread::sleep(AFTERWARDS);
            run::run(run::as_root("kill").args(["-INT", &memtrace.id().to_string()]))?;
        }
    }
    let status = memtrace.wait().context("failed to wait for memtrace")?;
    // At the end of the trace memtrace asks the application to end, and passes on how it did.
    if !status.success() && status.code() != Some(ASKED_TO_END) {
        bail!("memtrace ended with {status}");
    }
    Ok(())
}

/// Builds the application unless it is newer than its sources; returns the jar.
pub(crate) fn build(repository: &Repository) -> anyhow::Result<PathBuf> {
    built(&repository.root.join("tests/demo-app"), "target/demo.jar", "the demo application")
}

/// Builds the servers whose heaps the tests look at, unless they are newer than their sources.
pub(crate) fn build_servers(repository: &Repository) -> anyhow::Result<()> {
    let project = repository.root.join("tests/heap-app");
    // Modules are built in order, and this is the last one's.
    built(&project, "devtools/target/heap-app-devtools-1.jar", "the servers").map(drop)
}

/// The jar of a Maven project, built unless it is newer than all sources.
fn built(project: &Path, jar: &str, what: &str) -> anyhow::Result<PathBuf> {
    let jar = project.join(jar);
    let built = fs::metadata(&jar).and_then(|file| file.modified()).ok();
    if built.is_some_and(|built| newest_source(project) < Some(built)) {
        return Ok(jar);
    }
    eprintln!("Building {what} with Maven.");
    let pom = project.join("pom.xml");
    run::run(run::maven().arg("-f").arg(&pom).arg("package"))?;
    if !jar.is_file() {
        bail!("failed to find {}: {} did not build it", jar.display(), pom.display());
    }
    // Maven leaves a jar alone whose content is the same; it is as new as the sources all the same.
    let touched = fs::File::options().write(true).open(&jar);
    touched
        .and_then(|file| file.set_modified(SystemTime::now()))
        .with_context(|| format!("failed to set the time of {}", jar.display()))?;
    Ok(jar)
}

/// When a source of a Maven project was last changed: in it, or in one of its modules, which lie in folders of their own.
fn newest_source(project: &Path) -> Option<SystemTime> {
    let mut newest = None;
    let mut paths = vec![project.join("pom.xml"), project.join("src")];
    let modules = fs::read_dir(project).into_iter().flatten().flatten();
    let modules = modules.map(|entry| entry.path()).filter(|path| path.join("pom.xml").is_file());
    paths.extend(modules.flat_map(|module| [module.join("pom.xml"), module.join("src")]));
    while let Some(path) = paths.pop() {
        let changed = fs::metadata(&path).and_then(|file| file.modified()).ok();
        newest = newest.max(changed);
        // A folder's own time tells of files that were taken away.
        let listed = fs::read_dir(&path).into_iter().flatten().flatten();
        paths.extend(listed.map(|entry| entry.path()));
    }
    newest
}

/// Writes the report once more, from the trace: without what the application printed.
fn save_report(memtrace: &Path, folder: &Path) -> anyhow::Result<()> {
    let report = run::output(Command::new(memtrace).arg("report").arg(folder.join("demo.mt")))?;
    let file = folder.join("report.txt");
    fs::write(&file, report).with_context(|| format!("failed to write {}", file.display()))
}

fn list_files(folder: &Path) -> anyhow::Result<()> {
    eprintln!("\nIn {}:", folder.display());
    for (name, what) in FILES {
        let file = folder.join(name);
        let size = fs::metadata(&file)
            .with_context(|| format!("failed to find {}", file.display()))?
            .len();
        if size == 0 {
            bail!("{} is empty", file.display());
        }
        eprintln!("  {name:<12} {size:>10} bytes  {what}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A project's newest file decides, however deep it lies and in whichever module; one without files is never newer.
    #[test]
    fn newest_source_is_found() {
        let project = std::env::temp_dir().join(format!("memtrace-demo-{}", std::process::id()));
        assert_eq!(newest_source(&project), None);
        let deep = project.join("src/main/java/Deep.java");
        fs::create_dir_all(deep.parent().unwrap()).unwrap();
        fs::write(project.join("pom.xml"), "").unwrap();
        fs::write(&deep, "").unwrap();
        let future = SystemTime::now() + std::time::Duration::from_secs(100);
        fs::File::options().write(true).open(&deep).unwrap().set_modified(future).unwrap();
        assert_eq!(newest_source(&project), Some(future));
        let module = project.join("module");
        fs::create_dir_all(&module).unwrap();
        let later = future + std::time::Duration::from_secs(100);
        let pom = module.join("pom.xml");
        fs::File::create(&pom).unwrap().set_modified(later).unwrap();
        assert_eq!(newest_source(&project), Some(later));
        fs::remove_dir_all(&project).unwrap();
    }
}
