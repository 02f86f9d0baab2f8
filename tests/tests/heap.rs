//! `memtrace heap`: the diagnosis of servers that reload an application, from dumps that their JVMs wrote.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use memtrace_tests::{
    heap_app::Server,
    heap_dump::{HeapDump, HeapReport, list, number, text},
    java::{Jdk, all_jdks, system_jdk},
    skip::{runs_all, skip},
};
use serde_json::Value;

/// What each copy of the application keeps at least: see `SessionFactoryImpl.CACHE_BYTES`.
const CACHE_BYTES: u64 = 1 << 20;
/// And at most: its ten thousand entities are less than another such cache and a half.
const MAX_COPY_BYTES: u64 = 5 << 19;

/// The system's JDK, or all that `server` runs on.
fn jdks(server: Server) -> Vec<Jdk> {
    let all = if runs_all() { all_jdks() } else { vec![system_jdk()] };
    let fits = |jdk: &Jdk| (server.oldest_jdk()..=server.newest_jdk()).contains(&jdk.major);
    all.into_iter().filter(fits).collect()
}

/// What memtrace says of the server after its reloads, on each JDK.
fn each_report(server: Server, holder: &str, check: impl Fn(&HeapReport, &str)) {
    for jdk in jdks(server) {
        let what = format!("{server:?} on {}, {holder}", jdk.home.display());
        let subject = server.start(&jdk, holder);
        match HeapDump::of_process(subject.pid()) {
            Some(dump) => check(&dump.report(&[]), &what),
            None => skip("heap::each_report", &format!("{what}: jcmd does not reach it")),
        }
    }
}

/// The names of threads among holders.
fn threads(holders: &[Value]) -> BTreeSet<&str> {
    holders.iter().filter_map(|holder| holder["thread"].as_str()).collect()
}

/// The leak of `application`, the only one.
fn only_leak<'a>(report: &'a HeapReport, application: &str, what: &str) -> &'a Value {
    let leaks = report.leaks();
    assert_eq!(leaks.len(), 1, "{what}: {leaks:#?}");
    assert_eq!(text(&leaks[0], "application"), application, "{what}");
    &leaks[0]
}

/// Each of `n` copies has a loader of its own that is named, with its cost and something that holds it.
fn assert_copies(report: &HeapReport, n: usize, application: &str, what: &str) {
    let loaders = report.leaked_loaders();
    assert_eq!(loaders.len(), n, "{what}: {loaders:#?}");
    let ids: BTreeSet<String> = loaders.iter().map(|loader| loader["id"].to_string()).collect();
    assert_eq!(ids.len(), n, "{what}: {loaders:#?}");
    for loader in loaders {
        assert_eq!(text(loader, "application"), application, "{what}");
        assert!(!list(loader, "holders").is_empty(), "{what}: {loader}");
        let urls = list(loader, "urls");
        let is_its = |url: &Value| url.as_str().unwrap().contains("/WEB-INF/classes/");
        assert!(urls.iter().any(is_its), "{what}: {urls:?}");
        let cost = number(loader, "cost_bytes");
        assert!((CACHE_BYTES..MAX_COPY_BYTES).contains(&cost), "{what}: {cost}");
    }
    let cost = number(&report.leaks()[0], "cost_bytes");
    let range = n as u64 * CACHE_BYTES..n as u64 * MAX_COPY_BYTES;
    assert!(range.contains(&cost), "{what}: {cost}");
}

/// The case that this is for: eight dead copies of /app_a, each held by a thread, since it is reloadable.
#[test]
fn tomcat_held_by_threads() {
    let want: Vec<String> = (1..=8).map(|copy| format!("app_a-worker-{copy}")).collect();
    let want: BTreeSet<&str> = want.iter().map(String::as_str).collect();
    for major in if runs_all() { &[7, 8, 9, 10, 11][..] } else { &[10] } {
        each_report(Server::Tomcat(*major), "thread", |report, what| {
            let leak = only_leak(report, "/app_a", what);
            assert_eq!(number(leak, "copies"), 8, "{what}: {leak}");
            assert_copies(report, 8, "/app_a", what);
            assert_eq!(threads(list(leak, "holders")), want, "{what}: {leak}");
            for loader in report.leaked_loaders() {
                // Tomcat 7 has no states but a flag.
                let states = if *major == 7 { ["STOPPED"; 2] } else { ["DESTROYED"; 2] };
                assert!(states.contains(&text(loader, "state")), "{what}: {loader}");
                assert_eq!(loader["reloadable"], true, "{what}: {loader}");
                assert_eq!(threads(list(loader, "holders")).len(), 1, "{what}: {loader}");
                assert!(text(loader, "class").contains("WebappClassLoader"), "{what}: {loader}");
            }
        });
    }
}

/// What else holds a copy is told by its own kind, and says what to do.
#[test]
fn tomcat_held_otherwise() {
    // (what is left behind, a part of the path to it, its thread if it is one)
    let cases = [
        ("timer", "", Some("app_a-timer-1")),
        ("shutdown_hook", "ApplicationShutdownHooks", None),
        ("thread_local", "hreadLocals", Some("main")),
    ];
    for (holder, path, thread) in cases {
        each_report(Server::Tomcat(10), holder, |report, what| {
            let leak = only_leak(report, "/app_a", what);
            assert_copies(report, 8, "/app_a", what);
            let holders = list(leak, "holders");
            assert!(
                holders.iter().any(|holder| holder["path"].to_string().contains(path)),
                "{what}: {leak}"
            );
            if let Some(thread) = thread {
                assert!(threads(holders).contains(thread), "{what}: {leak}");
            }
        });
    }
}

/// As many reloads that leave nothing behind are no leak, with any server.
#[test]
fn healthy() {
    for server in [Server::Tomcat(10), Server::Jetty, Server::Devtools] {
        each_report(server, "none", |report, what| {
            assert_eq!(report.leaks().len(), 0, "{what}: {:#?}", report.leaks());
            assert_eq!(report.leaked_loaders().len(), 0, "{what}: {:#?}", report.leaked_loaders());
        });
    }
}

/// Jetty stops a class loader without a state of its own: four copies are dead, the fifth serves.
#[test]
fn jetty() {
    each_report(Server::Jetty, "thread", |report, what| {
        let leaks = report.leaks();
        assert_eq!(leaks.len(), 1, "{what}: {leaks:#?}");
        assert_eq!(number(&leaks[0], "copies"), 4, "{what}: {leaks:#?}");
        let name = text(&leaks[0], "application");
        assert!(["app_a", "/app_a"].contains(&name), "{what}: {name}");
        let names = threads(list(&leaks[0], "holders"));
        let want: Vec<String> = (1..=4).map(|copy| format!("app_a-worker-{copy}")).collect();
        assert!(want.iter().all(|name| names.contains(name.as_str())), "{what}: {names:?}");
        assert!(!names.contains("app_a-worker-5"), "{what}: the copy that serves is no leak");
    });
}

/// Of five copies that Spring Boot's developer tools have loaded, four are left behind.
#[test]
fn devtools() {
    each_report(Server::Devtools, "thread", |report, what| {
        let leaks = report.leaks();
        assert_eq!(leaks.len(), 1, "{what}: {leaks:#?}");
        assert_eq!(number(&leaks[0], "copies"), 4, "{what}: {leaks:#?}");
        for loader in report.leaked_loaders() {
            assert!(text(loader, "class").ends_with(".RestartClassLoader"), "{what}: {loader}");
        }
        let names = threads(list(&leaks[0], "holders"));
        for copy in 1..=4 {
            let name = format!("restarted-worker-{copy}");
            assert!(names.contains(name.as_str()), "{what}: {names:?}");
        }
        assert!(!names.contains("restarted-worker-5"), "{what}: {names:?}");
    });
}
