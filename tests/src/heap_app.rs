//! The servers that reload an application, and dumps of their heaps.
//!
//! In: a server, a JVM and what the application leaves behind. Out: the running server, after its reloads, and what the JVM's
//! own tools say of it. Maven builds the servers once.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    fixtures::{run, target_dir},
    java::Jdk,
    subject::Subject,
    turn::Lock,
};

/// What reloads the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// Tomcat of this major version, with seven applications of which two are reloaded eight times.
    Tomcat(u32),
    /// Jetty 12, with two applications that are reloaded four times.
    Jetty,
    /// Spring Boot's developer tools, which restart an application four times.
    Devtools,
}

impl Server {
    /// The oldest JDK that it runs on.
    pub fn oldest_jdk(self) -> u32 {
        match self {
            Self::Tomcat(..=9) => 8,
            Self::Tomcat(10) => 11,
            Self::Tomcat(_) | Self::Jetty | Self::Devtools => 17,
        }
    }

    /// The newest JDK that it runs on: Tomcat 7 reaches into what JDK 17 has closed.
    pub fn newest_jdk(self) -> u32 {
        if self == Self::Tomcat(7) { 11 } else { u32::MAX }
    }

    /// Starts it and waits until all reloads are over and garbage was collected. `holder` is what each copy of the
    /// application leaves behind: `none`, or as the class `app.Application` has it.
    pub fn start(self, jdk: &Jdk, holder: &str) -> Subject {
        let mut java = Command::new(jdk.java());
        // A JVM in a root of its own sees the folder that it is started in, and no other.
        java.current_dir(built()).arg("-Xmx512m");
        match self {
            Self::Tomcat(major) => {
                let path = format!("tomcat/target/classes:tomcat/target/tomcat-{major}/*");
                java.args(["-cp", &path, "TomcatReloads", "webapp/target/classes"]);
            }
            Self::Jetty => {
                let path = "jetty/target/classes:jetty/target/lib/*";
                java.args(["-cp", path, "JettyReloads", "webapp/target/classes"]);
            }
            Self::Devtools => {
                let path = "devtools/target/classes:devtools/target/lib/*";
                java.args(["-cp", path, "app.DevtoolsRestarts"]);
            }
        }
        Subject::start(java.arg(holder))
    }
}

/// The folder of the servers, built by Maven if they are not yet.
fn built() -> PathBuf {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("heap-app");
    let _lock = Lock::exclusive(&target_dir().join("heap-app.lock"));
    // Modules are built in order, and this is the last one's.
    if !project.join("devtools/target/heap-app-devtools-1.jar").exists() {
        run(Command::new("mvn").args(["-q", "-B", "package", "-f"]).arg(&project));
    }
    project
}

/// What `jcmd` of the machine's JDK answers; `None` if it can't talk to that JVM.
pub fn jcmd(pid: u32, command: &[&str]) -> Option<String> {
    let answer = Command::new("jcmd").arg(pid.to_string()).args(command).output();
    let answer = answer.unwrap_or_else(|e| panic!("failed to start jcmd: {e}"));
    answer.status.success().then(|| String::from_utf8_lossy(&answer.stdout).into_owned())
}

/// A row of a class histogram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// With dots, arrays as `[B` or `[Ljava.lang.Object;`.
    pub class: String,
    /// Objects.
    pub instances: u64,
    /// Their own bytes.
    pub bytes: u64,
}

/// The rows of `GC.class_histogram`; classes of one name have a row each.
pub fn histogram(said: &str) -> Vec<Row> {
    said.lines().filter_map(row).collect()
}

/// ` 166:             7           1064  org.apache.catalina.loader.ParallelWebappClassLoader (java.base@17)`
fn row(line: &str) -> Option<Row> {
    let mut words = line.split_whitespace();
    words.next()?.strip_suffix(':')?.parse::<u64>().ok()?;
    let (instances, bytes) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some(Row { class: words.next()?.to_owned(), instances, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of JDK 17's histogram and of JDK 8's, between what is none.
    #[test]
    fn rows_of_a_histogram() {
        let said = "4188:\n num     #instances         #bytes  class name (module)\n\
            -------------------------------------------------------\n   \
            1:         30000        1200000  [B (java.base@17.0.15)\n \
            166:             7           1064  org.apache.catalina.loader.ParallelWebappClassLoader\n\
            Total        100000        2000000\n";
        let rows = histogram(said);
        let loader = "org.apache.catalina.loader.ParallelWebappClassLoader".to_owned();
        let want = [
            Row { class: "[B".into(), instances: 30000, bytes: 1_200_000 },
            Row { class: loader, instances: 7, bytes: 1064 },
        ];
        assert_eq!(rows, want);
    }
}
