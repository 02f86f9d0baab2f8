//! The servers whose heaps are looked at hold what they are said to hold: by what the JVM itself tells, before any dump is read.

use memtrace_tests::{
    heap_app::{Row, Server, histogram, jcmd},
    java::{Jdk, all_jdks, system_jdk},
    skip::{runs_all, skip},
    subject::Subject,
};

const FACTORY: &str = "org.hibernate.internal.SessionFactoryImpl";
const OF_TOMCAT: &str = "org.apache.catalina.loader.ParallelWebappClassLoader";
const OF_TOMCAT_7: &str = "org.apache.catalina.loader.WebappClassLoader";
const OF_JETTY: &str = "org.eclipse.jetty.ee10.webapp.WebAppClassLoader";
const OF_DEVTOOLS: &str =
    "org.springframework.boot.devtools.restart.classloader.RestartClassLoader";

/// How many instances there are of all classes of that name.
fn instances(rows: &[Row], class: &str) -> u64 {
    rows.iter().filter(|row| row.class == class).map(|row| row.instances).sum()
}

fn rows_of(server: &Subject) -> Option<Vec<Row>> {
    Some(histogram(&jcmd(server.pid(), &["GC.class_histogram"])?))
}

/// The system's JDK, or all that `server` runs on.
fn jdks(server: Server) -> Vec<Jdk> {
    let all = if runs_all() { all_jdks() } else { vec![system_jdk()] };
    let fits = |jdk: &Jdk| (server.oldest_jdk()..=server.newest_jdk()).contains(&jdk.major);
    all.into_iter().filter(fits).collect()
}

/// Checks how many loaders of `class`, and how many factories, `server` holds for each holder.
fn check(server: Server, class: &str, cases: &[(&str, u64, u64)]) {
    let jdks = jdks(server);
    if jdks.is_empty() {
        skip(&format!("heap_apps::{server:?}"), "no JDK here that it runs on");
    }
    for jdk in jdks {
        for (holder, n_loaders, n_factories) in cases {
            let subject = server.start(&jdk, holder);
            let Some(rows) = rows_of(&subject) else {
                // In a root of its own, or it allows no attaching.
                let why = format!("jcmd does not reach JDK {}", jdk.major);
                skip(&format!("heap_apps::{server:?}"), &why);
                continue;
            };
            let got = (instances(&rows, class), instances(&rows, FACTORY));
            assert_eq!(got, (*n_loaders, *n_factories), "{server:?} on {jdk:?}, {holder}");
        }
    }
}

/// Fifteen class loaders and ten factories where seven and two belong, whatever holds what /app_a has left behind.
#[test]
fn tomcat_leaves_eight_copies() {
    let cases = [
        ("thread", 15, 10),
        ("timer", 15, 10),
        ("shutdown_hook", 15, 10),
        ("thread_local", 15, 10),
        ("none", 7, 2),
    ];
    for major in [8, 9, 10, 11] {
        let cases = if major == 10 || runs_all() { &cases[..] } else { &cases[..1] };
        check(Server::Tomcat(major), OF_TOMCAT, cases);
    }
    check(Server::Tomcat(7), OF_TOMCAT_7, &[("thread", 15, 10), ("none", 7, 2)]);
}

/// Jetty's five copies of each of two applications, of which it stops four.
#[test]
fn jetty_leaves_four_copies() {
    check(Server::Jetty, OF_JETTY, &[("thread", 6, 6), ("none", 2, 2)]);
}

/// Five copies of a restarted application.
#[test]
fn devtools_leave_four_copies() {
    check(Server::Devtools, OF_DEVTOOLS, &[("thread", 5, 0), ("none", 1, 0)]);
}
