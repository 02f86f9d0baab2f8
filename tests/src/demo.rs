//! The demo application: the jar, and the command that starts it.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    fixtures::{run, target_dir},
    turn::Lock,
};

/// The options of the JVM that the demo application is run with: the opened package is what its old
/// libraries need on every JDK, and a heap of one size, as servers have it, is not obtained bit by bit
/// by whichever thread collects garbage.
pub const JVM_OPTIONS: [&str; 4] =
    ["-Xms1g", "-Xmx1g", "--add-opens", "java.base/java.lang=ALL-UNNAMED"];

/// The demo application's jar: the one that `MEMTRACE_DEMO_JAR` names, else built by Maven once.
pub fn jar() -> PathBuf {
    if let Some(jar) = env::var_os("MEMTRACE_DEMO_JAR") {
        return jar.into();
    }
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo-app");
    let jar = project.join("target/demo.jar");
    let _lock = Lock::exclusive(&target_dir().join("demo.lock"));
    if !jar.exists() {
        run(Command::new("mvn").args(["-q", "-B", "package", "-f"]).arg(project));
    }
    jar
}
