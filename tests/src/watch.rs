//! The usual course of a test: a fixture waits, memtrace attaches, the fixture does its work, memtrace ends.

use crate::{
    fixtures::built,
    java::Jdk,
    memtrace::{Memtrace, Outcome},
    report::Report,
    said::Said,
    subject::Subject,
};

/// What a watched fixture said, and what memtrace reported of it.
#[derive(Debug)]
pub struct Watched {
    /// The process that was watched; its first thread has the same id.
    pub pid: u32,
    /// What it said it did.
    pub said: Said,
    /// What memtrace saw.
    pub report: Report,
    /// What memtrace left.
    pub outcome: Outcome,
}

/// Watches the C fixture `name`, with more options for memtrace.
pub fn watch(name: &str, arguments: &[&str], options: &[&str]) -> Watched {
    watch_subject(Subject::ready(&built(name), arguments), options)
}

/// Watches a Java fixture, with more options for memtrace.
pub fn watch_java(jdk: &Jdk, class: &str, arguments: &[&str], options: &[&str]) -> Watched {
    watch_subject(Subject::ready_java(jdk, &[], class, arguments), options)
}

/// Watches a fixture that waits to begin; it ends after memtrace does.
pub fn watch_subject(mut subject: Subject, options: &[&str]) -> Watched {
    let pid = subject.pid();
    let tracing = Memtrace::of_process(pid).recorded().args(options).attached();
    let said = subject.finish();
    let outcome = tracing.stop();
    assert!(subject.leave().success(), "the fixture was disturbed");
    Watched { pid, said, report: outcome.report(), outcome }
}
